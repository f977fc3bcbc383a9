// SPDX-License-Identifier: Apache-2.0
/** Makes an SNP VM out of a launch plan, call by call as QEMU does it. */
import { Errno } from '../abi/errno.ts';
import {
  KVM_EXIT_HYPERCALL_VALID_MASK,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KvmAttrGroup,
  KvmCap,
  KvmIoctl,
  KvmMemFlag,
  KvmSevAttr,
  KvmVmType,
  kvmIoctlName,
} from '../abi/kvm.ts';
import {
  KvmSevCmdId,
  KvmSevInit,
  KvmSevSnpLaunchFinish,
  KvmSevSnpLaunchStart,
  KvmSevSnpLaunchUpdate,
} from '../abi/kvm-sev.ts';
import {
  KvmCreateGuestMemfd,
  KvmDeviceAttr,
  KvmEnableCap,
  KvmMemoryAttributes,
  KvmSregs,
  KvmUserspaceMemoryRegion2,
} from '../abi/kvm-structs.ts';
import { PageType } from '../abi/page-info.ts';
import { SevRet } from '../abi/sev-status.ts';
import type { HostProcess } from '../kvm/host-kernel.ts';
import type { LaunchPlan, LaunchRegion } from '../launch/plan.ts';
import { PAGE_SIZE, uaddr } from '../lib/addresses.ts';
import { readU64 } from '../lib/bytes.ts';
import { invariant } from '../lib/errors.ts';
import { GuestRam, type GuestSlot, type MemoryBlock } from './guest-ram.ts';
import { ATTACHMENT_AT, KvmCalls, type KvmRefusal } from './kvm-fd.ts';
import { ramSlots, type SlotPlan } from './memory-layout.ts';
import { cpuidOf, regsOf, sregsOf } from './vcpu-state.ts';

export interface LaunchSettings {
  readonly plan: LaunchPlan;
  readonly memoryBytes: number;
  readonly policy: bigint;
  /** 16 bytes. */
  readonly gosvw?: Uint8Array;
  /** 32 bytes. */
  readonly hostData?: Uint8Array;
  /** Both or neither: 96 and 4096 bytes. */
  readonly idBlock?: { readonly block: Uint8Array; readonly auth: Uint8Array; readonly authorKey: boolean };
  readonly vcekDisabled?: boolean;
}

/** A VM that can run. */
export interface LaunchedVm {
  readonly calls: KvmCalls;
  readonly vmFd: number;
  readonly ram: GuestRam;
  /** File descriptors of the vCPUs, by id. */
  readonly vcpus: readonly number[];
  /** Whether the guest's extended requests come to this VMM. */
  readonly certsEnabled: boolean;
}

/** Ends the launch; caught in `launchVm` alone. */
class Refused {
  readonly refusal: KvmRefusal;

  constructor(refusal: KvmRefusal) {
    this.refusal = refusal;
  }
}

/**
 * Launches the VM.
 *
 * Returns  the VM, or the call that failed with its errno and firmware status; the process has ended then
 * Errors   OPTION_INVALID for a memory size no layout holds
 */
export function launchVm(
  vmmProcess: HostProcess,
  settings: LaunchSettings,
  wantsCerts: boolean,
  onLog: (line: string) => void,
): LaunchedVm | KvmRefusal {
  const slots = ramSlots(settings.memoryBytes);
  const launch = new VmLaunch(vmmProcess, settings, onLog);
  try {
    return launch.run(slots, wantsCerts);
  } catch (error) {
    if (error instanceof Refused) {
      vmmProcess.exit();
      return error.refusal;
    }
    throw error;
  }
}

class VmLaunch {
  readonly #process: HostProcess;
  readonly #settings: LaunchSettings;
  readonly #onLog: (line: string) => void;
  readonly #calls: KvmCalls;
  readonly #ram: GuestRam;
  #vmFd = -1;
  #sevFd = -1;

  constructor(process: HostProcess, settings: LaunchSettings, onLog: (line: string) => void) {
    this.#process = process;
    this.#settings = settings;
    this.#onLog = onLog;
    this.#calls = new KvmCalls(process);
    this.#ram = new GuestRam(process);
  }

  run(slots: readonly SlotPlan[], wantsCerts: boolean): LaunchedVm {
    const { plan } = this.#settings;
    const kvmFd = this.#fd('open /dev/kvm', this.#process.openDevKvm());
    this.#sevFd = this.#fd('open /dev/sev', this.#process.openDevSev({ write: true }));
    const type = BigInt(KvmVmType.KVM_X86_SNP_VM);
    this.#vmFd = this.#fd('KVM_CREATE_VM', this.#process.ioctl(kvmFd, KvmIoctl.KVM_CREATE_VM, type));
    this.#vmIoctl(
      KvmIoctl.KVM_ENABLE_CAP,
      KvmEnableCap.encode({
        cap: KvmCap.KVM_CAP_EXIT_HYPERCALL,
        args: [KVM_EXIT_HYPERCALL_VALID_MASK, 0n, 0n, 0n],
      }),
    );
    this.#check('KVM_CREATE_IRQCHIP', this.#process.ioctl(this.#vmFd, KvmIoctl.KVM_CREATE_IRQCHIP, 0n));
    // KVM adds SNPActive itself and refuses to be told.
    this.#sev(
      KvmSevCmdId.KVM_SEV_INIT2,
      KvmSevInit.encode({ vmsa_features: plan.vmsaRegs.sevFeatures & ~1n }),
    );
    const certsEnabled = wantsCerts && this.#enableCerts(kvmFd);
    this.#addMemory(slots);
    const { policy, gosvw = new Uint8Array(16) } = this.#settings;
    this.#sev(KvmSevCmdId.KVM_SEV_SNP_LAUNCH_START, KvmSevSnpLaunchStart.encode({ policy, gosvw }));
    for (const region of coalesced(plan.regions)) {
      this.#launchRegion(region);
    }
    const vcpus = plan.vmsas.map((vmsa, id) => this.#createVcpu(vmsa, id));
    this.#finish();
    return { calls: this.#calls, vmFd: this.#vmFd, ram: this.#ram, vcpus, certsEnabled };
  }

  /** KVM_X86_SEV_SNP_REQ_CERTS must be 1: a kernel may know the attribute and still not offer it. */
  #enableCerts(kvmFd: number): boolean {
    const at = this.#calls.put(ATTACHMENT_AT, new Uint8Array(8));
    const ret = this.#calls.ioctl(
      kvmFd,
      KvmIoctl.KVM_GET_DEVICE_ATTR,
      KvmDeviceAttr.encode({
        group: KvmAttrGroup.KVM_X86_GRP_SEV,
        attr: BigInt(KvmSevAttr.KVM_X86_SEV_SNP_REQ_CERTS),
        addr: at,
      }),
    );
    const value = ret === 0 ? this.#process.read(at, 8) : null;
    if (value === null || readU64(value, 0) !== 1n) {
      this.#onLog('this kernel cannot fetch certificates: the guest gets an empty table');
      return false;
    }
    this.#sev(KvmSevCmdId.KVM_SEV_SNP_ENABLE_REQ_CERTS, null);
    return true;
  }

  #addMemory(slots: readonly SlotPlan[]): void {
    const { ovmfGpa, regions } = this.#settings.plan;
    const ram = this.#block(this.#settings.memoryBytes);
    const firmwareBytes = regions.find(({ gpa }) => gpa === ovmfGpa)?.sizeBytes ?? 0;
    invariant(firmwareBytes > 0, 'a launch plan begins with the firmware');
    const from = Number(ovmfGpa) / PAGE_SIZE;
    const firmware = { from, to: from + firmwareBytes / PAGE_SIZE, blockPage: 0 };
    const all: GuestSlot[] = slots.map((slot) => ({ ...slot, block: ram }));
    all.push({ ...firmware, block: this.#block(firmwareBytes) });
    all.forEach((slot, id) => {
      this.#addSlot(slot, id);
    });
  }

  #block(sizeBytes: number): MemoryBlock {
    const struct = KvmCreateGuestMemfd.encode({ size: BigInt(sizeBytes) });
    const fd = this.#fd(
      'KVM_CREATE_GUEST_MEMFD',
      this.#calls.ioctl(this.#vmFd, KvmIoctl.KVM_CREATE_GUEST_MEMFD, struct),
    );
    return { userAddress: this.#process.mmap(sizeBytes), guestMemfd: fd };
  }

  #addSlot(slot: GuestSlot, id: number): void {
    const { block, from, to, blockPage } = slot;
    const bytes = (pages: number): bigint => BigInt(pages) * BigInt(PAGE_SIZE);
    this.#vmIoctl(
      KvmIoctl.KVM_SET_USER_MEMORY_REGION2,
      KvmUserspaceMemoryRegion2.encode({
        slot: id,
        flags: KvmMemFlag.KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: bytes(from),
        memory_size: bytes(to - from),
        userspace_addr: block.userAddress + bytes(blockPage),
        guest_memfd_offset: bytes(blockPage),
        guest_memfd: block.guestMemfd,
      }),
    );
    this.#vmIoctl(
      KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES,
      KvmMemoryAttributes.encode({
        address: bytes(from),
        size: bytes(to - from),
        attributes: KVM_MEMORY_ATTRIBUTE_PRIVATE,
      }),
    );
    this.#ram.add(slot);
  }

  /** One KVM_SEV_SNP_LAUNCH_UPDATE, repeated while KVM leaves something of it. */
  #launchRegion(region: LaunchRegion): void {
    const from = Number(region.gpa) / PAGE_SIZE;
    const parts = this.#ram.resolve({ from, to: from + region.sizeBytes / PAGE_SIZE });
    if (parts === null) {
      throw new Refused({
        ok: false,
        step: `${region.what} in guest memory`,
        errno: Errno.EFAULT,
        fwStatus: null,
      });
    }
    let offset = 0;
    for (const part of parts) {
      const sizeBytes = (part.to - part.from) * PAGE_SIZE;
      const at = uaddr(part.block.userAddress + BigInt(part.blockPage) * BigInt(PAGE_SIZE));
      if (region.data !== null) {
        const written = this.#process.write(at, region.data.subarray(offset, offset + sizeBytes));
        invariant(written, 'the memory of a VM that has not started is writable');
      }
      this.#launchPages(region, part.from, at, sizeBytes);
      offset += sizeBytes;
    }
  }

  #launchPages(region: LaunchRegion, from: number, at: bigint, sizeBytes: number): void {
    const { type } = region;
    let update = KvmSevSnpLaunchUpdate.encode({
      gfn_start: BigInt(from),
      uaddr: type === PageType.ZERO ? 0n : at,
      len: BigInt(sizeBytes),
      type,
    });
    let corrected = false;
    for (let left = BigInt(sizeBytes); left > 0n; ) {
      const refusal = this.#calls.sev(this.#vmFd, this.#sevFd, KvmSevCmdId.KVM_SEV_SNP_LAUNCH_UPDATE, update);
      const wrongCpuid = type === PageType.CPUID && refusal?.fwStatus === SevRet.SEV_RET_INVALID_PARAM;
      if (wrongCpuid && !corrected) {
        // KVM has put the table the firmware would accept where ours was.
        this.#onLog('the firmware does not vouch for our CPUID table; launching the one it corrected');
        corrected = true;
        continue;
      }
      if (refusal !== null) {
        throw new Refused({ ...refusal, step: `${refusal.step} (${region.what})` });
      }
      update = this.#calls.readBack(KvmSevSnpLaunchUpdate.size);
      const before = left;
      left = KvmSevSnpLaunchUpdate.get(update, 'len');
      invariant(left < before, 'KVM_SEV_SNP_LAUNCH_UPDATE makes progress or fails');
    }
  }

  #createVcpu(vmsa: Uint8Array, id: number): number {
    const created = this.#process.ioctl(this.#vmFd, KvmIoctl.KVM_CREATE_VCPU, BigInt(id));
    const fd = this.#fd('KVM_CREATE_VCPU', created);
    const cpuidPage = this.#settings.plan.regions.find(({ type }) => type === PageType.CPUID)?.data;
    if (cpuidPage !== null && cpuidPage !== undefined) {
      this.#ioctl(fd, KvmIoctl.KVM_SET_CPUID2, cpuidOf(cpuidPage, id));
    }
    this.#ioctl(fd, KvmIoctl.KVM_GET_SREGS, new Uint8Array(KvmSregs.size));
    const current = KvmSregs.decode(this.#calls.readBack(KvmSregs.size));
    this.#ioctl(fd, KvmIoctl.KVM_SET_SREGS, sregsOf(vmsa, current));
    this.#ioctl(fd, KvmIoctl.KVM_SET_REGS, regsOf(vmsa));
    return fd;
  }

  #finish(): void {
    const { idBlock, hostData = new Uint8Array(32), vcekDisabled = false } = this.#settings;
    const pointers =
      idBlock === undefined
        ? {}
        : {
            id_block_uaddr: this.#calls.put(ATTACHMENT_AT, idBlock.block),
            id_auth_uaddr: this.#calls.put(ATTACHMENT_AT + 0x1000n, idBlock.auth),
            id_block_en: 1,
            auth_key_en: idBlock.authorKey ? 1 : 0,
          };
    this.#sev(
      KvmSevCmdId.KVM_SEV_SNP_LAUNCH_FINISH,
      KvmSevSnpLaunchFinish.encode({
        ...pointers,
        vcek_disabled: vcekDisabled ? 1 : 0,
        host_data: hostData,
      }),
    );
  }

  #sev(id: number, struct: Uint8Array | null): void {
    const refusal = this.#calls.sev(this.#vmFd, this.#sevFd, id, struct);
    if (refusal !== null) {
      throw new Refused(refusal);
    }
  }

  #vmIoctl(nr: number, struct: Uint8Array): void {
    this.#ioctl(this.#vmFd, nr, struct);
  }

  #ioctl(fd: number, nr: number, struct: Uint8Array): void {
    this.#check(kvmIoctlName(nr), this.#calls.ioctl(fd, nr, struct));
  }

  #fd(step: string, ret: number): number {
    this.#check(step, ret);
    return ret;
  }

  #check(step: string, ret: number): void {
    if (ret < 0) {
      throw new Refused({ ok: false, step, errno: -ret, fwStatus: null });
    }
  }
}

/** Runs of regions that follow each other in memory and are of one kind become one. */
export function coalesced(regions: readonly LaunchRegion[]): readonly LaunchRegion[] {
  const out: LaunchRegion[] = [];
  for (const region of regions) {
    const last = out.at(-1);
    if (
      last !== undefined &&
      last.type === region.type &&
      last.gpa + BigInt(last.sizeBytes) === region.gpa &&
      last.data === null &&
      region.data === null
    ) {
      out[out.length - 1] = { ...last, sizeBytes: last.sizeBytes + region.sizeBytes };
    } else {
      out.push(region);
    }
  }
  return out;
}
