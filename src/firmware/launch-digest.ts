// SPDX-License-Identifier: Apache-2.0
import { PAGE_INFO_SIZE, PageInfo } from '../abi/page-info.ts';
import type { MachineCrypto } from '../lib/crypto.ts';

/** Perms of VMPL 1, 2 and 3. */
export type LaunchPerms = readonly [vmpl1: number, vmpl2: number, vmpl3: number];

export interface LaunchedPage {
  readonly pageType: number;
  readonly imiPage: boolean;
  readonly perms: LaunchPerms;
  readonly gpa: bigint;
  /** SHA-384 of the page where its type is measured, else 48 zero bytes. */
  readonly contents: Uint8Array;
}

/**
 * The launch digest after one more page.
 *
 * Source   [SNP-ABI] "Launch Digest": SHA-384 of PAGE_INFO
 */
export function extendLaunchDigest(
  crypto: MachineCrypto,
  digest: Uint8Array,
  page: LaunchedPage,
): Uint8Array {
  return crypto.sha384(
    PageInfo.encode({
      digest_cur: digest,
      contents: page.contents,
      length: PAGE_INFO_SIZE,
      page_type: page.pageType,
      flags: { imi_page: Number(page.imiPage) },
      vmpl3_perms: page.perms[2],
      vmpl2_perms: page.perms[1],
      vmpl1_perms: page.perms[0],
      gpa: page.gpa,
    }),
  );
}
