// SPDX-License-Identifier: Apache-2.0
/** A virtual machine: what its file descriptor reaches. */
import { Errno } from '../abi/errno.ts';
import { KVM_EXIT_HYPERCALL_VALID_MASK, KvmCap, KvmIoctl, KvmMsrExitReason, KvmVmType } from '../abi/kvm.ts';
import {
  KvmCreateGuestMemfd,
  KvmEnableCap,
  KvmMemoryAttributes,
  KvmMsi,
  KvmUserspaceMemoryRegion,
  KvmUserspaceMemoryRegion2,
} from '../abi/kvm-structs.ts';
import { PAGE_SIZE, PAGES_PER_2M } from '../lib/addresses.ts';
import { checkExtension } from './capabilities.ts';
import type { VmName } from './contract.ts';
import { copyIn } from './copy-user.ts';
import type { KernelFile } from './files.ts';
import { GuestMemfd } from './guest-memfd.ts';
import { GuestMemory } from './guest-memory.ts';
import type { HostProcess } from './host-process.ts';
import { signalMsi } from './lapic.ts';
import { MAX_VCPU_IDS, MAX_VCPUS } from './limits.ts';
import { NestedPaging } from './nested-paging.ts';
import type { KernelServices } from './services.ts';
import { encRegion } from './sev/enc-region.ts';
import { memoryEncryptOp } from './sev/memory-encrypt-op.ts';
import { destroySev, newSevState, type SevState } from './sev/state.ts';
import { Vcpu } from './vcpu.ts';

/** MAX_NR_RESERVED_IOAPIC_PINS. */
const MAX_IOAPIC_PINS = 24n;

const MSR_EXIT_VALID_MASK = BigInt(
  KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL |
    KvmMsrExitReason.KVM_MSR_EXIT_REASON_UNKNOWN |
    KvmMsrExitReason.KVM_MSR_EXIT_REASON_FILTER,
);

export class Vm implements KernelFile {
  readonly services: KernelServices;
  readonly name: VmName;
  readonly type: number;
  /** The process whose memory the VM uses; no other may use the VM. */
  readonly owner: HostProcess;
  readonly memory: GuestMemory;
  readonly paging: NestedPaging;
  readonly sev: SevState;
  /** In order of creation. */
  readonly vcpus: Vcpu[] = [];
  readonly #vcpusById = new Map<number, Vcpu>();
  /** KVM_CAP_EXIT_HYPERCALL. */
  hypercallExits = 0n;
  /** KVM_CAP_X86_USER_SPACE_MSR. */
  userSpaceMsrs = 0;
  irqchip = false;
  bootCpuId = 0;
  /** KVM_PRE_FAULT_MEMORY would disturb the launch before it is finished. */
  preFaultAllowed: boolean;
  /** KVM gave the VM up: everything answers -EIO. */
  dead = false;
  #references = 1;

  constructor(services: KernelServices, owner: HostProcess, type: number) {
    this.services = services;
    this.owner = owner;
    this.type = type;
    this.name = { id: services.nextVmId(), name: owner.name };
    this.memory = new GuestMemory(this, owner.memory, services.frames);
    this.paging = new NestedPaging(this);
    this.sev = newSevState(type);
    this.preFaultAllowed = type !== KvmVmType.KVM_X86_SNP_VM;
  }

  vcpuById(id: number): Vcpu | undefined {
    return this.#vcpusById.get(id);
  }

  retain(): void {
    this.#references += 1;
  }

  /** The VM lives as long as a descriptor of it, of a vCPU or of a guest_memfd does. */
  release(): void {
    this.#references -= 1;
    if (this.#references === 0) {
      this.memory.clear();
      destroySev(this);
    }
  }

  ioctl(process: HostProcess, nr: number, arg: bigint): number {
    if (process !== this.owner || this.dead) {
      return -Errno.EIO;
    }
    switch (nr) {
      case KvmIoctl.KVM_CHECK_EXTENSION:
        return checkExtension(this.services, arg, this);
      case KvmIoctl.KVM_CREATE_VCPU:
        return this.#createVcpu(process, arg);
      case KvmIoctl.KVM_ENABLE_CAP:
        return this.#enableCap(process, arg);
      case KvmIoctl.KVM_CREATE_IRQCHIP:
        return this.#createIrqchip();
      case KvmIoctl.KVM_SET_BOOT_CPU_ID:
        return this.#setBootCpuId(arg);
      case KvmIoctl.KVM_SET_TSS_ADDR:
        // Needed by Intel's real-mode emulation only; VMMs set it unasked.
        return arg > 0xffff_d000n ? -Errno.EINVAL : 0;
      case KvmIoctl.KVM_SIGNAL_MSI: {
        const msi = copyIn(process, KvmMsi, arg);
        return msi === null ? -Errno.EFAULT : signalMsi(this, msi);
      }
      case KvmIoctl.KVM_SET_USER_MEMORY_REGION: {
        const region = copyIn(process, KvmUserspaceMemoryRegion, arg);
        return region === null
          ? -Errno.EFAULT
          : this.memory.setRegion(process, { ...region, guest_memfd: 0, guest_memfd_offset: 0n });
      }
      case KvmIoctl.KVM_SET_USER_MEMORY_REGION2: {
        const region = copyIn(process, KvmUserspaceMemoryRegion2, arg);
        return region === null ? -Errno.EFAULT : this.memory.setRegion(process, region);
      }
      case KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES: {
        const attributes = copyIn(process, KvmMemoryAttributes, arg);
        return attributes === null ? -Errno.EFAULT : this.memory.setAttributes(attributes);
      }
      case KvmIoctl.KVM_CREATE_GUEST_MEMFD:
        return this.#createGuestMemfd(process, arg);
      case KvmIoctl.KVM_MEMORY_ENCRYPT_OP:
        return memoryEncryptOp(this, process, arg);
      case KvmIoctl.KVM_MEMORY_ENCRYPT_REG_REGION:
      case KvmIoctl.KVM_MEMORY_ENCRYPT_UNREG_REGION:
        return encRegion(this, process, nr, arg);
      default:
        return -Errno.ENOTTY;
    }
  }

  /** Userspace wants to see this hypercall. */
  exitsOnHypercall(nr: number): boolean {
    return ((this.hypercallExits >> BigInt(nr)) & 1n) === 1n;
  }

  #createVcpu(process: HostProcess, arg: bigint): number {
    if (arg >= BigInt(MAX_VCPU_IDS) || this.vcpus.length >= MAX_VCPUS) {
      return -Errno.EINVAL;
    }
    const id = Number(arg);
    const vmsa = this.sev.es ? this.services.frames.allocForVmsa() : null;
    if (this.sev.es && vmsa === null) {
      return -Errno.ENOMEM;
    }
    if (this.#vcpusById.has(id)) {
      if (vmsa !== null) {
        this.services.frames.free(vmsa, 1);
      }
      return -Errno.EEXIST;
    }
    const vcpu = new Vcpu(this, id, vmsa);
    this.vcpus.push(vcpu);
    this.#vcpusById.set(id, vcpu);
    this.retain();
    return process.files.install(vcpu);
  }

  #enableCap(process: HostProcess, arg: bigint): number {
    const request = copyIn(process, KvmEnableCap, arg);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const first = request.args[0]!;
    if (request.flags !== 0) {
      return -Errno.EINVAL;
    }
    switch (request.cap) {
      case KvmCap.KVM_CAP_EXIT_HYPERCALL:
        if ((first & ~KVM_EXIT_HYPERCALL_VALID_MASK) !== 0n) {
          return -Errno.EINVAL;
        }
        this.hypercallExits = first;
        return 0;
      case KvmCap.KVM_CAP_X86_USER_SPACE_MSR:
        if ((first & ~MSR_EXIT_VALID_MASK) !== 0n) {
          return -Errno.EINVAL;
        }
        this.userSpaceMsrs = Number(first);
        return 0;
      case KvmCap.KVM_CAP_SPLIT_IRQCHIP:
        return first > MAX_IOAPIC_PINS ? -Errno.EINVAL : this.#createIrqchip();
      case KvmCap.KVM_CAP_VM_COPY_ENC_CONTEXT_FROM:
      case KvmCap.KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM:
        return this.#takeEncryptionContext(process, first);
      default:
        return -Errno.EINVAL;
    }
  }

  /**
   * Differs  no source qualifies: the context of an SNP guest neither moves nor is mirrored, and the firmware
   *          has no other guests (docs/limitations.md#legacy-sev)
   */
  #takeEncryptionContext(process: HostProcess, fd: bigint): number {
    const source = fd < 2n ** 31n ? process.files.get(Number(fd)) : null;
    return source instanceof Vm ? -Errno.EINVAL : -Errno.EBADF;
  }

  #createIrqchip(): number {
    if (this.irqchip) {
      return -Errno.EEXIST;
    }
    if (this.vcpus.length !== 0) {
      return -Errno.EINVAL;
    }
    this.irqchip = true;
    return 0;
  }

  #setBootCpuId(arg: bigint): number {
    if (this.vcpus.length !== 0) {
      return -Errno.EBUSY;
    }
    this.bootCpuId = Number(arg & 0xffff_ffffn);
    return 0;
  }

  #createGuestMemfd(process: HostProcess, arg: bigint): number {
    const request = copyIn(process, KvmCreateGuestMemfd, arg);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const size = BigInt.asIntN(64, request.size);
    if (request.flags !== 0n || size <= 0n || size % BigInt(PAGE_SIZE) !== 0n) {
      return -Errno.EINVAL;
    }
    const pages = Number(size / BigInt(PAGE_SIZE));
    const first = this.services.frames.alloc(pages, PAGES_PER_2M);
    return first === null
      ? -Errno.ENOMEM
      : process.files.install(new GuestMemfd(this, this.services.frames, first, pages));
  }
}
