// SPDX-License-Identifier: Apache-2.0
/**
 * Address space identifiers of guests: low ones for SEV-ES and SNP, the rest for plain SEV. A released one
 * can be used again only after the data fabric was flushed.
 *
 * Source   [KVM] "ASIDs"; [LINUX] svm/sev.c sev_asid_new, sev_asid_free
 */
import { Errno } from '../abi/errno.ts';
import { type Asid, asid } from '../lib/addresses.ts';
import type { Ccp } from './ccp.ts';

/** CPUID Fn8000_001F as far as the kernel looks at it. */
export interface HostCpu {
  /** EBX 5:0. */
  readonly cBit: number;
  /** EBX 11:6. */
  readonly physAddrReduction: number;
  /** ECX. */
  readonly maxAsid: number;
  /** EDX: lowest ASID of a guest without encrypted state. */
  readonly minSevAsid: number;
}

/** An EPYC whose set-up gives 99 ASIDs to SEV-ES and SNP guests. */
export const DEFAULT_CPU: HostCpu = { cBit: 51, physAddrReduction: 5, maxAsid: 509, minSevAsid: 100 };

export class AsidPools {
  readonly cpu: HostCpu;
  readonly #ccp: Ccp;
  readonly #used = new Set<number>();
  /** Released, not flushed yet: still in #used. */
  readonly #toReclaim = new Set<number>();

  constructor(cpu: HostCpu, ccp: Ccp) {
    this.cpu = cpu;
    this.#ccp = ccp;
  }

  /** SEV-ES and SNP VMs can be had at all. */
  get hasEncryptedState(): boolean {
    return this.cpu.minSevAsid > 1;
  }

  get hasSev(): boolean {
    return this.cpu.maxAsid >= this.cpu.minSevAsid;
  }

  /** An ASID, or -ENOTTY when its range is empty, -EBUSY when it is used up. */
  alloc(encryptedState: boolean): { readonly asid: Asid } | { readonly errno: number } {
    const min = encryptedState ? 1 : this.cpu.minSevAsid;
    const max = encryptedState ? this.cpu.minSevAsid - 1 : this.cpu.maxAsid;
    if (min > max) {
      return { errno: -Errno.ENOTTY };
    }
    let found = this.#firstFree(min, max);
    if (found === null && this.#recycle(min, max)) {
      found = this.#firstFree(min, max);
    }
    if (found === null) {
      return { errno: -Errno.EBUSY };
    }
    this.#used.add(found);
    return { asid: asid(found) };
  }

  /** Gives an ASID back; it waits for the next flush. */
  release(released: Asid): void {
    this.#toReclaim.add(released);
  }

  #firstFree(min: number, max: number): number | null {
    for (let candidate = min; candidate <= max; candidate++) {
      if (!this.#used.has(candidate)) {
        return candidate;
      }
    }
    return null;
  }

  #recycle(min: number, max: number): boolean {
    const waiting = [...this.#toReclaim].some((released) => released >= min && released <= max);
    if (!waiting || this.#ccp.dfFlush().errno !== 0) {
      return false;
    }
    for (const released of this.#toReclaim) {
      this.#used.delete(released);
    }
    this.#toReclaim.clear();
    return true;
  }
}
