// SPDX-License-Identifier: Apache-2.0
/** The verifier's cryptography from node:crypto. */
import { constants, createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { concat } from '../lib/bytes.ts';
import type { VerifyCrypto } from '../verify/crypto.ts';

const SALT_SIZE = 48;

/**
 * Makes a provider that remembers imported keys.
 *
 * A key is remembered with the very array that held it, so a verifier that keeps its decoded certificates
 * (VerifyCache) imports each key once, and a dropped certificate takes its key along.
 */
export function nodeVerifyCrypto(): VerifyCrypto {
  const keys = new WeakMap<Uint8Array, KeyObject | null>();
  const keyOf = (bytes: Uint8Array, load: () => KeyObject): KeyObject | null => {
    let key = keys.get(bytes);
    if (key === undefined) {
      try {
        key = load();
      } catch {
        // OpenSSL refuses the key (a point off the curve, say): no signature verifies under it.
        key = null;
      }
      keys.set(bytes, key);
    }
    return key;
  };
  return {
    sha256(data) {
      const digest = createHash('sha256').update(data).digest();
      return new Uint8Array(digest.buffer, digest.byteOffset, digest.byteLength);
    },
    verifyRsaPss(spki, message, signature) {
      const key = keyOf(spki, () => createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' }));
      return (
        key !== null &&
        key.asymmetricKeyType === 'rsa' &&
        verify(
          'sha384',
          message,
          { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: SALT_SIZE },
          signature,
        )
      );
    },
    verifyEcdsaP384(point, message, r, s) {
      const key = keyOf(point, () =>
        createPublicKey({
          key: {
            kty: 'EC',
            crv: 'P-384',
            x: Buffer.from(point.subarray(1, 49)).toString('base64url'),
            y: Buffer.from(point.subarray(49)).toString('base64url'),
          },
          format: 'jwk',
        }),
      );
      return key !== null && verify('sha384', message, { key, dsaEncoding: 'ieee-p1363' }, concat(r, s));
    },
  };
}
