// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp/verify/js: the verifier's cryptography in JavaScript alone, for where there is neither node:crypto nor
 * crypto.subtle: pages over plain http, embedded engines. Some ten times slower than those, and a verdict still takes
 * only some tens of milliseconds. Not in constant time: whoever verifies has no secrets.
 */
import { p384 } from '@noble/curves/nist.js';
import { sha256, sha384 } from '@noble/hashes/sha2.js';
import { concat, equalBytes, fromHex, isZero, toHex } from '../lib/bytes.ts';
import type { VerifyCrypto } from './crypto.ts';

/** What stands around the modulus in the SubjectPublicKeyInfo of every RSA key of AMD's: 4096 bits, exponent 65537. */
const RSA_PREFIX = fromHex('30820222300d06092a864886f70d01010105000382020f003082020a0282020100');
const RSA_SUFFIX = fromHex('0203010001');
const RSA_SIZE = 512;
const HASH_SIZE = 48;
const SALT_SIZE = 48;
const POINT_SIZE = 97;

/** Makes a provider; it keeps nothing between calls. */
export function jsVerifyCrypto(): VerifyCrypto {
  return {
    sha256Hex: (data) => toHex(sha256(data)),
    verifyRsaPss(spki, message, signature) {
      const modulus = modulusOf(spki);
      const encoded = modulus === null ? null : openSignature(signature, modulus);
      return encoded !== null && isPssOf(message, encoded);
    },
    verifyEcdsaP384(point, message, r, s) {
      // The library would take a compressed point as well, of which the others know nothing.
      return point.length === POINT_SIZE && isEcdsaOf(point, message, concat(r, s));
    },
  };
}

function isEcdsaOf(point: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  try {
    return p384.verify(signature, message, point, { format: 'compact', lowS: false, prehash: true });
  } catch {
    // No point of the curve, or numbers out of range: nothing verifies under or with such.
    return false;
  }
}

const bigOf = (bytes: Uint8Array): bigint => BigInt(`0x${toHex(bytes)}`);

/** Null for every other kind of key. */
function modulusOf(spki: Uint8Array): bigint | null {
  const from = RSA_PREFIX.length;
  const to = from + RSA_SIZE;
  return equalBytes(spki.subarray(0, from), RSA_PREFIX) && equalBytes(spki.subarray(to), RSA_SUFFIX)
    ? bigOf(spki.subarray(from, to))
    : null;
}

/** RSAVP1: signature to the power of 65537. [RFC8017] 5.2.2 */
function openSignature(signature: Uint8Array, modulus: bigint): Uint8Array | null {
  const value = signature.length === RSA_SIZE ? bigOf(signature) : modulus;
  if (value >= modulus) {
    return null;
  }
  let power = value;
  for (let i = 0; i < 16; i++) {
    power = (power * power) % modulus;
  }
  return fromHex(((power * value) % modulus).toString(16).padStart(2 * RSA_SIZE, '0'));
}

/** EMSA-PSS-VERIFY with SHA-384, MGF1 of it and 48 bytes of salt. [RFC8017] 9.1.2 */
function isPssOf(message: Uint8Array, encoded: Uint8Array): boolean {
  const block = encoded.slice(0, RSA_SIZE - HASH_SIZE - 1);
  const hash = encoded.subarray(block.length, RSA_SIZE - 1);
  // The encoding has one bit less than the modulus.
  if (encoded[RSA_SIZE - 1] !== 0xbc || block[0]! > 0x7f) {
    return false;
  }
  for (let at = 0, i = 0; at < block.length; at += HASH_SIZE, i++) {
    const mask = sha384(concat(hash, Uint8Array.of(0, 0, 0, i)));
    for (let k = 0; k < HASH_SIZE && at + k < block.length; k++) {
      block[at + k]! ^= mask[k]!;
    }
  }
  block[0]! &= 0x7f;
  const saltAt = block.length - SALT_SIZE;
  return (
    isZero(block.subarray(0, saltAt - 1)) &&
    block[saltAt - 1] === 1 &&
    equalBytes(sha384(concat(new Uint8Array(8), sha384(message), block.subarray(saltAt))), hash)
  );
}
