// SPDX-License-Identifier: Apache-2.0
/**
 * The cryptography a verifier is given, and the one way the judging code reaches it.
 *
 * Judging is written once, as generators that yield jobs. `runSync` answers them from node:crypto,
 * `runAsync` from WebCrypto; the verdict cannot depend on which of the two drives.
 */

import { InputError } from '../lib/errors.ts';

/** What the verifier needs of node:crypto; also satisfied by any synchronous library. */
export interface VerifyCrypto {
  /** SHA-256 in lower-case hexadecimal digits, the form fingerprints are compared in. */
  sha256Hex(data: Uint8Array): string;
  /** RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes. False for a key it cannot use. */
  verifyRsaPss(spki: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** ECDSA P-384 with SHA-384; point 0x04 ‖ X ‖ Y, r and s big-endian in 48 bytes. */
  verifyEcdsaP384(point: Uint8Array, message: Uint8Array, r: Uint8Array, s: Uint8Array): boolean;
}

/** The same of WebCrypto. */
export interface AsyncVerifyCrypto {
  sha256Hex(data: Uint8Array): Promise<string>;
  verifyRsaPss(spki: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean>;
  verifyEcdsaP384(point: Uint8Array, message: Uint8Array, r: Uint8Array, s: Uint8Array): Promise<boolean>;
}

type CryptoJob =
  | { readonly op: 'sha256Hex'; readonly each: readonly Uint8Array[] }
  | {
      readonly op: 'verifyRsaPss';
      readonly spki: Uint8Array;
      readonly message: Uint8Array;
      readonly signature: Uint8Array;
    }
  | {
      readonly op: 'verifyEcdsaP384';
      readonly point: Uint8Array;
      readonly message: Uint8Array;
      readonly r: Uint8Array;
      readonly s: Uint8Array;
    };

type CryptoAnswer = readonly string[] | boolean;

/** A computation that asks for cryptography as it goes. */
export type Judging<T> = Generator<CryptoJob, T, CryptoAnswer>;

export function* sha256Hex(data: Uint8Array): Judging<string> {
  return (yield* sha256HexOfEach([data]))[0]!;
}

/** Of several at once: WebCrypto works on them side by side, and the judging is left and entered once. */
export function* sha256HexOfEach(each: readonly Uint8Array[]): Judging<readonly string[]> {
  return (yield { op: 'sha256Hex', each }) as readonly string[];
}

export function* verifyRsaPss(
  spki: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): Judging<boolean> {
  return (yield { op: 'verifyRsaPss', spki, message, signature }) as boolean;
}

export function* verifyEcdsaP384(
  point: Uint8Array,
  message: Uint8Array,
  r: Uint8Array,
  s: Uint8Array,
): Judging<boolean> {
  return (yield { op: 'verifyEcdsaP384', point, message, r, s }) as boolean;
}

type SignatureJob = Exclude<CryptoJob, { readonly op: 'sha256Hex' }>;

function verifySignature<C extends VerifyCrypto | AsyncVerifyCrypto>(
  crypto: C,
  job: SignatureJob,
): ReturnType<C['verifyRsaPss']> {
  type Answer = ReturnType<C['verifyRsaPss']>;
  return job.op === 'verifyRsaPss'
    ? (crypto.verifyRsaPss(job.spki, job.message, job.signature) as Answer)
    : (crypto.verifyEcdsaP384(job.point, job.message, job.r, job.s) as Answer);
}

/** Errors   OPTION_INVALID for the promise of an answer: it would pass for a good signature */
function atOnce<A extends string | boolean>(answer: A): A {
  if (typeof answer !== 'string' && typeof answer !== 'boolean') {
    throw new InputError(
      'OPTION_INVALID',
      'answers with promises, which the function of this name with Async takes',
      {
        where: 'crypto',
      },
    );
  }
  return answer;
}

/**
 * Drives a computation with synchronous cryptography.
 *
 * Errors   OPTION_INVALID for cryptography that answers with promises
 */
export function runSync<T>(crypto: VerifyCrypto, judging: Judging<T>): T {
  let next = judging.next();
  while (!next.done) {
    const job = next.value;
    next = judging.next(
      job.op === 'sha256Hex'
        ? job.each.map((data) => atOnce(crypto.sha256Hex(data)))
        : atOnce(verifySignature(crypto, job)),
    );
  }
  return next.value;
}

/** Drives a computation with asynchronous cryptography. */
export async function runAsync<T>(crypto: AsyncVerifyCrypto, judging: Judging<T>): Promise<T> {
  let next = judging.next();
  while (!next.done) {
    const job = next.value;
    next = judging.next(
      job.op === 'sha256Hex'
        ? await Promise.all(job.each.map((data) => crypto.sha256Hex(data)))
        : await verifySignature(crypto, job),
    );
  }
  return next.value;
}
