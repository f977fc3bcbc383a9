// SPDX-License-Identifier: Apache-2.0
/** CPUID page: what the firmware vouches for about CPUID. [SNP-ABI] "CPUID Page"; Linux `snp_cpuid_table`. */
import { array, type DecodedOf, layout, u32le, u64le } from '../lib/struct.ts';

/** One CPUID function: its inputs and what the guest may see of its answer. */
export const CpuidEntry = layout(
  'CpuidEntry',
  48,
  { spec: 'SNP-ABI', at: 'CPUID_FUNCTION' },
  {
    eax_in: [0x00, u32le],
    ecx_in: [0x04, u32le],
    xcr0_in: [0x08, u64le],
    xss_in: [0x10, u64le],
    eax: [0x18, u32le],
    ebx: [0x1c, u32le],
    ecx: [0x20, u32le],
    edx: [0x24, u32le],
  },
);
export type CpuidEntry = DecodedOf<typeof CpuidEntry>;

export const CPUID_PAGE_MAX_ENTRIES = 64;
export const CPUID_PAGE_ENTRIES_OFFSET = 0x10;

/** PAGE_TYPE 6. Entries at and after `count` are unused. */
export const CpuidPage = layout(
  'CpuidPage',
  4096,
  { spec: 'SNP-ABI', at: 'CPUID page, PAGE_TYPE 6', gaps: 'ignore' },
  {
    count: [0x000, u32le, 'at most 64'],
    entries: [CPUID_PAGE_ENTRIES_OFFSET, array(CpuidEntry.codec, CPUID_PAGE_MAX_ENTRIES)],
  },
);
export type CpuidPage = DecodedOf<typeof CpuidPage>;
