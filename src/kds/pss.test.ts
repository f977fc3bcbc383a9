// SPDX-License-Identifier: Apache-2.0
import { constants, createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodePss, signPss } from './pss.ts';

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const publicKey = createPublicKey(privateKey);
const bytes = (min: number, max: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: min, maxLength: max });

describe('RSASSA-PSS with a given salt', () => {
  it('is a signature with SHA-384 and a salt of 48 bytes to node:crypto', () => {
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    fc.assert(
      fc.property(bytes(0, 300), bytes(48, 48), (message, salt) => {
        const signature = signPss(privateKey, message, salt);
        const key = { key: publicKey, padding, saltLength: 48 };
        expect(verify('sha384', message, key, signature)).toBe(true);
        expect(signPss(privateKey, message, salt)).toEqual(signature);
      }),
      { numRuns: 20 },
    );
  });

  it('encodes to one bit less than the modulus, with the trailer byte', () => {
    fc.assert(
      fc.property(bytes(0, 64), bytes(48, 48), (message, salt) => {
        const encoded = encodePss(message, salt, 512);
        expect(encoded.length).toBe(512);
        expect(encoded[0]! & 0x80).toBe(0);
        expect(encoded.at(-1)).toBe(0xbc);
      }),
      { numRuns: 50 },
    );
  });

  it('takes no salt of another length', () => {
    expect(() => encodePss(new Uint8Array(1), new Uint8Array(32), 512)).toThrow('48 bytes');
  });
});
