// SPDX-License-Identifier: Apache-2.0
/** PAGE_INFO: what SHA-384 runs over for every launched page. [SNP-ABI] "Launch Digest". */
import { bits8, bytes, type DecodedOf, layout, u8, u16le, u64le } from '../lib/struct.ts';

/** PAGE_TYPE of SNP_LAUNCH_UPDATE; 0 and 7 are reserved. */
export const PageType = Object.freeze({
  NORMAL: 1,
  VMSA: 2,
  ZERO: 3,
  UNMEASURED: 4,
  SECRETS: 5,
  CPUID: 6,
} as const);
export type PageType = (typeof PageType)[keyof typeof PageType];

export const PAGE_INFO_SIZE = 0x70;

/**
 * The launch digest becomes SHA-384 of this.
 *
 * Sources disagree about bytes 0x64-0x67: igvmmeasure puts a zero byte before the
 * permissions of VMPL1, 2 and 3, as here; sev-snp-measure has them in the opposite order with the zero byte
 * last. No known VMM launches with permissions other than zero.
 */
export const PageInfo = layout(
  'PageInfo',
  PAGE_INFO_SIZE,
  { spec: 'SNP-ABI', at: 'PAGE_INFO' },
  {
    digest_cur: [0x00, bytes(48), 'launch digest so far'],
    contents: [0x30, bytes(48), 'SHA-384 of the page for NORMAL and VMSA, else zero'],
    length: [0x60, u16le, '0x70'],
    page_type: [0x62, u8],
    flags: [0x63, bits8({ imi_page: [0, 1] })],
    vmpl1_perms: [0x65, u8],
    vmpl2_perms: [0x66, u8],
    vmpl3_perms: [0x67, u8],
    gpa: [0x68, u64le],
  },
);
export type PageInfo = DecodedOf<typeof PageInfo>;
