// SPDX-License-Identifier: Apache-2.0
/** The parts of the processor that SEV-SNP is made of: encrypted memory, the RMP and its instructions. */
import type { PvalidateResult } from '../abi/guest-ops.ts';
import { type Asid, PAGE_SIZE, type Pfn, type Spa } from '../lib/addresses.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import type { GuestAccess, PvalidateOperands, RmpadjustOperands, RmpUpdate } from './instructions.ts';
import * as instructions from './instructions.ts';
import { PhysicalMemory } from './memory.ts';
import { Rmp } from './rmp.ts';
import { FAULT_RMP, type RmpFault } from './rmp-fault.ts';

const HOST = 0 as Asid;

export class Hardware {
  readonly memory: PhysicalMemory;
  readonly rmp = new Rmp();
  #cacheFlushes = 0;

  constructor(crypto: MachineCrypto) {
    this.memory = new PhysicalMemory(crypto);
  }

  /** Host read: never refused; a page kept under a key reads as ciphertext. */
  hostRead(at: Spa, length: number): Uint8Array {
    return this.memory.read(at, length, HOST);
  }

  /** The same into memory of the caller's, where all of it lies in one page. */
  hostReadPage(out: Uint8Array, start: number, pfn: Pfn, offset: number, length: number): void {
    this.memory.readPage(out, start, pfn, offset, length, HOST);
  }

  /** Host write: stops at the first page that is assigned, as a copy loop would; null when all is written. */
  hostWrite(at: Spa, data: Uint8Array): RmpFault | null {
    let pfn = Math.floor(Number(at) / PAGE_SIZE);
    let offset = Number(at) % PAGE_SIZE;
    let done = 0;
    while (done < data.length) {
      const take = Math.min(data.length - done, PAGE_SIZE - offset);
      const fault = this.hostWritePage(pfn as Pfn, offset, data, done, take);
      if (fault !== null) {
        return fault;
      }
      done += take;
      pfn += 1;
      offset = 0;
    }
    return null;
  }

  /** The same for `length` bytes of `data` from `from` on that go into one page. */
  hostWritePage(pfn: Pfn, offset: number, data: Uint8Array, from: number, length: number): RmpFault | null {
    if (this.rmp.isAssigned(pfn)) {
      return FAULT_RMP;
    }
    this.memory.writePage(pfn, offset, data, from, length, HOST);
    return null;
  }

  rmpupdate(pfn: Pfn, state: RmpUpdate): 0 | 1 | 2 | 4 {
    return instructions.rmpupdate(this.rmp, pfn, state);
  }

  psmash(pfn: Pfn): 0 | 1 | 2 {
    return instructions.psmash(this.rmp, pfn);
  }

  pvalidate(operands: PvalidateOperands): PvalidateResult | RmpFault {
    return instructions.pvalidate(this.rmp, operands);
  }

  rmpadjust(operands: RmpadjustOperands): 0 | 1 | 2 | 6 | RmpFault {
    return instructions.rmpadjust(this.rmp, operands);
  }

  checkGuestAccess(access: GuestAccess): RmpFault | null {
    return instructions.checkGuestAccess(this.rmp, access);
  }

  isRunnableVmsa(pfn: Pfn, asid: Asid): boolean {
    return instructions.isRunnableVmsa(this.rmp, pfn, asid);
  }

  /** WBINVD on every core: what firmware wants to have seen before DF_FLUSH. */
  wbinvd(): void {
    this.#cacheFlushes += 1;
  }

  /** How often all caches were written back. */
  get cacheFlushes(): number {
    return this.#cacheFlushes;
  }
}
