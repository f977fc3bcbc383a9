// SPDX-License-Identifier: Apache-2.0
/**
 * RMPUPDATE, PSMASH, PVALIDATE and RMPADJUST, and the checks on each memory access.
 *
 * Guest operands arrive after nested translation: the guest frame and the physical frame it maps to.
 * Nothing here allocates: page state changes run through it at millions a second.
 *
 * Source   [APM2] "RMP and VMPL Access Checks"; AMD64 APM volume 3, the four instructions
 */
import type { PvalidateResult } from '../abi/guest-ops.ts';
import { RmpResult } from '../abi/rmp-entry.ts';
import { type Asid, type Gfn, PAGES_PER_2M, type Pfn, type Vmpl } from '../lib/addresses.ts';
import { MAX_ASID } from './memory.ts';
import {
  ENTRY_2M,
  ENTRY_ASSIGNED,
  ENTRY_IMMUTABLE,
  ENTRY_VALIDATED,
  ENTRY_VMSA,
  entryWord0,
  entryWord1,
  MAX_GFN,
  PERMS_VMPL0_ONLY,
  type Rmp,
} from './rmp.ts';
import {
  FAULT_GP,
  FAULT_NOT_VALIDATED,
  FAULT_RMP,
  FAULT_SIZEM,
  FAULT_VMPL,
  type RmpFault,
} from './rmp-fault.ts';

/** Operand of RMPUPDATE. Callers in hot paths keep one and change its fields; it is read before the return. */
export interface RmpUpdate {
  gfn: Gfn;
  assigned: boolean;
  pagesize: 0 | 1;
  immutable: boolean;
  asid: Asid;
}

/** Operands of PVALIDATE. May be kept and changed like RmpUpdate. */
export interface PvalidateOperands {
  asid: Asid;
  vmpl: Vmpl;
  gfn: Gfn;
  pfn: Pfn;
  size: 0 | 1;
  validate: boolean;
}

export interface RmpadjustOperands {
  asid: Asid;
  vmpl: Vmpl;
  gfn: Gfn;
  pfn: Pfn;
  size: 0 | 1;
  /** As the guest gave them: both may be out of range. */
  targetVmpl: number;
  permissions: number;
  vmsa: boolean;
}

export interface GuestAccess {
  asid: Asid;
  vmpl: Vmpl;
  gfn: Gfn;
  pfn: Pfn;
  write: boolean;
  /** C-bit of the guest's mapping. */
  encrypted: boolean;
}

export const PVALIDATE_DONE: PvalidateResult = Object.freeze({ rc: 0, unchanged: false });
/** CF = 1: the page already was as wanted. */
export const PVALIDATE_UNCHANGED: PvalidateResult = Object.freeze({ rc: 0, unchanged: true });
export const PVALIDATE_FAIL_INPUT: PvalidateResult = Object.freeze({ rc: 1, unchanged: false });
export const PVALIDATE_FAIL_SIZEMISMATCH: PvalidateResult = Object.freeze({ rc: 6, unchanged: false });

const LOW_9 = PAGES_PER_2M - 1;

/**
 * Gives a page to a guest or to firmware, or takes it back; validation is lost in any case.
 *
 * Returns  0; 1 FAIL_INPUT; 2 FAIL_PERMISSION: the entry is immutable; 4 FAIL_OVERLAP: a 4 KiB entry inside a
 *          2 MiB one, or the reverse
 * Differs  FAIL_INUSE (3) needs a second processor in the middle of the same operation, which cannot happen here
 */
export function rmpupdate(rmp: Rmp, pfn: number, state: RmpUpdate): 0 | 1 | 2 | 4 {
  const gfn: number = state.gfn;
  const asid: number = state.asid;
  const large = state.pagesize === 1;
  if (!rmp.covers(pfn) || !(gfn >= 0 && gfn <= MAX_GFN) || !(asid >= 0 && asid <= MAX_ASID)) {
    return RmpResult.FAIL_INPUT;
  }
  if (large && ((pfn | gfn) & LOW_9) !== 0) {
    return RmpResult.FAIL_INPUT;
  }
  // A page of nobody has no attributes; a page of firmware has no guest address, or the host could forge a
  // Metadata page.
  if (asid === 0 && (gfn !== 0 || (state.immutable && !state.assigned))) {
    return RmpResult.FAIL_INPUT;
  }
  if (asid !== 0 && !state.assigned) {
    return RmpResult.FAIL_INPUT;
  }
  rmp.seek(pfn);
  const current = rmp.words[rmp.base]!;
  if (large) {
    if (rmp.isSplit(pfn)) {
      return overlapOf(rmp, pfn);
    }
  } else if ((current & (ENTRY_ASSIGNED | ENTRY_2M)) === (ENTRY_ASSIGNED | ENTRY_2M)) {
    return RmpResult.FAIL_OVERLAP;
  }
  if ((current & ENTRY_IMMUTABLE) !== 0) {
    return RmpResult.FAIL_PERMISSION;
  }
  if (!state.assigned) {
    if (large) {
      rmp.put2M(pfn, 0, 0, 0);
    } else if (current !== 0) {
      rmp.put4K(pfn, 0, 0, 0);
    }
    return RmpResult.SUCCESS;
  }
  const flags = ENTRY_ASSIGNED | (large ? ENTRY_2M : 0) | (state.immutable ? ENTRY_IMMUTABLE : 0);
  const word0 = entryWord0(flags, gfn);
  const word1 = entryWord1(gfn, asid, 0);
  if (large) {
    rmp.put2M(pfn, word0, word1, PERMS_VMPL0_ONLY);
  } else {
    rmp.put4K(pfn, word0, word1, PERMS_VMPL0_ONLY);
  }
  return RmpResult.SUCCESS;
}

/** Why a 2 MiB entry cannot be written over a split region: assigned pages overlap, HV-Fixed ones are immutable. */
function overlapOf(rmp: Rmp, pfn: number): 2 | 4 {
  for (let i = 0; i < PAGES_PER_2M; i++) {
    rmp.seek(pfn + i);
    if ((rmp.words[rmp.base]! & ENTRY_ASSIGNED) !== 0) {
      return RmpResult.FAIL_OVERLAP;
    }
  }
  return RmpResult.FAIL_PERMISSION;
}

/**
 * Splits a 2 MiB entry into 512 of 4 KiB that keep owner, validation and permissions.
 *
 * Returns  0; 1 FAIL_INPUT: not the first page of an assigned 2 MiB entry; 2 FAIL_PERMISSION: immutable
 * Differs  FAIL_INUSE (3): see rmpupdate
 */
export function psmash(rmp: Rmp, pfn: number): 0 | 1 | 2 {
  if (!rmp.covers(pfn) || (pfn & LOW_9) !== 0) {
    return RmpResult.FAIL_INPUT;
  }
  rmp.seek(pfn);
  const word0 = rmp.words[rmp.base]!;
  if ((word0 & (ENTRY_ASSIGNED | ENTRY_2M)) !== (ENTRY_ASSIGNED | ENTRY_2M)) {
    return RmpResult.FAIL_INPUT;
  }
  if ((word0 & ENTRY_IMMUTABLE) !== 0) {
    return RmpResult.FAIL_PERMISSION;
  }
  rmp.split(pfn);
  return RmpResult.SUCCESS;
}

/** True when the entry just sought is the guest's page at this guest frame. */
function belongs(rmp: Rmp, pfn: number, gfn: number, asid: number): boolean {
  const word0 = rmp.words[rmp.base]!;
  const word1 = rmp.words[rmp.base + 1]!;
  if ((word0 & ENTRY_ASSIGNED) === 0 || ((word1 >>> 19) & 0x3ff) !== asid) {
    return false;
  }
  const inside = (word0 & ENTRY_2M) === 0 ? 0 : pfn & LOW_9;
  return (word0 >>> 12) + inside === gfn % 0x100000 && (word1 & 0x7ffff) === ((gfn / 0x100000) | 0);
}

/**
 * The guest accepts a page as its own or gives that up.
 *
 * Returns  a shared frozen result, or the fault: FAULT_RMP and FAULT_SIZEM leave to the hypervisor,
 *          FAULT_GP is raised in the guest
 */
export function pvalidate(rmp: Rmp, o: PvalidateOperands): PvalidateResult | RmpFault {
  const pfn: number = o.pfn;
  const gfn: number = o.gfn;
  if (o.vmpl !== 0) {
    return FAULT_GP;
  }
  if (o.size === 1 && (gfn & LOW_9) !== 0) {
    return PVALIDATE_FAIL_INPUT;
  }
  if (!rmp.covers(pfn)) {
    return FAULT_RMP;
  }
  rmp.seek(pfn);
  if (!belongs(rmp, pfn, gfn, o.asid)) {
    return FAULT_RMP;
  }
  const word0 = rmp.words[rmp.base]!;
  if ((word0 & ENTRY_IMMUTABLE) !== 0) {
    return FAULT_RMP;
  }
  const entryIs2M = (word0 & ENTRY_2M) !== 0;
  if (o.size === 1 && !entryIs2M) {
    return PVALIDATE_FAIL_SIZEMISMATCH;
  }
  if (o.size === 0 && entryIs2M) {
    return FAULT_SIZEM;
  }
  const word1 = rmp.words[rmp.base + 1]!;
  if (((word1 & ENTRY_VALIDATED) !== 0) === o.validate) {
    return PVALIDATE_UNCHANGED;
  }
  rmp.words[rmp.base + 1] = word1 ^ ENTRY_VALIDATED;
  return PVALIDATE_DONE;
}

/**
 * A more privileged VMPL sets what a less privileged one may do with a page, or marks it as a VMSA.
 *
 * Returns  0; 1 FAIL_INPUT; 2 FAIL_PERMISSION: the target is not less privileged, or would get more than the
 *          caller has, or a VMPL other than 0 marks a VMSA; 6 FAIL_SIZEMISMATCH; or a fault
 */
export function rmpadjust(rmp: Rmp, o: RmpadjustOperands): 0 | 1 | 2 | 6 | RmpFault {
  const pfn: number = o.pfn;
  const gfn: number = o.gfn;
  if (o.targetVmpl > 3 || o.permissions > 0xf) {
    return RmpResult.FAIL_INPUT;
  }
  if (o.size === 1 && ((gfn & LOW_9) !== 0 || o.vmsa)) {
    return RmpResult.FAIL_INPUT;
  }
  if (o.targetVmpl <= o.vmpl) {
    return RmpResult.FAIL_PERMISSION;
  }
  if (!rmp.covers(pfn)) {
    return FAULT_RMP;
  }
  rmp.seek(pfn);
  const word0 = rmp.words[rmp.base]!;
  if (!belongs(rmp, pfn, gfn, o.asid) || (word0 & ENTRY_IMMUTABLE) !== 0) {
    return FAULT_RMP;
  }
  const word1 = rmp.words[rmp.base + 1]!;
  if ((word1 & ENTRY_VALIDATED) === 0) {
    return FAULT_NOT_VALIDATED;
  }
  const entryIs2M = (word0 & ENTRY_2M) !== 0;
  if (o.size === 1 && !entryIs2M) {
    return RmpResult.FAIL_SIZEMISMATCH;
  }
  if (o.size === 0 && entryIs2M) {
    return FAULT_SIZEM;
  }
  const perms = rmp.words[rmp.base + 2]!;
  const own = (perms >>> (8 * o.vmpl)) & 0xf;
  if ((o.permissions & ~own) !== 0 || (o.vmsa && o.vmpl !== 0)) {
    return RmpResult.FAIL_PERMISSION;
  }
  const shift = 8 * o.targetVmpl;
  rmp.words[rmp.base + 2] = (perms & ~(0xff << shift)) | (o.permissions << shift);
  if (o.vmpl === 0) {
    rmp.words[rmp.base + 1] = o.vmsa ? word1 | ENTRY_VMSA : word1 & ~ENTRY_VMSA;
  }
  return RmpResult.SUCCESS;
}

/** Null when the guest may make the access; the answer for one page. */
export function checkGuestAccess(rmp: Rmp, a: GuestAccess): RmpFault | null {
  const pfn: number = a.pfn;
  if (!rmp.covers(pfn)) {
    return FAULT_RMP;
  }
  rmp.seek(pfn);
  const word0 = rmp.words[rmp.base]!;
  if (!a.encrypted) {
    return a.write && (word0 & ENTRY_ASSIGNED) !== 0 ? FAULT_RMP : null;
  }
  if (!belongs(rmp, pfn, a.gfn, a.asid) || (a.write && (word0 & ENTRY_IMMUTABLE) !== 0)) {
    return FAULT_RMP;
  }
  if ((rmp.words[rmp.base + 1]! & ENTRY_VALIDATED) === 0) {
    return FAULT_NOT_VALIDATED;
  }
  const wanted = a.write ? 2 : 1;
  return ((rmp.words[rmp.base + 2]! >>> (8 * a.vmpl)) & wanted) === 0 ? FAULT_VMPL : null;
}

/** True when VMRUN takes the page as a VMSA of the ASID. */
export function isRunnableVmsa(rmp: Rmp, pfn: number, asid: number): boolean {
  if (!rmp.covers(pfn)) {
    return false;
  }
  rmp.seek(pfn);
  const word0 = rmp.words[rmp.base]!;
  const word1 = rmp.words[rmp.base + 1]!;
  const marked = ENTRY_VMSA | ENTRY_VALIDATED;
  return (
    (word0 & (ENTRY_ASSIGNED | ENTRY_2M)) === ENTRY_ASSIGNED &&
    (word1 & marked) === marked &&
    ((word1 >>> 19) & 0x3ff) === asid
  );
}
