// SPDX-License-Identifier: Apache-2.0
/** The DER reader against asn1js on genuine certificates, and against what is BER but not DER. */
import { type Constructed, fromBER } from 'asn1js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromHex } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import { type DerNode, decodeDer } from '../../src/verify/der.ts';
import { decodeCertificate, decodeRevocationList } from '../../src/verify/x509.ts';
import { forge, NUM_RUNS } from './soft.ts';
import { HAVE_VECTORS, INDEX, vector } from './vectors.ts';

const limits = { what: 'Test', maxBytes: 1 << 16, maxNodes: 1 << 12 };
const read = (hexText: string): DerNode => decodeDer(fromHex(hexText.replaceAll(' ', '')), limits);

interface Shape {
  readonly tag: number;
  readonly length: number;
  readonly children: readonly Shape[];
}

const ours = ({ tag, start, end, children }: DerNode): Shape => ({
  tag,
  length: end - start,
  children: children.map(ours),
});

function theirs(node: ReturnType<typeof fromBER>['result']): Shape {
  const { tagClass, tagNumber, isConstructed } = node.idBlock;
  const tag = ((tagClass - 1) << 6) | (isConstructed ? 0x20 : 0) | tagNumber;
  const inner = isConstructed ? (node as Constructed).valueBlock.value : [];
  return { tag, length: node.blockLength, children: inner.map((child) => theirs(child as never)) };
}

describe.skipIf(!HAVE_VECTORS)('every genuine certificate and revocation list', () => {
  const files = INDEX.map(({ file }) => file).filter((file) => file.endsWith('.der'));

  it('reads into the tree that asn1js reads', () => {
    expect(files.length).toBeGreaterThan(60);
    for (const file of files) {
      const der = vector(file);
      expect(ours(decodeDer(der, limits)), file).toEqual(theirs(fromBER(der).result));
    }
  });

  it('decodes', () => {
    for (const file of files) {
      const decode = file.includes('/crl-') ? decodeRevocationList : decodeCertificate;
      expect(() => decode(vector(file)), file).not.toThrow();
    }
  });
});

describe('what is not DER', () => {
  const wrong: readonly (readonly [string, string])[] = [
    ['no bytes', ''],
    ['a header alone', '30'],
    ['an indefinite length', '3080 020100 0000'],
    ['a length in the long form that fits the short one', '3081 03 020100'],
    ['a length with a leading zero', '3082 0003 020100'],
    ['a length past the end', '3004 020100'],
    ['a length of four bytes', '3084 00000003 020100'],
    ['trailing bytes', '020100 00'],
    ['a child that runs past its parent', '3003 020200'],
    ['a constructed INTEGER', '2203 020100'],
    ['a primitive SEQUENCE', '1003 020100'],
    ['a tag number above 30', '1f2100'],
    ['BOOLEAN 01', '010101'],
    ['BOOLEAN of two bytes', '0102ffff'],
    ['INTEGER without content', '0200'],
    ['INTEGER with a leading zero', '02020001'],
    ['INTEGER with a leading FF', '0202ff80'],
    ['NULL with content', '050100'],
    ['OBJECT IDENTIFIER without content', '0600'],
    ['OBJECT IDENTIFIER cut off', '060180'],
    ['OBJECT IDENTIFIER with a padded arc', '0603 558001'],
    ['OBJECT IDENTIFIER with an endless arc', '0608 55ffffffffffff7f'],
    ['BIT STRING without content', '0300'],
    ['BIT STRING with 8 unused bits', '03020800'],
    ['BIT STRING with unused bits set', '03020103'],
    ['BIT STRING of unused bits only', '030101'],
    ['a SET out of order', '3106 020102 020101'],
    ['UTF8String that is none', '0c01ff'],
    ['a NUL in a string', '0c03 610062'],
    ['PrintableString with @', '130140'],
    ['IA5String with ü', '1601fc'],
    ['BMPString', '1e020041'],
    ['UTCTime without seconds', '170b 32353031303130303030 5a'],
    ['UTCTime with an offset', '1711 3235303130313030303030302b30313030'],
    ['UTCTime of 31 February', '170d 323530323331303030303030 5a'],
    ['UTCTime at 24 hours', '170d 323530313031323430303030 5a'],
    ['GeneralizedTime before 2050', '180f 3230343930313031303030303030 5a'],
  ];
  it.each(wrong)('is refused: %s', (_, bytes) => {
    expect(() => read(bytes)).toThrow(InputError);
  });

  const right: readonly (readonly [string, string])[] = [
    ['INTEGER 128', '02020080'],
    ['INTEGER -128', '020180'],
    ['a SET in order', '3106 020101 020102'],
    ['UTF8String with ü', '0c02c3bc'],
    ['GeneralizedTime of 2050', '180f 3230353030313031303030303030 5a'],
    ['a length of 128', `048180${'00'.repeat(128)}`],
  ];
  it.each(right)('is read: %s', (_, bytes) => {
    expect(() => read(bytes)).not.toThrow();
  });

  it('is refused beyond 16 levels and beyond the limits of size and number', () => {
    const nested = (levels: number): string => {
      let text = '';
      for (let i = 0; i < levels; i++) {
        text = `30${(text.length / 2).toString(16).padStart(2, '0')}${text}`;
      }
      return text;
    };
    expect(() => read(nested(17))).not.toThrow();
    expect(() => read(nested(18))).toThrow(/nested deeper/);
    expect(() => decodeDer(new Uint8Array(9), { ...limits, maxBytes: 8 })).toThrow(/limit/);
    for (const decode of [decodeCertificate, decodeRevocationList]) {
      // A length and nothing else: whoever copied the bytes before looking at it would fail otherwise.
      const huge = Object.create(Uint8Array.prototype, { length: { value: 2 ** 40 } }) as Uint8Array;
      expect(() => decode(huge)).toThrow(/1099511627776 bytes exceed the limit/);
    }
    expect(() => decodeDer(fromHex('3006050005000500'), { ...limits, maxNodes: 3 })).toThrow(/more than 3/);
  });
});

describe('hostile bytes', () => {
  const leaf = forge('Milan').leaf();
  const crl = forge('Milan').crl();

  it('never make the decoders throw anything but InputError', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(leaf, crl),
        fc.array(fc.tuple(fc.nat(crl.length), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.option(fc.nat(leaf.length), { nil: undefined }),
        (base, changes, cut) => {
          const bytes = base.slice(0, cut);
          for (const [at, value] of changes) {
            bytes[at % bytes.length] = value;
          }
          for (const decode of [decodeCertificate, decodeRevocationList]) {
            try {
              decode(bytes);
            } catch (error) {
              expect(error).toBeInstanceOf(InputError);
            }
          }
        },
      ),
      { numRuns: NUM_RUNS },
    );
  });

  it('take time in proportion to their number', () => {
    // 65,535 bytes of empty sequences, and of nested ones, are refused or read within some milliseconds.
    for (const unit of ['3000', '3002', '0500']) {
      const bytes = fromHex(`3082fffb${unit.repeat(32765)}`.slice(0, 2 * 65535));
      const before = performance.now();
      try {
        decodeDer(bytes, { ...limits, maxNodes: 1 << 20 });
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
      expect(performance.now() - before).toBeLessThan(250);
    }
  });
});
