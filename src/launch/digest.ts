// SPDX-License-Identifier: Apache-2.0
/** The SNP launch digest: one SHA-384 over a PAGE_INFO for each page, chained. */
import { PageInfo, PageType } from '../abi/page-info.ts';
import { type Gpa, gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { writeU16, writeU32 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import type { Hash } from './kernel-hashes.ts';
import { assertWholePages, type OvmfImage, ovmfGpa } from './ovmf.ts';
import { type LaunchPlan, VMSA_GPA } from './plan.ts';

/** Size of a launch digest. */
export const LAUNCH_DIGEST_SIZE = 48;

export interface LedgerEntry {
  readonly gpa: Gpa;
  readonly type: PageType;
  readonly what: string;
  /** Launch digest after this page. */
  readonly digest: Uint8Array;
}

export interface DigestOptions {
  /**
   * Digest the image's own pages already led to (`ovmfHash`), computed elsewhere: they are skipped, the
   * image serves for its tables alone.
   */
  readonly seed?: Uint8Array;
  /** Called after each page. */
  readonly onPage?: (entry: LedgerEntry) => void;
}

const DIGEST_CUR = PageInfo.offsetOf('digest_cur');
const CONTENTS = PageInfo.offsetOf('contents');
const LENGTH = PageInfo.offsetOf('length');
const PAGE_TYPE = PageInfo.offsetOf('page_type');
const GPA = PageInfo.offsetOf('gpa');

/** A chain of launch digests; the one PAGE_INFO buffer serves all pages. */
class DigestChain {
  readonly #sha384: Hash;
  readonly #info = new Uint8Array(PageInfo.size);

  constructor(sha384: Hash, seed: Uint8Array) {
    this.#sha384 = sha384;
    this.#info.set(seed, DIGEST_CUR);
    writeU16(this.#info, LENGTH, PageInfo.size);
  }

  /** Extends the digest by one page; `data` counts for NORMAL and VMSA pages only. */
  extend(type: PageType, address: Gpa, data: Uint8Array | null): Uint8Array {
    const info = this.#info;
    if (data !== null && (type === PageType.NORMAL || type === PageType.VMSA)) {
      info.set(this.#sha384(data), CONTENTS);
    } else {
      info.fill(0, CONTENTS, CONTENTS + LAUNCH_DIGEST_SIZE);
    }
    info[PAGE_TYPE] = type;
    const at = Number(address);
    writeU32(info, GPA, at % 0x1_0000_0000);
    writeU32(info, GPA + 4, Math.floor(at / 0x1_0000_0000));
    const digest = this.#sha384(info);
    info.set(digest, DIGEST_CUR);
    return digest;
  }
}

/**
 * The launch digest of a plan: what MEASUREMENT of the guest's attestation report will be.
 *
 * Units    48 bytes
 * Errors   OPTION_INVALID for a seed of another length
 * Source   [SNP-ABI] SNP_LAUNCH_UPDATE, "Launch Digest"
 */
export function launchDigest(
  sha384: Hash,
  plan: Pick<LaunchPlan, 'regions' | 'pages' | 'vmsas'>,
  options: DigestOptions = {},
): Uint8Array {
  const { seed, onPage } = options;
  if (seed !== undefined && seed.length !== LAUNCH_DIGEST_SIZE) {
    throw new InputError('OPTION_INVALID', `${seed.length} bytes given, an OVMF hash has 48`, {
      where: '--snp-ovmf-hash',
    });
  }
  const chain = new DigestChain(sha384, seed ?? new Uint8Array(LAUNCH_DIGEST_SIZE));
  let digest = seed ?? new Uint8Array(LAUNCH_DIGEST_SIZE);
  const skipped = seed === undefined ? 0 : plan.regions[0]!.sizeBytes / PAGE_SIZE;
  for (let i = skipped; i < plan.pages.length; i++) {
    const page = plan.pages[i]!;
    digest = chain.extend(page.type, page.gpa, page.data);
    onPage?.({ gpa: page.gpa, type: page.type, what: page.what, digest });
  }
  plan.vmsas.forEach((page, i) => {
    digest = chain.extend(PageType.VMSA, VMSA_GPA, page);
    onPage?.({ gpa: VMSA_GPA, type: PageType.VMSA, what: `VMSA of vCPU ${i}`, digest });
  });
  return digest;
}

/**
 * The digest an image's own pages lead to; a seed for `launchDigest`.
 *
 * Units    48 bytes
 * Errors   OVMF_SIZE_UNALIGNED
 */
export function ovmfHash(sha384: Hash, image: OvmfImage): Uint8Array {
  assertWholePages(image);
  const base = ovmfGpa(image);
  const chain = new DigestChain(sha384, new Uint8Array(LAUNCH_DIGEST_SIZE));
  let digest: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE);
  for (let at = 0; at < image.bytes.length; at += PAGE_SIZE) {
    digest = chain.extend(PageType.NORMAL, gpa(base + BigInt(at)), image.bytes.subarray(at, at + PAGE_SIZE));
  }
  return digest;
}
