// SPDX-License-Identifier: Apache-2.0
/** Cryptography in JavaScript alone beside node:crypto: the same answers to good, damaged and impossible input. */
import { constants, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { rsa2048, spkiOf } from '../../src/cli/vectors/forge.ts';
import { concat, fromHex } from '../../src/lib/bytes.ts';
import { jsVerifyCrypto } from '../../src/verify/js.ts';
import { crypto, flipped, forge } from './soft.ts';

const js = jsVerifyCrypto();
const milan = forge('Milan');
const message = new TextEncoder().encode('a message');

describe('jsVerifyCrypto', () => {
  it('hashes as node:crypto does', () => {
    for (const size of [0, 1, 55, 56, 64, 1000]) {
      const data = milan.bytes(size);
      expect(js.sha256Hex(data)).toBe(crypto.sha256Hex(data));
    }
  });

  it('takes an RSA-PSS signature of AMD’s kind and no other', () => {
    const key = milan.authorityKey('ASK');
    const spki = spkiOf(key);
    const signed = (hash: string, saltLength: number): Uint8Array =>
      sign(hash, message, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength });
    const good = signed('sha384', 48);
    expect(js.verifyRsaPss(spki, message, good)).toBe(true);
    for (const wrong of [
      signed('sha384', 32),
      signed('sha256', 48),
      sign('sha384', message, { key, padding: constants.RSA_PKCS1_PADDING }),
      ...[0, 7, 2048, 4095].map((bit) => flipped(good, bit)),
      good.subarray(1),
      concat(good, Uint8Array.of(0)),
      new Uint8Array(512),
      new Uint8Array(512).fill(0xff),
      new Uint8Array(0),
    ]) {
      expect(js.verifyRsaPss(spki, message, wrong)).toBe(false);
      expect(crypto.verifyRsaPss(spki, message, wrong)).toBe(false);
    }
    expect(js.verifyRsaPss(spki, message.subarray(1), good)).toBe(false);
  });

  it('refuses an RSA key that is none of 4096 bits with exponent 65537', () => {
    const key = rsa2048();
    const spki = spkiOf(key);
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    const signature = sign('sha384', message, { key, padding, saltLength: 48 });
    expect(js.verifyRsaPss(spki, message, signature)).toBe(false);
    expect(js.verifyRsaPss(new Uint8Array(0), message, signature)).toBe(false);
  });

  it('takes an ECDSA signature, its twin with n - s, and no other', () => {
    const key = milan.key();
    const { r, s } = key.sign(message);
    const n = BigInt(
      '0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973',
    );
    const twin = fromHex((n - BigInt(`0x${Buffer.from(s).toString('hex')}`)).toString(16).padStart(96, '0'));
    const zero = new Uint8Array(48);
    const above = new Uint8Array(48).fill(0xff);
    const point = key.publicPoint;
    expect(js.verifyEcdsaP384(point, message, r, s)).toBe(true);
    expect(js.verifyEcdsaP384(point, message, r, twin)).toBe(true);
    for (const [badR, badS] of [
      [s, r],
      [zero, s],
      [r, zero],
      [above, s],
      [r, above],
      [flipped(r, 0), s],
    ] as const) {
      expect(js.verifyEcdsaP384(point, message, badR, badS)).toBe(false);
    }
    const compressed = concat(Uint8Array.of(2 + (point[96]! & 1)), point.subarray(1, 49));
    for (const bad of [flipped(point, 775), new Uint8Array(97), compressed, new Uint8Array(0)]) {
      expect(js.verifyEcdsaP384(bad, message, r, s)).toBe(false);
    }
  });
});
