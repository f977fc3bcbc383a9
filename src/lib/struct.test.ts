// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { array, bits64, bytes, layout, u8, u16le, u32le, u64le } from './struct.ts';

const Inner = layout('Inner', 8, { spec: 'TEST', at: 'inner' }, { a: [0, u16le], b: [4, u32le] });
const Policy = bits64({ minor: [0, 8], smt: [16, 1] }, [17]);
const Outer = layout(
  'Outer',
  0x40,
  { spec: 'TEST', at: 'outer' },
  {
    kind: [0x00, u8],
    policy: [0x08, Policy],
    id: [0x10, bytes(16)],
    inner: [0x20, array(Inner.codec, 2)],
    last: [0x38, u64le],
  },
);

describe('layout', () => {
  const value = {
    kind: 3,
    policy: { minor: 0x1f, smt: 1 },
    id: Uint8Array.from({ length: 16 }, (_, i) => i),
    inner: [
      { a: 1, b: 2 },
      { a: 3, b: 0xffffffff },
    ],
    last: 0x1122334455667788n,
  };

  it('composes what it parses', () => {
    const raw = Outer.encode(value);
    expect(Outer.decode(raw)).toEqual(value);
    expect(Outer.get(raw, 'policy')).toEqual({ minor: 0x1f, smt: 1 });
    expect(raw[0x0a]).toBe(0b11);
  });

  it('finds its gaps and refuses a non-zero byte in each, naming the offset', () => {
    expect(Outer.gaps).toEqual([
      [1, 8],
      [0x30, 0x38],
    ]);
    const raw = Outer.encode(value);
    raw[0x31] = 1;
    expect(() => Outer.decode(raw)).toThrow('Outer[0x31]: reserved: reserved byte 0x31 is 0x1, not zero');
    expect(Outer.tryDecode(raw)).toBeNull();
    expect(Outer.decodeLoose(raw)).toEqual(value);
  });

  it('refuses a reserved-one bit that is clear and gaps inside a nested layout', () => {
    const raw = Outer.encode(value);
    raw[0x0a] = 0;
    raw[0x2a] = 7;
    expect(Outer.violations(raw).map((v) => [v.offset, v.where])).toEqual([
      [0x08, 'policy'],
      [0x2a, 'inner[1].reserved'],
    ]);
  });

  it('never accepts another length, and refuses a declaration that overlaps or overruns', () => {
    expect(() => Outer.decode(new Uint8Array(0x41))).toThrow('65 bytes given');
    expect(() => layout('Bad', 4, { spec: 'TEST', at: '' }, { a: [0, u32le], b: [2, u16le] })).toThrow(
      'overlaps',
    );
    expect(() => layout('Bad', 4, { spec: 'TEST', at: '' }, { a: [2, u32le] })).toThrow('end at');
  });

  it('refuses values that do not fit', () => {
    expect(() => Outer.encode({ kind: 256 })).toThrow('does not fit u8');
    expect(() => Outer.encode({ policy: { minor: 256, smt: 0 } })).toThrow('8 bits');
  });
});

describe('bit fields', () => {
  it('are the bits of the word, in either half and across both', () => {
    const words = [0n, 1n, 0x8000000080000000n, 0x0123456789abcdefn, 0xffffffffffffffffn];
    for (let lo = 0; lo < 64; lo++) {
      for (let count = 1; count <= Math.min(53, 64 - lo); count++) {
        const codec = bits64({ field: [lo, count] });
        for (const word of words) {
          const raw = new Uint8Array(new BigUint64Array([word]).buffer);
          const expected = Number((word >> BigInt(lo)) & ((1n << BigInt(count)) - 1n));
          expect([codec.read(raw, 0).field, codec.fromWord(word).field]).toEqual([expected, expected]);
        }
      }
    }
  });
});
