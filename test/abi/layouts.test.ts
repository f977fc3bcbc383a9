// SPDX-License-Identifier: Apache-2.0
/** Properties of every declaration, generated from the declarations. */
import { readdirSync, readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SOURCES } from '../../src/abi/sources.ts';
import { InputError } from '../../src/lib/errors.ts';
import type { Codec, FieldTable, Layout } from '../../src/lib/struct.ts';
import { gapsOf, layouts, leaves, type Word, words } from './declarations.ts';

const RUNS = { numRuns: Number(process.env['FC_NUM_RUNS'] ?? 12) };

/** Bytes of a given length; long ones grow from a seed, since drawing thousands of numbers is slow. */
const arbBytes = (size: number): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.constantFrom(new Uint8Array(size), new Uint8Array(size).fill(0xff)),
    size <= 64
      ? fc.uint8Array({ minLength: size, maxLength: size })
      : fc.integer({ min: 1, max: 0x7fffffff }).map((seed) => {
          let state = seed;
          return Uint8Array.from({ length: size }, () => {
            state = (Math.imul(state, 1103515245) + 12345) >>> 0;
            return state >>> 24;
          });
        }),
  );

/** Any value the codec can hold: what it reads from any bytes. */
const arbValue = (codec: Codec<unknown>): fc.Arbitrary<unknown> =>
  arbBytes(codec.size).map((raw) => codec.read(raw, 0));

const arbRecord = (layout: Layout<FieldTable>): fc.Arbitrary<Record<string, unknown>> =>
  fc.record(
    Object.fromEntries(Object.entries(layout.fields).map(([name, [, codec]]) => [name, arbValue(codec)])),
  );

/** The code and text of what `act` throws. */
function refusal(act: () => unknown): { code: string; message: string } {
  try {
    act();
  } catch (error) {
    if (error instanceof InputError) {
      return { code: error.code, message: error.message };
    }
    throw error;
  }
  return { code: 'nothing thrown', message: '' };
}

const hex = (n: number): string => `0x${n.toString(16).toUpperCase().padStart(2, '0')}`;

describe('the declarations', () => {
  it('are all reachable from softsnp/abi', () => {
    const folder = new URL('../../src/abi/', import.meta.url);
    const index = readFileSync(new URL('index.ts', folder), 'utf8');
    const files = readdirSync(folder).filter(
      (f) => f.endsWith('.ts') && f !== 'index.ts' && !f.endsWith('.test.ts'),
    );
    const missing = files.filter((file) => !index.includes(`export * from './${file}';`));
    expect(missing).toEqual([]);
    expect(layouts.length).toBeGreaterThan(90);
    expect(words.length).toBeGreaterThan(20);
  });

  it('are exported under the name they carry', () => {
    expect(layouts.filter(({ name, value }) => name !== value.name).map(({ name }) => name)).toEqual([]);
  });

  it('cite a source of the bibliography', () => {
    expect(layouts.filter(({ value }) => !(value.source.spec in SOURCES)).map(({ name }) => name)).toEqual(
      [],
    );
  });
});

describe.each(layouts)('$name', ({ value: layout }) => {
  const zero = layout.encode({});

  it('encodes and decodes every value of its fields', () => {
    fc.assert(
      fc.property(arbRecord(layout), (value) => {
        const bytes = layout.encode(value as never);
        expect(bytes.length).toBe(layout.size);
        expect(isDeepStrictEqual(layout.decode(bytes), { ...value })).toBe(true);
        expect(isDeepStrictEqual(layout.tryDecode(bytes), layout.decodeLoose(bytes))).toBe(true);
        expect(isDeepStrictEqual(layout.encode(layout.decode(bytes)), bytes)).toBe(true);
      }),
      RUNS,
    );
  });

  it('reads and writes each field in place and nothing beside it', () => {
    for (const [name, [offset, codec]] of Object.entries(layout.fields)) {
      fc.assert(
        fc.property(arbValue(codec), (value) => {
          const base = 8;
          const page = new Uint8Array(layout.size + 2 * base).fill(0xa5);
          layout.set(page, name, value as never, base);
          expect(isDeepStrictEqual(layout.get(page, name, base), value)).toBe(true);
          page.fill(0xa5, base + offset, base + offset + codec.size);
          expect(page.every((byte) => byte === 0xa5) || codec.type.startsWith('mbz')).toBe(true);
        }),
        { numRuns: 2 },
      );
    }
  });

  it('refuses each byte that must be zero, naming its offset, and ignores the others between fields', () => {
    const wrong: string[] = [];
    for (const { from, to, judged } of gapsOf(layout)) {
      for (let offset = from; offset < to; offset++) {
        const bytes = zero.slice();
        bytes[offset] = 1 << (offset & 7);
        const [first, ...more] = layout.violations(bytes);
        if (judged ? first?.offset !== offset || more.length > 0 : first !== undefined) {
          wrong.push(hex(offset));
        }
      }
      const bytes = zero.slice();
      bytes[to - 1] = 0x80;
      const { code, message } = refusal(() => layout.decode(bytes));
      if (judged ? code !== 'LAYOUT_RESERVED_NOT_ZERO' || !message.includes(hex(to - 1)) : message !== '') {
        wrong.push(`decode at ${hex(to - 1)}: ${code} ${message}`);
      }
      if ((layout.tryDecode(bytes) === null) !== judged) {
        wrong.push(`tryDecode at ${hex(to - 1)}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('refuses each reserved bit of its bit words', () => {
    for (const { offset, codec, path } of leaves(layout)) {
      if (codec.bits === undefined) {
        continue;
      }
      const word = codec as Word;
      for (let bit = 0; bit < 8 * word.size; bit++) {
        const mask = 1n << BigInt(bit);
        const reserved = ((word.reservedZeros | word.reservedOnes) & mask) !== 0n;
        const bytes = zero.slice();
        bytes[offset + (bit >> 3)]! ^= 1 << (bit & 7);
        expect(layout.tryDecode(bytes) === null, `${path} bit ${bit}`).toBe(
          reserved && word.reserved === 'mbz',
        );
      }
    }
  });

  it('refuses every other length', () => {
    for (const length of [0, layout.size - 1, layout.size + 1, 2 * layout.size]) {
      const bytes = new Uint8Array(length);
      expect(refusal(() => layout.decode(bytes)).code).toBe('LAYOUT_LENGTH_MISMATCH');
      expect(refusal(() => layout.decodeLoose(bytes)).code).toBe('LAYOUT_LENGTH_MISMATCH');
      expect(refusal(() => layout.violations(bytes)).code).toBe('LAYOUT_LENGTH_MISMATCH');
      expect(layout.tryDecode(bytes)).toBe(null);
    }
  });
});

describe.each(words)('$name', ({ value: word }) => {
  it('converts every value of its fields to a word and back', () => {
    fc.assert(
      fc.property(arbValue(word), (value) => {
        const fields = value as Readonly<Record<string, number>>;
        const asWord = word.toWord(fields);
        expect(word.fromWord(asWord)).toEqual(fields);
        expect(asWord & word.reservedOnes).toBe(word.reservedOnes);
        expect(asWord & word.reservedZeros).toBe(0n);
      }),
      RUNS,
    );
  });

  it('judges each unnamed bit as declared', () => {
    const zero = new Uint8Array(word.size);
    word.write(zero, 0, word.zero(), 'zero');
    for (let bit = 0; bit < 8 * word.size; bit++) {
      const bytes = zero.slice();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      const reserved = ((word.reservedZeros | word.reservedOnes) & (1n << BigInt(bit))) !== 0n;
      expect(word.violations(bytes, 0, '').length > 0, `bit ${bit}`).toBe(
        reserved && word.reserved === 'mbz',
      );
    }
  });

  it('refuses a field value that does not fit', () => {
    for (const [name, [, width]] of Object.entries(word.bits)) {
      const value = { ...word.zero(), [name]: 2 ** width };
      expect(refusal(() => word.toWord(value)).code).toBe('LAYOUT_VALUE_OUT_OF_RANGE');
    }
  });
});
