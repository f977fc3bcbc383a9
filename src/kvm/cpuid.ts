// SPDX-License-Identifier: Apache-2.0
/** CPUID as a VMM set it for a vCPU. [LINUX] arch/x86/kvm/cpuid.c */
import type { KvmCpuidEntry2 } from '../abi/kvm-structs.ts';

/** KVM_MAX_CPUID_ENTRIES. */
export const MAX_CPUID_ENTRIES = 256;

const FLAG_SIGNIFICANT_INDEX = 1;
const LEAF_TOPOLOGY = 0xb;
const LEAF_TOPOLOGY_V2 = 0x1f;
const LEAF_XSTATE = 0xd;
const LEAF_MAX_EXTENDED = 0x8000_0000;
const LEAF_ADDRESS_SIZES = 0x8000_0008;
/** Physical address bits of a processor that does not say. */
const DEFAULT_PHYS_BITS = 36;
/** XSAVE area of x87 and SSE: the FXSAVE image and the header. */
const XSAVE_BASE_SIZE = 576;

export interface CpuidResult {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

export class CpuidTable {
  #entries: readonly KvmCpuidEntry2[] = [];

  get entries(): readonly KvmCpuidEntry2[] {
    return this.#entries;
  }

  set(entries: readonly KvmCpuidEntry2[]): void {
    this.#entries = entries;
  }

  /** What the instruction gives; functions the VMM did not set are zero, as on AMD's processors. */
  execute(eax: number, ecx: number, xcr0: bigint): CpuidResult {
    const entry = this.#find(eax, ecx);
    if (entry === undefined) {
      const topology = eax === LEAF_TOPOLOGY || eax === LEAF_TOPOLOGY_V2 ? this.#find(eax, 1) : undefined;
      return topology === undefined
        ? { eax: 0, ebx: 0, ecx: 0, edx: 0 }
        : { eax: 0, ebx: 0, ecx: ecx & 0xff, edx: topology.edx };
    }
    const result = { eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx };
    if (eax === LEAF_XSTATE && ecx === 0) {
      result.ebx = this.#xsaveSize(xcr0);
    }
    return result;
  }

  /** Width of the guest's physical addresses. */
  get physBits(): number {
    const max = this.#find(LEAF_MAX_EXTENDED, 0);
    const sizes = this.#find(LEAF_ADDRESS_SIZES, 0);
    return max === undefined || max.eax < LEAF_ADDRESS_SIZES || sizes === undefined
      ? DEFAULT_PHYS_BITS
      : sizes.eax & 0xff;
  }

  #find(eax: number, ecx: number): KvmCpuidEntry2 | undefined {
    return this.#entries.find(
      (entry) =>
        entry.function === eax && ((entry.flags & FLAG_SIGNIFICANT_INDEX) === 0 || entry.index === ecx),
    );
  }

  /** Bytes XSAVE needs for the enabled components, from the sub-leaves that describe them. */
  #xsaveSize(xcr0: bigint): number {
    let size = XSAVE_BASE_SIZE;
    for (let component = 2; component < 63; component++) {
      const leaf = ((xcr0 >> BigInt(component)) & 1n) === 1n ? this.#find(LEAF_XSTATE, component) : undefined;
      if (leaf !== undefined) {
        size = Math.max(size, leaf.ebx + leaf.eax);
      }
    }
    return size;
  }
}
