// SPDX-License-Identifier: Apache-2.0
/** What the verifiers are asked about: genuine evidence, and evidence that is wrong in one respect. */
import { PRODUCT_LINES, type ProductLine } from '../../../src/abi/product.ts';
import { vectorCases } from '../../../src/cli/vectors/cases.ts';
import { nodeCrypto, seededRandom } from '../../../src/os/node-crypto.ts';
import { nodeVerifyCrypto } from '../../../src/os/verify-crypto.ts';
import {
  type Evidence,
  parsePolicy,
  VerifyCache,
  type VerifyOptions,
  verifyEvidence,
} from '../../../src/verify/index.ts';
import { INDEX, vector, whenValidMs } from '../../verify/vectors.ts';

/** The sets of evidence, each compared and reported by itself. */
export const SETS = ['genuine', 'negative'] as const;
export type SetName = (typeof SETS)[number];

/** One question to a verifier; its certificates are, unless they are the fault, leaf, intermediate and root. */
export interface Subject {
  readonly name: string;
  readonly product: ProductLine;
  readonly evidence: Evidence;
  readonly options: Omit<VerifyOptions, 'crypto' | 'cache'>;
}

const productNamed = (text: string): ProductLine => {
  const product = PRODUCT_LINES.find((line) => text.toLowerCase().includes(line.toLowerCase()));
  if (product === undefined) {
    throw new TypeError(`no product line in ${text}`);
  }
  return product;
};

/** Every genuine report with each of its leaves. The policy lets debug guests through: AMD signed four of them. */
function genuine(): Subject[] {
  const policy = parsePolicy({ guest_policy: { debug: 'any' } });
  return INDEX.flatMap(({ file, leaf = [] }) =>
    leaf.map((cert) => {
      const product = productNamed(file);
      const intermediate = /\/vlek-/.test(cert) ? 'asvk' : 'ask';
      return {
        name: leaf.length === 1 ? file : `${file} with ${cert}`,
        product,
        evidence: {
          report: vector(file),
          certificates: [vector(cert), authority(intermediate, product), authority('ark', product)],
        },
        options: { atMs: whenValidMs(cert), crl: 'skip', policy },
      };
    }),
  );
}

/** The last of that name: the first of the two intermediates of Genoa is revoked. */
function authority(name: string, product: ProductLine): Uint8Array {
  const { file } = INDEX.findLast((entry) => entry.file.includes(`/${name}-${product.toLowerCase()}-`))!;
  return vector(file);
}

/** The files of `softsnp vectors`. */
function negative(): Subject[] {
  return [...vectorCases(nodeCrypto({ deterministic: true }), seededRandom(1))].map(
    // The folder names the line; the rest of the name may name others.
    ({ name, evidence, options }) => ({
      name,
      product: productNamed(name.split('/')[0]!),
      evidence,
      options,
    }),
  );
}

export const SUBJECTS: Readonly<Record<SetName, () => readonly Subject[]>> = {
  genuine,
  negative,
};

const crypto = nodeVerifyCrypto();
const cache = new VerifyCache();

/** softsnp's verdict, at the subject's time or at another one. */
export function softsnpAccepts({ evidence, options }: Subject, atMs = options.atMs): boolean {
  return verifyEvidence(evidence, { ...options, atMs, crypto, cache }).ok;
}
