// SPDX-License-Identifier: Apache-2.0
/**
 * RSASSA-PSS with a salt that is handed in: node:crypto draws its own, and then no run could be repeated.
 * [RFC8017] 8.1.1 and 9.1.1; hash and mask SHA-384, salt 48 bytes.
 */
import { constants, createHash, type KeyObject, privateEncrypt } from 'node:crypto';
import { concat } from '../lib/bytes.ts';
import { invariant } from '../lib/errors.ts';

/** Bytes of the salt in every signature of AMD's key service. */
export const PSS_SALT_SIZE = 48;

const HASH_SIZE = 48;

const sha384 = (...parts: readonly Uint8Array[]): Uint8Array => {
  const hash = createHash('sha384');
  for (const part of parts) {
    hash.update(part);
  }
  return Uint8Array.from(hash.digest());
};

/** Mask of a given length. [RFC8017] B.2.1. */
function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const blocks = Array.from({ length: Math.ceil(length / HASH_SIZE) }, (_, i) =>
    sha384(seed, Uint8Array.of(0, 0, i >> 8, i & 0xff)),
  );
  return concat(...blocks).subarray(0, length);
}

/** EMSA-PSS-ENCODE for a modulus of `modulusBytes` whole bytes. */
export function encodePss(message: Uint8Array, salt: Uint8Array, modulusBytes: number): Uint8Array {
  invariant(salt.length === PSS_SALT_SIZE, `a PSS salt has ${PSS_SALT_SIZE} bytes, not ${salt.length}`);
  const hash = sha384(new Uint8Array(8), sha384(message), salt);
  const block = new Uint8Array(modulusBytes - HASH_SIZE - 1);
  block[block.length - salt.length - 1] = 0x01;
  block.set(salt, block.length - salt.length);
  const mask = mgf1(hash, block.length);
  const masked = block.map((byte, i) => byte ^ mask[i]!);
  // The encoding has one bit less than the modulus, so that it is the smaller number.
  masked[0]! &= 0x7f;
  return concat(masked, hash, Uint8Array.of(0xbc));
}

/** Signs with an RSA key whose modulus has a multiple of 8 bits. */
export function signPss(key: KeyObject, message: Uint8Array, salt: Uint8Array): Uint8Array {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  invariant(bits !== undefined && bits % 8 === 0, 'not an RSA key of whole bytes');
  const encoded = encodePss(message, salt, bits / 8);
  return Uint8Array.from(privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, encoded));
}
