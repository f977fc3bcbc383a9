// SPDX-License-Identifier: Apache-2.0
/** softsnp/verify/node: the verifier's cryptography from node:crypto. */
import { constants, createPublicKey, hash, type KeyObject, verify } from 'node:crypto';
import { concat, fromHex, startsWith } from '../lib/bytes.ts';
import type { VerifyCrypto } from '../verify/crypto.ts';

const SALT_SIZE = 48;

// What stands before the RSAPublicKey in the SubjectPublicKeyInfo of a 4096-bit key, and before the point of a P-384 key.
const RSA_4096_PREFIX = fromHex('30820222300d06092a864886f70d01010105000382020f00');
const P384_PREFIX = fromHex('3076301006072a8648ce3d020106052b81040022036200');

/** OpenSSL takes a twentieth of the time for the inner form, which it need not guess the type of. */
function importRsa(spki: Uint8Array): KeyObject {
  const inner = spki.subarray(RSA_4096_PREFIX.length);
  return startsWith(spki, RSA_4096_PREFIX)
    ? createPublicKey({ key: Buffer.from(inner), format: 'der', type: 'pkcs1' })
    : createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
}

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
    sha256Hex: (data) => hash('sha256', data, 'hex'),
    verifyRsaPss(spki, message, signature) {
      const key = keyOf(spki, () => importRsa(spki));
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
        createPublicKey({ key: Buffer.from(concat(P384_PREFIX, point)), format: 'der', type: 'spki' }),
      );
      return (
        key !== null && verify('sha384', message, { key, dsaEncoding: 'ieee-p1363' }, Buffer.concat([r, s]))
      );
    },
  };
}
