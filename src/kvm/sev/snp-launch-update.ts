// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_SEV_SNP_LAUNCH_UPDATE: puts pages of the VMM into the guest, one firmware command for each.
 *
 * Source   [KVM] "SNP_LAUNCH_UPDATE"; [LINUX] svm/sev.c snp_launch_update, guest_memfd.c kvm_gmem_populate
 */
import { Errno } from '../../abi/errno.ts';
import { KvmMemFlag } from '../../abi/kvm.ts';
import { KvmSevSnpLaunchUpdate, KvmSevSnpPageType } from '../../abi/kvm-sev.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { SevCmd, SevDataSnpLaunchUpdate } from '../../abi/snp-commands.ts';
import { gfn, PAGE_SIZE, type Pfn, spaOf } from '../../lib/addresses.ts';
import type { GuestMemfd } from '../guest-memfd.ts';
import type { MemorySlot } from '../guest-memory.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';
import { issueWithFd, type SevOp } from './sev-op.ts';

const PAGE_TYPES: readonly number[] = Object.values(KvmSevSnpPageType);
const PAGE = BigInt(PAGE_SIZE);

/** One page on its way into the guest. */
interface PageUpdate {
  readonly guestFrame: number;
  /** Where its contents are; null for a zero page. */
  readonly source: bigint | null;
  readonly type: number;
}

/** Why a page could not be launched; `status` is the firmware's, 0 when it was not its doing. */
interface Refusal {
  readonly status: number;
}

const REFUSED_BY_KVM: Refusal = { status: SevRet.SEV_RET_SUCCESS };

export function snpLaunchUpdate(vm: Vm, process: HostProcess, op: SevOp): number {
  const { sev, memory, services } = vm;
  if (!sev.snp || sev.context === null) {
    return -Errno.EINVAL;
  }
  const parameters = process.memory.read(op.data, KvmSevSnpLaunchUpdate.size);
  if (parameters === null) {
    return -Errno.EFAULT;
  }
  const request = KvmSevSnpLaunchUpdate.decodeLoose(parameters);
  const { gfn_start, uaddr, len, type } = request;
  if (len % PAGE !== 0n || request.flags !== 0 || !PAGE_TYPES.includes(type)) {
    return -Errno.EINVAL;
  }
  if (len === 0n && !services.generation.emptyLaunchUpdateAllowed) {
    return -Errno.EINVAL;
  }
  const slot = gfn_start < 2n ** 52n ? memory.slotAt(Number(gfn_start)) : undefined;
  if (slot === undefined || (slot.flags & KvmMemFlag.KVM_MEM_GUEST_MEMFD) === 0) {
    return -Errno.EINVAL;
  }
  const isZero = type === KvmSevSnpPageType.KVM_SEV_SNP_PAGE_TYPE_ZERO;
  const room = slot.npages - (Number(gfn_start) - slot.baseGfn);
  const count = len / PAGE > BigInt(room) ? room : Number(len / PAGE);
  let done = 0;
  while (done < count) {
    const refusal = populatePage(vm, process, op, slot, {
      guestFrame: Number(gfn_start) + done,
      source: isZero ? null : uaddr + BigInt(done) * PAGE,
      type,
    });
    if (refusal !== null) {
      if (done === 0) {
        op.error = refusal.status;
        return -Errno.EIO;
      }
      break;
    }
    done += 1;
  }
  const progress = BigInt(done) * PAGE;
  KvmSevSnpLaunchUpdate.set(parameters, 'gfn_start', gfn_start + BigInt(done));
  KvmSevSnpLaunchUpdate.set(parameters, 'len', len - progress);
  if (!isZero) {
    KvmSevSnpLaunchUpdate.set(parameters, 'uaddr', BigInt.asUintN(64, uaddr + progress));
  }
  return process.memory.write(op.data, parameters) ? 0 : -Errno.EFAULT;
}

/** Null when the page is in the guest. */
function populatePage(
  vm: Vm,
  process: HostProcess,
  op: SevOp,
  slot: MemorySlot,
  update: PageUpdate,
): Refusal | null {
  const { frames } = vm.services;
  const { gmem } = slot;
  const { guestFrame, source } = update;
  if (gmem === null) {
    return REFUSED_BY_KVM;
  }
  const page = slot.gmemPage + guestFrame - slot.baseGfn;
  const frame = gmem.frameAt(page);
  if (gmem.isPrepared(page) || !vm.memory.isPrivate(guestFrame) || frames.hw.rmp.isAssigned(frame)) {
    return REFUSED_BY_KVM;
  }
  if (source !== null) {
    const data = source === 0n ? null : process.memory.read(source, PAGE_SIZE);
    if (data === null) {
      return REFUSED_BY_KVM;
    }
    gmem.markStale(page);
    frames.write(frame, 0, data);
  }
  if (!frames.makePrivate(frame, gfn(guestFrame), 0, vm.sev.asid, true)) {
    return REFUSED_BY_KVM;
  }
  const command = SevDataSnpLaunchUpdate.encode({
    gctx_paddr: spaOf(vm.sev.context!),
    flags: { page_size: 0, page_type: update.type, imi_page: 0 },
    page_paddr: spaOf(frame),
  });
  const result = issueWithFd(vm, process, op.sevFd, SevCmd.SEV_CMD_SNP_LAUNCH_UPDATE, command);
  if (result.errno === 0) {
    gmem.markPrepared(page);
    return null;
  }
  takeBack(vm, process, gmem, page, frame, update, result.status ?? SevRet.SEV_RET_SUCCESS);
  return { status: result.status ?? SevRet.SEV_RET_SUCCESS };
}

/** A page the firmware refused becomes the host's again; a CPUID table it corrected goes back to the VMM. */
function takeBack(
  vm: Vm,
  process: HostProcess,
  gmem: GuestMemfd,
  page: number,
  frame: Pfn,
  { source, type }: PageUpdate,
  status: number,
): void {
  const { ccp, frames } = vm.services;
  if (!ccp.reclaim(frame)) {
    frames.leak(frame);
    gmem.markPrepared(page);
    vm.dead = true;
    return;
  }
  const corrected =
    type === KvmSevSnpPageType.KVM_SEV_SNP_PAGE_TYPE_CPUID && status === SevRet.SEV_RET_INVALID_PARAM;
  if (corrected && source !== null) {
    process.memory.write(source, frames.read(frame, 0, PAGE_SIZE));
  }
}
