// SPDX-License-Identifier: Apache-2.0
/** softsnp/machine/node: the machine's cryptography and randomness, made from node:crypto. */
import {
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';
import { p384 } from '@noble/curves/nist.js';
import { concat, utf8, writeU32, writeU64 } from '../lib/bytes.ts';
import type { EcdsaHash, EcdsaSignature, MachineCrypto, Random, SigningKey } from '../lib/crypto.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';

/**
 * Bytes of the operating system's generator.
 *
 * Errors   ENTROPY_UNAVAILABLE: nothing is made from fewer bytes than were asked for
 */
export const systemRandom: Random = {
  bytes(length) {
    try {
      return Uint8Array.from(randomBytes(length));
    } catch (cause) {
      throw new EnvironmentError('ENTROPY_UNAVAILABLE', `no random bytes: ${errnoCode(cause)}`, { cause });
    }
  },
};

/**
 * An endless reproducible stream: SHA-256(seed ‖ block counter).
 *
 * Differs  not a cryptographic generator: whoever knows the seed knows every key of the run
 */
export function seededRandom(seed: number): Random {
  const prefix = concat(utf8('softsnp seed'), new Uint8Array(8));
  writeU64(prefix, 12, BigInt(seed));
  let counter = 0;
  let pool = new Uint8Array(0);
  return {
    bytes(length) {
      const out = new Uint8Array(length);
      let filled = 0;
      while (filled < length) {
        if (pool.length === 0) {
          const block = new Uint8Array(4);
          writeU32(block, 0, counter);
          counter += 1;
          pool = Uint8Array.from(createHash('sha256').update(prefix).update(block).digest());
        }
        const take = Math.min(pool.length, length - filled);
        out.set(pool.subarray(0, take), filled);
        pool = pool.subarray(take);
        filled += take;
      }
      return out;
    },
  };
}

const bytesOf = (data: Uint8Array): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

function digest(algorithm: string, data: Uint8Array): Uint8Array {
  return bytesOf(createHash(algorithm).update(data).digest());
}

// SubjectPublicKeyInfo of an uncompressed P-384 point, up to the point.
const P384_SPKI_PREFIX = Uint8Array.from([
  0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
  0x00, 0x22, 0x03, 0x62, 0x00,
]);

function publicKeyOf(point: Uint8Array): KeyObject | null {
  try {
    return createPublicKey({
      key: Buffer.from(concat(P384_SPKI_PREFIX, point)),
      format: 'der',
      type: 'spki',
    });
  } catch {
    return null;
  }
}

const base64url = (data: Uint8Array): string => Buffer.from(data).toString('base64url');

/**
 * @param options deterministic: signatures by RFC 6979 (slower), so that a seeded run repeats byte for byte
 */
export function nodeCrypto(options: { readonly deterministic: boolean }): MachineCrypto {
  return {
    sha256: (data) => digest('sha256', data),
    sha384: (data) => digest('sha384', data),
    hmacSha384: (key, data) => bytesOf(createHmac('sha384', key).update(data).digest()),

    gcmSeal(key, nonce, aad, plaintext) {
      const cipher = createCipheriv('aes-256-gcm', key, nonce);
      cipher.setAAD(aad);
      const ciphertext = cipher.update(plaintext);
      cipher.final();
      return { ciphertext: bytesOf(ciphertext), tag: bytesOf(cipher.getAuthTag()) };
    },

    gcmOpen(key, nonce, aad, ciphertext, tag) {
      const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
      decipher.setAAD(aad);
      decipher.setAuthTag(tag);
      const plaintext = decipher.update(ciphertext);
      try {
        decipher.final();
      } catch {
        return null;
      }
      return bytesOf(plaintext);
    },

    memoryEncrypt: (key, frame, page) => memoryCipher(createCipheriv, key, frame, page),
    memoryDecrypt: (key, frame, page) => memoryCipher(createDecipheriv, key, frame, page),

    p384Key: (scalar) => (options.deterministic ? deterministicKey(scalar) : nativeKey(scalar)),

    p384Verify(publicPoint, message, signature, hash = 'sha384') {
      if (publicPoint.length !== 97 || publicPoint[0] !== 4) {
        return false;
      }
      const key = publicKeyOf(publicPoint);
      return (
        key !== null &&
        verify(hash, message, { key, dsaEncoding: 'ieee-p1363' }, concat(signature.r, signature.s))
      );
    },
  };
}

// XTS is the mode of the memory controller on parts with MEM_AES_256_XTS; its 64-byte key is made from the guest's key.
const XTS_KEYS = new WeakMap<Uint8Array, Uint8Array>();

function memoryCipher(
  create: typeof createCipheriv | typeof createDecipheriv,
  key: Uint8Array,
  frame: number,
  page: Uint8Array,
): Uint8Array {
  let xtsKey = XTS_KEYS.get(key);
  if (xtsKey === undefined) {
    xtsKey = concat(
      digest('sha256', concat(utf8('data'), key)),
      digest('sha256', concat(utf8('tweak'), key)),
    );
    XTS_KEYS.set(key, xtsKey);
  }
  const tweak = new Uint8Array(16);
  writeU64(tweak, 0, BigInt(frame));
  const cipher = create('aes-256-xts', xtsKey, tweak);
  const out = cipher.update(page);
  cipher.final();
  return bytesOf(out);
}

function publicPointOf(scalar: Uint8Array): Uint8Array {
  const pair = createECDH('secp384r1');
  pair.setPrivateKey(scalar);
  return Uint8Array.from(pair.getPublicKey());
}

function deterministicKey(scalar: Uint8Array): SigningKey {
  return {
    publicPoint: publicPointOf(scalar),
    sign(message, hash: EcdsaHash = 'sha384'): EcdsaSignature {
      const compact = p384.sign(digest(hash, message), scalar, {
        lowS: false,
        prehash: false,
        format: 'compact',
      });
      return { r: compact.slice(0, 48), s: compact.slice(48) };
    },
  };
}

function nativeKey(scalar: Uint8Array): SigningKey {
  const point = publicPointOf(scalar);
  const key = createPrivateKey({
    key: {
      kty: 'EC',
      crv: 'P-384',
      d: base64url(scalar),
      x: base64url(point.subarray(1, 49)),
      y: base64url(point.subarray(49)),
    },
    format: 'jwk',
  });
  return {
    publicPoint: point,
    sign(message, hash: EcdsaHash = 'sha384'): EcdsaSignature {
      const signature = bytesOf(sign(hash, message, { key, dsaEncoding: 'ieee-p1363' }));
      return { r: signature.subarray(0, 48), s: signature.subarray(48) };
    },
  };
}
