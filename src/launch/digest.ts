// SPDX-License-Identifier: Apache-2.0
/** The SNP launch digest: one SHA-384 over a PAGE_INFO for each page, chained. */
import { PageInfo, PageType } from '../abi/page-info.ts';
import { type Gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { writeU16, writeU32 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import type { Hash } from './kernel-hashes.ts';
import type { OvmfImage } from './ovmf.ts';
import { type LaunchPage, type MeasuredPages, planFirmware, VMSA_GPA } from './plan.ts';

/** Size of a launch digest. */
export const LAUNCH_DIGEST_SIZE = 48;

export interface LedgerEntry extends LaunchPage {
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

/** A launch digest being extended page by page; one PAGE_INFO buffer serves them all. */
export class LaunchDigestChain {
  readonly #sha384: Hash;
  readonly #info = new Uint8Array(PageInfo.size);

  constructor(sha384: Hash, seed: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE)) {
    this.#sha384 = sha384;
    this.#info.set(seed, DIGEST_CUR);
    writeU16(this.#info, LENGTH, PageInfo.size);
  }

  /**
   * Extends the digest by one page.
   *
   * Shape    contents: what `pageContents` gives for the page
   * Returns  the digest after it
   */
  extend(type: PageType, address: Gpa, contents: Uint8Array | null): Uint8Array {
    const info = this.#info;
    if (contents === null) {
      info.fill(0, CONTENTS, CONTENTS + LAUNCH_DIGEST_SIZE);
    } else {
      info.set(contents, CONTENTS);
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

/** SHA-384 of the page where its type makes the contents count; null where it does not. */
export function pageContents(sha384: Hash, type: PageType, data: Uint8Array | null): Uint8Array | null {
  return data !== null && (type === PageType.NORMAL || type === PageType.VMSA) ? sha384(data) : null;
}

/**
 * The launch digest of a plan: what MEASUREMENT of the guest's attestation report will be.
 *
 * Units    48 bytes
 * Errors   OPTION_INVALID for a seed of another length
 * Source   [SNP-ABI] SNP_LAUNCH_UPDATE, "Launch Digest"
 */
export function launchDigest(sha384: Hash, plan: MeasuredPages, options: DigestOptions = {}): Uint8Array {
  const { seed, onPage } = options;
  if (seed !== undefined && seed.length !== LAUNCH_DIGEST_SIZE) {
    throw new InputError('OPTION_INVALID', `${seed.length} bytes given, an OVMF hash has 48`, {
      where: '--snp-ovmf-hash',
    });
  }
  const chain = new LaunchDigestChain(sha384, seed);
  let digest = seed ?? new Uint8Array(LAUNCH_DIGEST_SIZE);
  const skipped = seed === undefined ? 0 : plan.regions[0]!.sizeBytes / PAGE_SIZE;
  for (let i = skipped; i < plan.pages.length; i++) {
    const page = plan.pages[i]!;
    digest = chain.extend(page.type, page.gpa, pageContents(sha384, page.type, page.data));
    onPage?.({ ...page, digest });
  }
  let previous: Uint8Array | null = null;
  let contents: Uint8Array | null = null;
  plan.vmsas.forEach((data, i) => {
    // Application processors share one page: hash it once.
    contents = data === previous ? contents : sha384(data);
    previous = data;
    digest = chain.extend(PageType.VMSA, VMSA_GPA, contents);
    onPage?.({ gpa: VMSA_GPA, type: PageType.VMSA, data, what: `VMSA of vCPU ${i}`, digest });
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
  return launchDigest(sha384, planFirmware(image));
}
