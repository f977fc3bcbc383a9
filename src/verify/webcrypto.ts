// SPDX-License-Identifier: Apache-2.0
/** The verifier's cryptography from WebCrypto: browsers, workers, and Node where that is wanted. */
import { concat, copyOf, toHex } from '../lib/bytes.ts';
import type { AsyncVerifyCrypto } from './crypto.ts';

/** The part of SubtleCrypto that is used; `crypto.subtle` fits. */
export interface SubtleVerify<Key = unknown> {
  digest(algorithm: string, data: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer>;
  importKey(
    format: 'spki' | 'raw',
    data: Uint8Array<ArrayBuffer>,
    algorithm: { name: string; hash?: string; namedCurve?: string },
    extractable: boolean,
    usages: ['verify'],
  ): Promise<Key>;
  verify(
    algorithm: { name: string; hash?: string; saltLength?: number },
    key: Key,
    signature: Uint8Array<ArrayBuffer>,
    data: Uint8Array<ArrayBuffer>,
  ): Promise<boolean>;
}

// WebCrypto refuses views of shared memory; a copy is never one.
const own = (data: Uint8Array): Uint8Array<ArrayBuffer> => copyOf(data);

/** Makes a provider from `crypto.subtle`; keys are remembered with the array that held them. */
export function webVerifyCrypto<Key>(subtle: SubtleVerify<Key>): AsyncVerifyCrypto {
  const keys = new WeakMap<Uint8Array, Promise<Key | null>>();
  const keyOf = (bytes: Uint8Array, load: () => Promise<Key>): Promise<Key | null> => {
    let key = keys.get(bytes);
    if (key === undefined) {
      // Refused by the implementation: no signature verifies under such a key.
      key = load().catch(() => null);
      keys.set(bytes, key);
    }
    return key;
  };
  return {
    async sha256Hex(data) {
      return toHex(new Uint8Array(await subtle.digest('SHA-256', own(data))));
    },
    async verifyRsaPss(spki, message, signature) {
      const key = await keyOf(spki, () =>
        subtle.importKey('spki', own(spki), { name: 'RSA-PSS', hash: 'SHA-384' }, false, ['verify']),
      );
      return (
        key !== null &&
        (await subtle.verify({ name: 'RSA-PSS', saltLength: 48 }, key, own(signature), own(message)))
      );
    },
    async verifyEcdsaP384(point, message, r, s) {
      const key = await keyOf(point, () =>
        subtle.importKey('raw', own(point), { name: 'ECDSA', namedCurve: 'P-384' }, false, ['verify']),
      );
      return (
        key !== null &&
        (await subtle.verify({ name: 'ECDSA', hash: 'SHA-384' }, key, own(concat(r, s)), own(message)))
      );
    },
  };
}
