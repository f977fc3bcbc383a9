// SPDX-License-Identifier: Apache-2.0
/**
 * Nested translation: what happens between a guest's address and the memory behind it.
 *
 * There are no tables: each access asks slot, attribute and file anew, which is what a table that is zapped
 * at every change comes to.
 *
 * Source   [KVM] "Access and fault resolution", "guest_memfd page life", "RMP fault (#NPF with bit 31)"
 * Differs  a file's 2 MiB go to the guest as one RMP entry when all of it is private and untouched, as in
 *          kernels with huge guest_memfd pages; upstream has 4 KiB ones only (docs/limitations.md#huge-pages)
 */
import { Errno } from '../abi/errno.ts';
import {
  GuestException,
  type GuestOp,
  SVM_EXIT_NOT_VALIDATED,
  SVM_EXIT_NPF,
  VECTOR_GP,
  VECTOR_PF,
  VECTOR_VC,
} from '../abi/guest-ops.ts';
import { KVM_MEMORY_EXIT_FLAG_PRIVATE, KvmExit, KvmMemFlag } from '../abi/kvm.ts';
import { KvmRun, KvmRunMemoryFault } from '../abi/kvm-run.ts';
import type { Hardware } from '../hw/hardware.ts';
import type { GuestAccess, PvalidateOperands, RmpadjustOperands } from '../hw/instructions.ts';
import type { RmpFault } from '../hw/rmp-fault.ts';
import { type Asid, type Gfn, gpaOf, PAGE_SIZE, PAGES_PER_2M, type Pfn, pfn } from '../lib/addresses.ts';
import { RESUME } from './ghcb/mapping.ts';
import type { GuestMemfd } from './guest-memfd.ts';
import type { GuestMemory, MemorySlot } from './guest-memory.ts';
import { GUEST_PHYS_BITS } from './limits.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

/** The guest faults on the same access again and again. */
export const STUCK = 2;

const NO_FRAME = -1;
const GPA_LIMIT = 1n << BigInt(GUEST_PHYS_BITS);
/** Longest access an engine may make in one operation. */
const MAX_ACCESS = 2 ** 24;
/** #PF error code: present, a reserved bit is set in the mapping. */
const PF_PRESENT_RESERVED = 0x9;

const HOST_ASID = 0 as Asid;
const NOWHERE = { asid: HOST_ASID, vmpl: 0, gfn: 0 as Gfn, pfn: 0 as Pfn } as const;

type ReadWrite = Extract<GuestOp, { op: 'read' | 'write' }>;
type Pvalidate = Extract<GuestOp, { op: 'pvalidate' }>;
type Rmpadjust = Extract<GuestOp, { op: 'rmpadjust' }>;

export class NestedPaging {
  readonly #vm: Vm;
  readonly #memory: GuestMemory;
  readonly #hw: Hardware;
  /** How the access that got no frame, or was refused, ends. */
  #outcome = RESUME;
  // Operands are kept so that page state changes allocate nothing.
  readonly #access: GuestAccess = { ...NOWHERE, write: false, encrypted: true };
  readonly #pvalidate: PvalidateOperands = { ...NOWHERE, size: 0, validate: true };
  readonly #rmpadjust: RmpadjustOperands = {
    ...NOWHERE,
    size: 0,
    targetVmpl: 0,
    permissions: 0,
    vmsa: false,
  };

  constructor(vm: Vm) {
    this.#vm = vm;
    this.#memory = vm.memory;
    this.#hw = vm.services.hw;
  }

  /** Reads or writes guest memory, page by page. An access that faults midway is made again as a whole. */
  readOrWrite(vcpu: Vcpu, op: ReadWrite): number {
    const length = op.op === 'read' ? op.length : op.data.length;
    const inLimits = Number.isInteger(length) && length >= 0 && length <= MAX_ACCESS;
    if (!inLimits || op.gpa < 0n || op.gpa > GPA_LIMIT || Number(op.gpa) + length > Number(GPA_LIMIT)) {
      return raise(vcpu, VECTOR_PF, PF_PRESENT_RESERVED);
    }
    const into = op.op === 'read' ? destination(op) : null;
    const asid = op.encrypted ? this.#vm.sev.asid : HOST_ASID;
    const address = Number(op.gpa);
    let guestFrame = Math.floor(address / PAGE_SIZE);
    let offset = address % PAGE_SIZE;
    let done = 0;
    while (done < length) {
      const take = Math.min(length - done, PAGE_SIZE - offset);
      const frame = this.#frameFor(vcpu, guestFrame, op.encrypted);
      if (frame === NO_FRAME || !this.#admits(vcpu, guestFrame, frame, op.encrypted, into === null)) {
        return this.#outcome;
      }
      if (op.op === 'write') {
        this.#hw.memory.writePage(pfn(frame), offset, op.data, done, take, asid);
      } else {
        this.#hw.memory.readPage(into!, done, pfn(frame), offset, take, asid);
      }
      done += take;
      guestFrame += 1;
      offset = 0;
    }
    vcpu.answer = into ?? undefined;
    return RESUME;
  }

  /** PVALIDATE: the hottest operation of a guest that accepts its memory. */
  pvalidate(vcpu: Vcpu, op: Pvalidate): number {
    const vmpl = vcpu.current!.vmpl;
    if (vmpl !== 0) {
      return raise(vcpu, VECTOR_GP, 0);
    }
    if (op.gpa < 0n || op.gpa >= GPA_LIMIT) {
      return raise(vcpu, VECTOR_PF, PF_PRESENT_RESERVED);
    }
    const guestFrame = Number(op.gpa >> 12n);
    const frame = this.#frameFor(vcpu, guestFrame, true);
    if (frame === NO_FRAME) {
      return this.#outcome;
    }
    const operands = this.#pvalidate;
    operands.asid = this.#vm.sev.asid;
    operands.gfn = guestFrame as Gfn;
    operands.pfn = frame as Pfn;
    operands.size = op.size;
    operands.validate = op.validate;
    let result = this.#hw.pvalidate(operands);
    if ('reason' in result && this.#splits(result, frame)) {
      result = this.#hw.pvalidate(operands);
    }
    if ('reason' in result) {
      return refuse(vcpu, result);
    }
    vcpu.answer = result;
    return RESUME;
  }

  rmpadjust(vcpu: Vcpu, op: Rmpadjust): number {
    if (op.gpa < 0n || op.gpa >= GPA_LIMIT) {
      return raise(vcpu, VECTOR_PF, PF_PRESENT_RESERVED);
    }
    const guestFrame = Number(op.gpa >> 12n);
    const frame = this.#frameFor(vcpu, guestFrame, true);
    if (frame === NO_FRAME) {
      return this.#outcome;
    }
    const operands = this.#rmpadjust;
    operands.asid = this.#vm.sev.asid;
    operands.vmpl = vcpu.current!.vmpl;
    operands.gfn = guestFrame as Gfn;
    operands.pfn = frame as Pfn;
    operands.size = op.size;
    operands.targetVmpl = op.vmpl;
    operands.permissions = op.permissions;
    operands.vmsa = op.vmsa;
    let result = this.#hw.rmpadjust(operands);
    if (typeof result !== 'number' && this.#splits(result, frame)) {
      result = this.#hw.rmpadjust(operands);
    }
    if (typeof result !== 'number') {
      return refuse(vcpu, result);
    }
    vcpu.answer = result;
    return RESUME;
  }

  /** KVM_PRE_FAULT_MEMORY of one page: 0, or the errno the fault would have ended in. */
  preFault(guestFrame: number): number {
    if (this.#memory.slotAt(guestFrame) === undefined) {
      return -Errno.ENOENT;
    }
    if (!this.#memory.isPrivate(guestFrame)) {
      return this.#memory.sharedFrame(guestFrame) === NO_FRAME ? -Errno.EFAULT : 0;
    }
    return Math.min(this.#privateFrame(null, guestFrame), 0);
  }

  /** Frame of a page in the state the guest's mapping asks for; NO_FRAME with the outcome set. */
  #frameFor(vcpu: Vcpu, guestFrame: number, encrypted: boolean): number {
    if (encrypted) {
      const frame = this.#privateFrame(vcpu, guestFrame);
      if (frame < 0) {
        this.#outcome = frame;
        return NO_FRAME;
      }
      return frame;
    }
    if (this.#memory.isPrivate(guestFrame)) {
      this.#outcome = memoryFault(vcpu, guestFrame, 0n, Errno.EFAULT);
      return NO_FRAME;
    }
    const frame = this.#memory.sharedFrame(guestFrame);
    if (frame === NO_FRAME) {
      // No slot: emulated MMIO, which the guest does itself from its #VC handler.
      this.#outcome =
        this.#memory.slotAt(guestFrame) === undefined ? raise(vcpu, VECTOR_VC, SVM_EXIT_NPF) : -Errno.EFAULT;
    }
    return frame;
  }

  /** Frame of a private page, given to the guest on the way if it was not; or a negative errno. */
  #privateFrame(vcpu: Vcpu | null, guestFrame: number): number {
    const slot = this.#memory.isPrivate(guestFrame) ? this.#memory.slotAt(guestFrame) : undefined;
    if (slot === undefined || (slot.flags & KvmMemFlag.KVM_MEM_GUEST_MEMFD) === 0) {
      return memoryFault(vcpu, guestFrame, KVM_MEMORY_EXIT_FLAG_PRIVATE, Errno.EFAULT);
    }
    const { gmem } = slot;
    if (gmem === null) {
      return memoryFault(vcpu, guestFrame, KVM_MEMORY_EXIT_FLAG_PRIVATE, Errno.EFAULT);
    }
    const page = slot.gmemPage + guestFrame - slot.baseGfn;
    const frame = gmem.firstFrame + page;
    if (!gmem.isPrepared(page)) {
      const wholeChunk = this.#memory.canMap2M(guestFrame, slot, gmem);
      const errno = gmem.prepare(page, guestFrame, this.#vm.sev.asid, wholeChunk);
      if (errno !== 0) {
        return memoryFault(vcpu, guestFrame, KVM_MEMORY_EXIT_FLAG_PRIVATE, -errno);
      }
    } else {
      this.#splitUnlessMapped2M(guestFrame, frame, slot, gmem);
    }
    return frame;
  }

  /** A nested mapping of 4 KiB under an RMP entry of 2 MiB faults; KVM splits the entry. */
  #splitUnlessMapped2M(guestFrame: number, frame: number, slot: MemorySlot, gmem: GuestMemfd): void {
    if (this.#hw.rmp.pagesizeOf(pfn(frame)) === 1 && !this.#memory.canMap2M(guestFrame, slot, gmem)) {
      this.#psmash(frame);
    }
  }

  /** True when the RMP lets the guest have the page; false with the outcome set. */
  #admits(vcpu: Vcpu, guestFrame: number, frame: number, encrypted: boolean, write: boolean): boolean {
    const access = this.#access;
    access.asid = this.#vm.sev.asid;
    access.vmpl = vcpu.current!.vmpl;
    access.gfn = guestFrame as Gfn;
    access.pfn = frame as Pfn;
    access.encrypted = encrypted;
    access.write = write;
    let fault = this.#hw.checkGuestAccess(access);
    if (fault !== null && this.#splits(fault, frame)) {
      fault = this.#hw.checkGuestAccess(access);
    }
    if (fault !== null) {
      this.#outcome = refuse(vcpu, fault);
    }
    return fault === null;
  }

  /** sev_handle_rmp_fault: splits a 2 MiB entry, which may be all that is wrong. */
  #splits(fault: RmpFault, frame: number): boolean {
    const leavesToKvm = fault.reason === 'rmp' || fault.reason === 'sizem';
    return leavesToKvm && this.#hw.rmp.pagesizeOf(pfn(frame)) === 1 && this.#psmash(frame);
  }

  #psmash(frame: number): boolean {
    return this.#hw.psmash(pfn(frame - (frame % PAGES_PER_2M))) === 0;
  }
}

/** Where a read goes: memory the engine keeps for it, if that has the right size. */
function destination({ into, length }: Extract<GuestOp, { op: 'read' }>): Uint8Array {
  return into !== undefined && into.length === length ? into : new Uint8Array(length);
}

/** Fills KVM_EXIT_MEMORY_FAULT. Userspace may rely on it only for EFAULT and EHWPOISON. */
function memoryFault(vcpu: Vcpu | null, guestFrame: number, flags: bigint, errno: number): number {
  if (vcpu !== null) {
    const { run } = vcpu;
    KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_MEMORY_FAULT);
    KvmRunMemoryFault.set(run, 'flags', flags);
    KvmRunMemoryFault.set(run, 'gpa', gpaOf(guestFrame as Gfn));
    KvmRunMemoryFault.set(run, 'size', BigInt(PAGE_SIZE));
  }
  return -errno;
}

/** An exception for the guest instead of an answer. */
function raise(vcpu: Vcpu, vector: number, errorCode: number): number {
  vcpu.exception = new GuestException(vector, errorCode);
  return RESUME;
}

/** What a fault nobody resolves comes to. */
function refuse(vcpu: Vcpu, { reason }: RmpFault): number {
  switch (reason) {
    case 'not-validated':
      return raise(vcpu, VECTOR_VC, SVM_EXIT_NOT_VALIDATED);
    case 'gp':
      return raise(vcpu, VECTOR_GP, 0);
    default:
      return STUCK;
  }
}
