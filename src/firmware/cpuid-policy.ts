// SPDX-License-Identifier: Apache-2.0
/**
 * What firmware does not let a hypervisor claim about CPUID.
 *
 * Differs  there is no processor to compare with, so every feature counts as present; checked are the bits no SNP
 *          guest may see and the values that would mislead a guest about its own memory
 *          (docs/limitations.md#cpuid)
 */
import { CPUID_PAGE_ENTRIES_OFFSET, CPUID_PAGE_MAX_ENTRIES, CpuidEntry } from '../abi/cpuid-page.ts';
import { isZero, readU32, writeU32 } from '../lib/bytes.ts';

export type CpuidRegister = 'eax' | 'ebx' | 'ecx' | 'edx';

export interface CpuidRule {
  readonly function: number;
  /** Null: every sub-function. */
  readonly index: number | null;
  readonly register: CpuidRegister;
  /** Bits the rule is about. */
  readonly mask: number;
  /** What those bits must be. */
  readonly value: number;
  readonly reason: string;
}

/** The C-bit is bit 51 of a guest physical address on every product line. */
const C_BIT_POSITION = 51;
/** XSAVE area with x87 and SSE state alone, in bytes. */
const XSAVE_LEGACY_AREA = 0x240;

const never = (fn: number, index: number | null, register: CpuidRegister, bit: number, reason: string) => ({
  function: fn,
  index,
  register,
  mask: 1 << bit,
  value: 0,
  reason,
});

/** The rules in the order they are applied. */
export const CPUID_RULES: readonly CpuidRule[] = Object.freeze([
  never(0x0000_0001, null, 'ecx', 24, 'TSC_DEADLINE: the timer belongs to the hypervisor'),
  never(0x0000_0007, 0, 'ebx', 1, 'TSC_ADJUST: the MSR belongs to the hypervisor'),
  never(0x0000_0007, 0, 'edx', 26, 'SPEC_CTRL: Intel enumeration of an MSR that is virtualized'),
  never(0x0000_0007, 0, 'edx', 27, 'STIBP: Intel enumeration of an MSR that is virtualized'),
  never(0x0000_0007, 0, 'edx', 28, 'FLUSH_L1D: no such command register'),
  never(0x0000_0007, 0, 'edx', 29, 'ARCH_CAPABILITIES: no such MSR'),
  never(0x0000_0007, 0, 'edx', 30, 'CORE_CAPABILITY: no such MSR'),
  never(0x0000_0007, 0, 'edx', 31, 'SSBD: Intel enumeration of an MSR that is virtualized'),
  {
    function: 0x0000_000d,
    index: 0,
    register: 'ebx',
    mask: -1,
    value: XSAVE_LEGACY_AREA,
    reason: 'size of the XSAVE area for the XCR0 of the entry',
  },
  {
    function: 0x0000_000d,
    index: 1,
    register: 'ebx',
    mask: -1,
    value: XSAVE_LEGACY_AREA,
    reason: 'size of the XSAVES area for the XCR0 of the entry',
  },
  never(0x8000_0008, null, 'ebx', 25, 'VIRT_SSBD: the MSR belongs to the hypervisor'),
  {
    function: 0x8000_001f,
    index: null,
    register: 'ebx',
    mask: 0x3f,
    value: C_BIT_POSITION,
    reason: 'position of the C-bit',
  },
]);

/**
 * A CPUID table as firmware would have it.
 *
 * Shape    count entries of 48 bytes
 * Returns  the same array when nothing is wrong, otherwise a corrected copy
 */
export function correctCpuidEntries(entries: Uint8Array): Uint8Array {
  let corrected: Uint8Array | null = null;
  for (let base = 0; base < entries.length; base += CpuidEntry.size) {
    const fn = CpuidEntry.get(entries, 'eax_in', base);
    const index = CpuidEntry.get(entries, 'ecx_in', base);
    for (const rule of CPUID_RULES) {
      if (rule.function !== fn || (rule.index !== null && rule.index !== index)) {
        continue;
      }
      const at = base + CpuidEntry.offsetOf(rule.register);
      const given = readU32(entries, at);
      if ((given & rule.mask) !== rule.value) {
        corrected ??= entries.slice();
        const current = readU32(corrected, at);
        writeU32(corrected, at, ((current & ~rule.mask) | rule.value) >>> 0);
      }
    }
    if (!isZero(entries.subarray(base + 40, base + CpuidEntry.size))) {
      corrected ??= entries.slice();
      corrected.fill(0, base + 40, base + CpuidEntry.size);
    }
  }
  return corrected ?? entries;
}

/**
 * Checks a CPUID page.
 *
 * Returns  'ok'; a corrected page to hand back to the hypervisor; or 'malformed' when there is no telling what it
 *          claims
 */
export function checkCpuidPage(page: Uint8Array): 'ok' | 'malformed' | Uint8Array {
  const count = readU32(page, 0);
  if (count > CPUID_PAGE_MAX_ENTRIES) {
    return 'malformed';
  }
  const from = CPUID_PAGE_ENTRIES_OFFSET;
  const entries = page.subarray(from, from + count * CpuidEntry.size);
  const corrected = correctCpuidEntries(entries);
  if (corrected === entries) {
    return 'ok';
  }
  const out = page.slice();
  out.set(corrected, from);
  return out;
}
