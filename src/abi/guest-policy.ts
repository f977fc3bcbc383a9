// SPDX-License-Identifier: Apache-2.0
import { bits64 } from '../lib/struct.ts';

/**
 * Guest policy: what the guest's owner demands of the platform.
 *
 * Source   [SNP-ABI] "Guest Policy". Bit 17 is reserved-one, 18 and above as named, 63:26 zero
 */
export const GuestPolicy = bits64(
  {
    abi_minor: [0, 8],
    abi_major: [8, 8],
    smt: [16, 1],
    migrate_ma: [18, 1],
    debug: [19, 1],
    single_socket: [20, 1],
    cxl_allow: [21, 1],
    mem_aes_256_xts: [22, 1],
    rapl_dis: [23, 1],
    ciphertext_hiding_dram: [24, 1],
    page_swap_disable: [25, 1],
  },
  [17],
);
export type GuestPolicy = ReturnType<typeof GuestPolicy.fromWord>;

/** SMT allowed and the reserved-one bit: what QEMU and the ID block tools use unasked. */
export const GUEST_POLICY_DEFAULT = 0x30000n;
