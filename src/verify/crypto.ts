// SPDX-License-Identifier: Apache-2.0
/**
 * The cryptography a verifier is given, and the one way the judging code reaches it.
 *
 * Judging is written once, as generators that yield jobs. `runSync` answers them from node:crypto,
 * `runAsync` from WebCrypto; the verdict cannot depend on which of the two drives.
 */

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
  | { readonly op: 'sha256Hex'; readonly data: Uint8Array }
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

type CryptoAnswer = string | boolean;

/** A computation that asks for cryptography as it goes. */
export type Judging<T> = Generator<CryptoJob, T, CryptoAnswer>;

export function* sha256Hex(data: Uint8Array): Judging<string> {
  return (yield { op: 'sha256Hex', data }) as string;
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

function perform<C extends VerifyCrypto | AsyncVerifyCrypto>(
  crypto: C,
  job: CryptoJob,
): ReturnType<C['sha256Hex'] | C['verifyRsaPss']> {
  type Answer = ReturnType<C['sha256Hex'] | C['verifyRsaPss']>;
  switch (job.op) {
    case 'sha256Hex':
      return crypto.sha256Hex(job.data) as Answer;
    case 'verifyRsaPss':
      return crypto.verifyRsaPss(job.spki, job.message, job.signature) as Answer;
    case 'verifyEcdsaP384':
      return crypto.verifyEcdsaP384(job.point, job.message, job.r, job.s) as Answer;
  }
}

/** Drives a computation with synchronous cryptography. */
export function runSync<T>(crypto: VerifyCrypto, judging: Judging<T>): T {
  let next = judging.next();
  while (!next.done) {
    next = judging.next(perform(crypto, next.value));
  }
  return next.value;
}

/** Drives a computation with asynchronous cryptography. */
export async function runAsync<T>(crypto: AsyncVerifyCrypto, judging: Judging<T>): Promise<T> {
  let next = judging.next();
  while (!next.done) {
    next = judging.next(await perform(crypto, next.value));
  }
  return next.value;
}
