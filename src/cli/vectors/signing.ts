// SPDX-License-Identifier: Apache-2.0
/** Ways to sign a certificate: AMD's, and those a verifier must refuse although the signature is good. */
import { constants, createHash, type KeyObject, privateEncrypt, sign } from 'node:crypto';
import { concat, fromHex } from '../../lib/bytes.ts';
import { int, oid, tlv } from './der.ts';

const SHA384 = tlv(0x30, oid('2.16.840.1.101.3.4.2.2'), fromHex('0500'));
const SHA256 = tlv(0x30, oid('2.16.840.1.101.3.4.2.1'), fromHex('0500'));
const SHA1 = tlv(0x30, oid('1.3.14.3.2.26'), fromHex('0500'));
const RSASSA_PSS = oid('1.2.840.113549.1.1.10');
const NONE = new Uint8Array(0);

function pss(hash: Uint8Array, mask: Uint8Array, salt: number, trailer: Uint8Array = NONE): Uint8Array {
  const maskGenerator = tlv(0x30, oid('1.2.840.113549.1.1.8'), mask);
  return tlv(
    0x30,
    RSASSA_PSS,
    tlv(0x30, tlv(0xa0, hash), tlv(0xa1, maskGenerator), tlv(0xa2, int(salt)), trailer),
  );
}

/** A way to sign with its AlgorithmIdentifier. */
export interface Signing {
  readonly algorithm: Uint8Array;
  readonly hash: 'sha1' | 'sha256' | 'sha384';
  /** Bytes of salt; null for PKCS #1 v1.5. */
  readonly saltLength: number | null;
}

export const SIGNINGS = {
  amd: { algorithm: pss(SHA384, SHA384, 48), hash: 'sha384', saltLength: 48 },
  amdExplicitTrailer: {
    algorithm: pss(SHA384, SHA384, 48, tlv(0xa3, int(1))),
    hash: 'sha384',
    saltLength: 48,
  },
  pssSha256: { algorithm: pss(SHA256, SHA256, 0), hash: 'sha256', saltLength: 0 },
  pssSha256Salt32: { algorithm: pss(SHA256, SHA256, 32), hash: 'sha256', saltLength: 32 },
  pssNoSalt: { algorithm: pss(SHA384, SHA384, 0), hash: 'sha384', saltLength: 0 },
  pssSalt32: { algorithm: pss(SHA384, SHA384, 32), hash: 'sha384', saltLength: 32 },
  pssSalt32As48: { algorithm: pss(SHA384, SHA384, 48), hash: 'sha384', saltLength: 32 },
  // Nothing said means SHA-1 with 20 bytes of salt.
  pssEmptyParameters: { algorithm: tlv(0x30, RSASSA_PSS, tlv(0x30)), hash: 'sha1', saltLength: 20 },
  // The signature is AMD's kind, only the identifiers of the next three are not.
  pssNoParameters: { algorithm: tlv(0x30, RSASSA_PSS), hash: 'sha384', saltLength: 48 },
  pssMaskSha1: { algorithm: pss(SHA384, SHA1, 48), hash: 'sha384', saltLength: 48 },
  pssTrailer2: { algorithm: pss(SHA384, SHA384, 48, tlv(0xa3, int(2))), hash: 'sha384', saltLength: 48 },
  pkcs1: {
    algorithm: tlv(0x30, oid('1.2.840.113549.1.1.12'), fromHex('0500')),
    hash: 'sha384',
    saltLength: null,
  },
} as const satisfies Record<string, Signing>;

/** Signs with RSA; `salt` has as many bytes as the way to sign wants. */
export function signRsa(
  { hash }: Signing,
  key: KeyObject,
  message: Uint8Array,
  salt: Uint8Array | null,
): Uint8Array {
  if (salt === null) {
    return Uint8Array.from(sign(hash, message, { key, padding: constants.RSA_PKCS1_PADDING }));
  }
  const encoded = encodePss(hash, message, salt, key.asymmetricKeyDetails!.modulusLength! / 8);
  return Uint8Array.from(privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, encoded));
}

/**
 * EMSA-PSS-ENCODE with whatever hash and salt; that of the key service knows AMD's alone, and node:crypto draws a salt
 * of its own, with which no run repeats. [RFC8017] 9.1.1
 */
function encodePss(name: Signing['hash'], message: Uint8Array, salt: Uint8Array, size: number): Uint8Array {
  const digest = (...parts: readonly Uint8Array[]): Uint8Array =>
    Uint8Array.from(
      createHash(name)
        .update(concat(...parts))
        .digest(),
    );
  const hash = digest(new Uint8Array(8), digest(message), salt);
  const block = new Uint8Array(size - hash.length - 1);
  block[block.length - salt.length - 1] = 0x01;
  block.set(salt, block.length - salt.length);
  for (let at = 0, i = 0; at < block.length; at += hash.length, i++) {
    const mask = digest(hash, Uint8Array.of(0, 0, i >> 8, i & 0xff));
    for (const [k, byte] of mask.subarray(0, block.length - at).entries()) {
      block[at + k]! ^= byte;
    }
  }
  block[0]! &= 0x7f;
  return concat(block, hash, Uint8Array.of(0xbc));
}
