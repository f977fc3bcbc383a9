// SPDX-License-Identifier: Apache-2.0
/** HMAC-SHA-384 derivation with one label per purpose. */
import { concat, fromHex, toHex, utf8 } from '../lib/bytes.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';

/** Bytes of a fresh chip or cloud provider secret. */
export const SECRET_SIZE = 48;

const SECRET_MIN_SIZE = 32;

const HASH_SIZE = 48;

/** Order of the P-384 group. [FIPS186-5] and SEC 2. */
const P384_ORDER =
  0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;

const SCALAR_SIZE = 48;
/** 64 bits more than the order has: the reduction then favours no scalar measurably. */
const SEED_SIZE = SCALAR_SIZE + 8;

/**
 * Bytes bound to a secret, a label and a context (RFC 5869 HKDF-Expand with SHA-384).
 *
 * Units    length in bytes, at most 255 * 48
 */
export function expand(
  crypto: MachineCrypto,
  secret: Uint8Array,
  label: string,
  context: string,
  length: number,
): Uint8Array {
  // An empty or short secret would make keys that anybody can compute.
  invariant(secret.length >= SECRET_MIN_SIZE, `a secret of ${secret.length} bytes is too short`);
  // The zero byte ends the label: no other pair of label and context gives the same bytes.
  const info = concat(utf8(label), Uint8Array.of(0), utf8(context));
  const out = new Uint8Array(length);
  let block: Uint8Array = new Uint8Array(0);
  for (let i = 0; i * HASH_SIZE < length; i++) {
    block = crypto.hmacSha384(secret, concat(block, info, Uint8Array.of(i + 1)));
    out.set(block.subarray(0, Math.min(HASH_SIZE, length - i * HASH_SIZE)), i * HASH_SIZE);
  }
  return out;
}

/**
 * A P-384 private key bound to a secret, a label and a context.
 *
 * Returns  48 bytes, big-endian, in [1, n-1]
 * Source   [FIPS186-5] A.2.1, key pair generation using extra random bits
 */
export function expandScalar(
  crypto: MachineCrypto,
  secret: Uint8Array,
  label: string,
  context: string,
): Uint8Array {
  const seed = expand(crypto, secret, label, context, SEED_SIZE);
  const scalar = (BigInt(`0x${toHex(seed)}`) % (P384_ORDER - 1n)) + 1n;
  return fromHex(scalar.toString(16).padStart(2 * SCALAR_SIZE, '0'));
}

/** Condenses several values into one secret (RFC 5869 HKDF-Extract with SHA-384, the salt a label). */
export function extract(crypto: MachineCrypto, label: string, values: readonly Uint8Array[]): Uint8Array {
  return crypto.hmacSha384(utf8(label), concat(...values));
}
