// SPDX-License-Identifier: Apache-2.0
/** The parts of the processor that SEV-SNP is made of: encrypted memory, the RMP and its instructions. */
import type { PvalidateResult } from '../abi/guest-ops.ts';
import type { Asid, Gfn, Pfn, Spa, Vmpl } from '../lib/addresses.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { BugError } from '../lib/errors.ts';
import type { RmpFault } from './rmp-fault.ts';

/** Operand of RMPUPDATE. Callers in hot paths keep one and change its fields; it is read before the return. */
export interface RmpUpdate {
  gfn: Gfn;
  assigned: boolean;
  pagesize: 0 | 1;
  immutable: boolean;
  asid: Asid;
}

/** Operands of PVALIDATE after nested translation. Reusable like RmpUpdate. */
export interface PvalidateOperands {
  asid: Asid;
  vmpl: Vmpl;
  gfn: Gfn;
  pfn: Pfn;
  size: 0 | 1;
  validate: boolean;
}

/** Operands of RMPADJUST after nested translation. */
export interface RmpadjustOperands {
  asid: Asid;
  vmpl: Vmpl;
  gfn: Gfn;
  pfn: Pfn;
  size: 0 | 1;
  /** As the guest gave it: may be above 3. */
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

export interface RmpState {
  readonly assigned: boolean;
  readonly pagesize: 0 | 1;
  readonly immutable: boolean;
  readonly gfn: Gfn;
  readonly asid: Asid;
  readonly vmsa: boolean;
  readonly validated: boolean;
  /** Permission bits of VMPL 0 to 3: 0 read, 1 write, 2 execute user, 3 execute supervisor. */
  readonly perms: readonly [number, number, number, number];
}

export declare class PhysicalMemory {
  /** Memory controller key slot. */
  setKey(asid: Asid, key: Uint8Array | null): void;
  read(at: Spa, length: number, asid: Asid): Uint8Array;
  write(at: Spa, data: Uint8Array, asid: Asid): void;
  /** True when [at, at + length) lies in physical memory. */
  contains(at: bigint, length: number): boolean;
  /** Gives pages back: they read as zero for the host and cost nothing. */
  discard(from: Pfn, count: number): void;
  readonly touchedPages: number;
}

export declare class Rmp {
  lookup(pfn: Pfn): RmpState;
  isAssigned(pfn: Pfn): boolean;
  isValidated(pfn: Pfn): boolean;
  isVmsa(pfn: Pfn): boolean;
  isImmutable(pfn: Pfn): boolean;
  /** 1 when the entry that covers the page is a 2 MiB one. */
  pagesizeOf(pfn: Pfn): 0 | 1;
  asidOf(pfn: Pfn): Asid;
  gfnOf(pfn: Pfn): Gfn;
  readonly memoryBytes: number;
}

export class Hardware {
  declare readonly memory: PhysicalMemory;
  declare readonly rmp: Rmp;

  constructor(_crypto: MachineCrypto) {
    throw new BugError('hw is being written');
  }

  /** Host (hypervisor) read: never refused; private pages read as ciphertext. */
  hostRead(_at: Spa, _length: number): Uint8Array {
    throw new BugError('hw is being written');
  }

  /** Host write: refused at the first page that is assigned; the pages before it are written. */
  hostWrite(_at: Spa, _data: Uint8Array): RmpFault | null {
    throw new BugError('hw is being written');
  }

  /** 0 done, 1 FAIL_INPUT, 2 FAIL_PERMISSION (immutable), 4 FAIL_OVERLAP. */
  rmpupdate(_pfn: Pfn, _state: RmpUpdate): 0 | 1 | 2 | 4 {
    throw new BugError('hw is being written');
  }

  /** 0 done, 1 FAIL_INPUT (not an assigned 2 MiB entry), 2 FAIL_PERMISSION (immutable). */
  psmash(_pfn: Pfn): 0 | 1 | 2 {
    throw new BugError('hw is being written');
  }

  /** A result (frozen, shared) or the fault that leaves the guest or is raised in it. */
  pvalidate(_operands: PvalidateOperands): PvalidateResult | RmpFault {
    throw new BugError('hw is being written');
  }

  /** 0 done, 1 FAIL_INPUT, 2 FAIL_PERMISSION, 6 FAIL_SIZEMISMATCH; or a fault. */
  rmpadjust(_operands: RmpadjustOperands): 0 | 1 | 2 | 6 | RmpFault {
    throw new BugError('hw is being written');
  }

  /** Null when the guest may make the access. */
  checkGuestAccess(_access: GuestAccess): RmpFault | null {
    throw new BugError('hw is being written');
  }

  /** True when VMRUN accepts the page as a VMSA of the ASID. */
  isRunnableVmsa(_pfn: Pfn, _asid: Asid): boolean {
    throw new BugError('hw is being written');
  }

  /** WBINVD on every core: what DF_FLUSH asks for first. */
  wbinvd(): void {
    throw new BugError('hw is being written');
  }
}
