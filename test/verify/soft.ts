// SPDX-License-Identifier: Apache-2.0
/** Evidence of softsnp platforms for tests of the verifier. */
import { vi } from 'vitest';
import type { ProductLine } from '../../src/abi/product.ts';
import { Forge, VECTOR_TIME_MS } from '../../src/cli/vectors/forge.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import type { Evidence, FindingCode, VerifyOptions, VerifyResult } from '../../src/verify/index.ts';
import { VerifyCache, verifyEvidence } from '../../src/verify/index.ts';

export const crypto = nodeVerifyCrypto();
export const cache = new VerifyCache(8192);
export const AT_MS = VECTOR_TIME_MS;

/** Scale of the long loops: SOFTSNP_LONG=1 tries every bit and every byte. */
export const LONG = process.env['SOFTSNP_LONG'] === '1';
if (LONG) {
  vi.setConfig({ testTimeout: 1_800_000, hookTimeout: 300_000 });
}
/** What a long run counted; short ones have nothing to tell. */
export function say(text: string): void {
  if (LONG) {
    console.log(text);
  }
}

export const NUM_RUNS = Number(process.env['FC_NUM_RUNS'] ?? 200);

export const forge = (product: ProductLine, seed = 1): Forge =>
  new Forge(product, nodeCrypto({ deterministic: false }), seededRandom(seed));

/** Verifies under the roots of softsnp, without asking for a revocation list. */
export const judge = (evidence: Evidence, options: Partial<VerifyOptions> = {}): VerifyResult =>
  verifyEvidence(evidence, { atMs: AT_MS, crl: 'skip', crypto, cache, ...options });

export const errorsOf = (result: VerifyResult): FindingCode[] =>
  result.findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);

export function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const out = bytes.slice();
  out[bit >> 3]! ^= 1 << (bit & 7);
  return out;
}

/** Every bit, or in short runs one of each byte. */
export const bitsOf = (size: number): number[] =>
  LONG
    ? Array.from({ length: 8 * size }, (_, bit) => bit)
    : Array.from({ length: size }, (_, byte) => 8 * byte + ((byte * 5) % 8));
