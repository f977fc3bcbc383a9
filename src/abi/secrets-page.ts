// SPDX-License-Identifier: Apache-2.0
/** Secrets page: how the firmware hands a guest its message keys. [SNP-ABI] "Secrets Page"; Linux asm/sev.h. */
import { bits32, bytes, type DecodedOf, layout, u8, u32le, u64le } from '../lib/struct.ts';

/** The layout with TSC_FACTOR. */
export const SECRETS_PAGE_VERSION = 3;

/**
 * PAGE_TYPE 5. The firmware writes 0x000-0x09f, 0x100-0x13f and 0x160; 0x0a0-0x0ff belong to the guest's
 * kernel; 0x140-0x15f are filled in by an SVSM. The rest is reserved and zero.
 */
export const SecretsPage = layout(
  'SecretsPage',
  4096,
  { spec: 'SNP-ABI', at: 'Secrets page, PAGE_TYPE 5' },
  {
    version: [0x000, u32le, '2 or 3'],
    flags: [0x004, bits32({ imi_en: [0, 1] })],
    fms: [0x008, u32le, 'CPUID Fn0000_0001_EAX form'],
    gosvw: [0x010, bytes(16)],
    vmpck0: [0x020, bytes(32)],
    vmpck1: [0x040, bytes(32)],
    vmpck2: [0x060, bytes(32)],
    vmpck3: [0x080, bytes(32)],
    msg_seqno_0: [0x0a0, u32le, 'Linux: count of messages under VMPCK0'],
    msg_seqno_1: [0x0a4, u32le],
    msg_seqno_2: [0x0a8, u32le],
    msg_seqno_3: [0x0ac, u32le],
    ap_jump_table_pa: [0x0b0, u64le],
    os_reserved: [0x0b8, bytes(40), 'the guest’s'],
    guest_usage: [0x0e0, bytes(32), 'the guest’s'],
    vmsa_tweak_bitmap: [0x100, bytes(64)],
    svsm_base: [0x140, u64le],
    svsm_size: [0x148, u64le],
    svsm_caa: [0x150, u64le],
    svsm_max_version: [0x158, u32le],
    svsm_guest_vmpl: [0x15c, u8],
    tsc_factor: [0x160, u32le],
  },
);
export type SecretsPage = DecodedOf<typeof SecretsPage>;

/** Offset of VMPCK0; the keys are 32 bytes each, one after another. */
export const SECRETS_VMPCK_OFFSET = 0x020;
/** Offset of the message count of VMPCK0; the counts are u32 each. */
export const SECRETS_SEQNO_OFFSET = 0x0a0;
