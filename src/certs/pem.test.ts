// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat } from '../lib/bytes.ts';
import { certificatesOf, fromPem, isOneDerSequence, toPem } from './pem.ts';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('PEM', () => {
  it('has lines of 64 characters and comes back, with text around the blocks', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 }), { maxLength: 4 }), (blocks) => {
        const text = blocks.map((block) => `subject=x\n${toPem(block)}`).join('\n');
        expect(text.split('\n').every((line) => line.length <= 64)).toBe(true);
        expect(fromPem(text)).toEqual(blocks);
        expect(fromPem(text.replaceAll('\n', '\r\n'))).toEqual(blocks);
      }),
    );
  });

  it('gives the blocks of one label only', () => {
    const text = toPem(Uint8Array.of(1), 'X509 CRL') + toPem(Uint8Array.of(2));
    expect(fromPem(text)).toEqual([Uint8Array.of(2)]);
    expect(fromPem(text, 'X509 CRL')).toEqual([Uint8Array.of(1)]);
  });

  it('without an end or with other characters is CERTIFICATE_INVALID', () => {
    expect(() => fromPem('-----BEGIN CERTIFICATE-----\nAAAA\n')).toThrow('has no end');
    expect(() => fromPem('-----BEGIN CERTIFICATE-----\nA*AA\n-----END CERTIFICATE-----')).toThrow(
      'not base64',
    );
  });
});

describe('a certificate', () => {
  const der = Uint8Array.of(0x30, 3, 2, 1, 5);

  it('is taken in DER or PEM, several at once in PEM', () => {
    expect(certificatesOf(der)).toEqual([der]);
    expect(certificatesOf(bytesOf(toPem(der) + toPem(der)))).toEqual([der, der]);
  });

  it('is at most one of 16 and of 64 KiB in all', () => {
    expect(certificatesOf(bytesOf(toPem(der).repeat(16)))).toHaveLength(16);
    expect(() => certificatesOf(bytesOf(toPem(der).repeat(17)))).toThrow('17 PEM blocks, more than 16');
    const large = concat(Uint8Array.of(0x30, 0x83, 1, 0, 0), new Uint8Array(1 << 16));
    expect(isOneDerSequence(large)).toBe(true);
    expect(() => certificatesOf(large)).toThrow('no certificates have more than 65536');
  });

  it('is a copy, also of a Buffer', () => {
    const buffer = Buffer.from(der);
    const [copy] = certificatesOf(buffer);
    buffer.fill(0);
    expect(copy).toEqual(der);
  });

  it.each([
    ['nothing', new Uint8Array(0)],
    ['text', bytesOf('hello')],
    ['DER with a byte after it', Uint8Array.of(...der, 0)],
    ['DER cut short', der.subarray(0, 4)],
    ['PEM of something else', bytesOf(toPem(Uint8Array.of(4, 0)))],
  ])('is not %s', (_, data) => {
    expect(() => certificatesOf(data)).toThrow();
  });
});

describe('one DER SEQUENCE', () => {
  const content = (size: number): number[] => new Array<number>(size).fill(0);

  it.each([
    ['short length', [0x30, 2, 0, 0], true],
    ['one length byte', [0x30, 0x81, 128, ...content(128)], true],
    ['two length bytes', [0x30, 0x82, 1, 0, ...content(256)], true],
    ['one length byte too many', [0x30, 0x81, 127, ...content(127)], false],
    ['a leading zero in the length', [0x30, 0x82, 0, 200, ...content(200)], false],
    ['indefinite length', [0x30, 0x80, 0, 0], false],
    ['a length of 2^32 - 1', [0x30, 0x84, 255, 255, 255, 255], false],
    ['five length bytes', [0x30, 0x85, 1, 0, 0, 0, 0], false],
    ['another tag', [0x31, 0], false],
    ['no length', [0x30], false],
  ] as const)('with %s: %s', (_, bytes, expected) => {
    expect(isOneDerSequence(Uint8Array.from(bytes))).toBe(expected);
  });
});
