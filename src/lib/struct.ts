// SPDX-License-Identifier: Apache-2.0
/**
 * One declaration per spec table: parse, compose, in-place access, documentation and tests all derive
 * from it. Offsets are written, never counted; overlap and overrun are refused when the module loads;
 * bytes no field covers must be zero unless the declaration says otherwise.
 */

import { copyOf, readU16, readU32, readU64, toHex, writeU16, writeU32, writeU64 } from './bytes.ts';
import { InputError, invariant } from './errors.ts';

export interface Codec<T> {
  /** Type as the reference pages print it: u32, u8[16], bits64 ... */
  readonly type: string;
  readonly size: number;
  /** Reads without judging; `violations` judges. */
  read(bytes: Uint8Array, at: number): T;
  write(bytes: Uint8Array, at: number, value: T, where: string): void;
  /** Reserved bits and nested gaps that are not as they must be. */
  violations(bytes: Uint8Array, at: number, where: string): readonly Violation[];
  /** A value of all-zero bytes, with reserved-one bits set. */
  zero(): T;
  readonly bits?: BitFields;
  readonly ones?: readonly number[];
  /** Whether unnamed bits are judged. */
  readonly reserved?: 'mbz' | 'ignore';
  readonly layout?: Layout<FieldTable>;
  readonly count?: number;
}

export interface Violation {
  /** Byte offset from the start of the outermost layout. */
  readonly offset: number;
  readonly where: string;
  readonly message: string;
}

/** Bit field name -> [lowest bit, width]. */
export type BitFields = Readonly<Record<string, readonly [lo: number, width: number]>>;

export type Field = readonly [offset: number, codec: Codec<unknown>, note?: string];
export type FieldTable = Readonly<Record<string, Field>>;

type ValueOf<C> = C extends { read(bytes: Uint8Array, at: number): infer T } ? T : never;
export type DecodedFields<F extends FieldTable> = { readonly [K in keyof F]: ValueOf<F[K][1]> };
export type DecodedOf<L> = L extends { decode(bytes: Uint8Array): infer T } ? T : never;

const NO_VIOLATIONS: readonly Violation[] = Object.freeze([]);
/** Of codecs that take every value; layouts pass such fields over. */
const noViolations = (): readonly Violation[] => NO_VIOLATIONS;

function integer(type: string, size: 1 | 2 | 4): Codec<number> {
  const limit = 2 ** (8 * size);
  return {
    type,
    size,
    read: (b, at) => (size === 1 ? b[at]! : size === 2 ? readU16(b, at) : readU32(b, at)),
    write: (b, at, value, where) => {
      if (!Number.isInteger(value) || value < 0 || value >= limit) {
        throw new InputError('LAYOUT_VALUE_OUT_OF_RANGE', `${value} does not fit ${type}`, { where });
      }
      if (size === 1) {
        b[at] = value;
      } else if (size === 2) {
        writeU16(b, at, value);
      } else {
        writeU32(b, at, value);
      }
    },
    violations: noViolations,
    zero: () => 0,
  };
}

export const u8 = integer('u8', 1);
export const u16le = integer('u16', 2);
export const u32le = integer('u32', 4);

export const u64le: Codec<bigint> = {
  type: 'u64',
  size: 8,
  read: readU64,
  write: (b, at, value, where) => {
    if (typeof value !== 'bigint' || value < 0n || value > 0xffffffffffffffffn) {
      throw new InputError('LAYOUT_VALUE_OUT_OF_RANGE', `${value} does not fit u64`, { where });
    }
    writeU64(b, at, value);
  },
  violations: noViolations,
  zero: () => 0n,
};

/** A fixed run of bytes; reads give a fresh copy. */
export function bytes(size: number): Codec<Uint8Array> {
  return {
    type: `u8[${size}]`,
    size,
    read: (b, at) => copyOf(b, at, at + size),
    write: (b, at, value, where) => {
      if (value.length !== size) {
        throw new InputError('LAYOUT_VALUE_OUT_OF_RANGE', `${value.length} bytes given, ${size} wanted`, {
          where,
        });
      }
      b.set(value, at);
    },
    violations: noViolations,
    zero: () => new Uint8Array(size),
  };
}

function zeroViolations(b: Uint8Array, from: number, to: number, where: string): readonly Violation[] {
  for (let i = from; i < to; i++) {
    if (b[i] !== 0) {
      return [{ offset: i, where, message: `reserved byte ${hex(i)} is 0x${b[i]!.toString(16)}, not zero` }];
    }
  }
  return NO_VIOLATIONS;
}

const hex = (n: number): string => `0x${n.toString(16).toUpperCase().padStart(2, '0')}`;

/** Bits of a word of 64 that is given as two of 32; at most 53, so that the number is exact. */
function bitsOf(low: number, high: number, lo: number, count: number): number {
  if (lo >= 32) {
    return (high >>> (lo - 32)) % 2 ** count;
  }
  const below = low >>> lo;
  return lo + count <= 32 ? below % 2 ** count : below + (high % 2 ** (lo + count - 32)) * 2 ** (32 - lo);
}

type Bits<B extends BitFields> = { readonly [K in keyof B]: number };

export interface BitsCodec<T> extends Codec<T> {
  readonly bits: BitFields;
  /** Word with every reserved-one bit and no other. */
  readonly reservedOnes: bigint;
  /** Bits no field names and no reserved-one claims. */
  readonly reservedZeros: bigint;
  fromWord(word: bigint): T;
  toWord(value: T): bigint;
}

function bitWord<B extends BitFields>(
  type: string,
  size: 1 | 2 | 4 | 8,
  bits: B,
  ones: readonly number[],
  reserved: 'mbz' | 'ignore',
): BitsCodec<Bits<B>> {
  const width = 8 * size;
  let taken = 0n;
  for (const [name, [lo, count]] of Object.entries(bits)) {
    invariant(lo >= 0 && count >= 1 && count <= 53 && lo + count <= width, `${name}: bits outside the word`);
    const mask = ((1n << BigInt(count)) - 1n) << BigInt(lo);
    invariant((taken & mask) === 0n, `${name}: bits overlap`);
    taken |= mask;
  }
  let reservedOnes = 0n;
  for (const bit of ones) {
    invariant((taken & (1n << BigInt(bit))) === 0n, `reserved-one bit ${bit} overlaps a field`);
    reservedOnes |= 1n << BigInt(bit);
  }
  const reservedZeros = ((1n << BigInt(width)) - 1n) & ~taken & ~reservedOnes;
  const entries = Object.entries(bits).map(([name, [lo, count]]) => ({ name, count, lo, shift: BigInt(lo) }));

  // A copy of an object that has all the fields is twice as fast as one that gets them one by one.
  const blank = Object.fromEntries(entries.map(({ name }) => [name, 0]));
  // Reports are decoded thousands of times a second: two numbers, because a bigint is made anew for each field.
  const fromHalves = (low: number, high: number): Bits<B> => {
    const out: Record<string, number> = { ...blank };
    for (const { name, count, lo } of entries) {
      out[name] = bitsOf(low, high, lo, count);
    }
    return out as Bits<B>;
  };
  const fromWord = (word: bigint): Bits<B> =>
    fromHalves(Number(BigInt.asUintN(32, word)), Number(BigInt.asUintN(32, word >> 32n)));
  const toWord = (value: Bits<B>, where = type): bigint => {
    let word = reservedOnes;
    for (const { name, count, shift } of entries) {
      const field = value[name]!;
      if (!Number.isInteger(field) || field < 0 || field >= 2 ** count) {
        throw new InputError('LAYOUT_VALUE_OUT_OF_RANGE', `${name} = ${field} does not fit ${count} bits`, {
          where,
        });
      }
      word |= BigInt(field) << shift;
    }
    return word;
  };
  const readWord = (b: Uint8Array, at: number): bigint => {
    switch (size) {
      case 1:
        return BigInt(b[at]!);
      case 2:
        return BigInt(readU16(b, at));
      case 4:
        return BigInt(readU32(b, at));
      case 8:
        return readU64(b, at);
    }
  };
  return {
    type,
    size,
    bits,
    ones,
    reserved,
    reservedOnes,
    reservedZeros,
    fromWord,
    toWord,
    read: (b, at) =>
      size === 8
        ? fromHalves(readU32(b, at), readU32(b, at + 4))
        : fromHalves(size === 4 ? readU32(b, at) : size === 2 ? readU16(b, at) : b[at]!, 0),
    write: (b, at, value, where) => {
      let word = toWord(value, where);
      for (let i = 0; i < size; i++) {
        b[at + i] = Number(word & 0xffn);
        word >>= 8n;
      }
    },
    violations: (b, at, where) => {
      if (reserved === 'ignore') {
        return NO_VIOLATIONS;
      }
      const word = readWord(b, at);
      const wrong = (word & reservedZeros) | (~word & reservedOnes);
      return wrong === 0n
        ? NO_VIOLATIONS
        : [{ offset: at, where, message: `reserved bits 0x${wrong.toString(16)} differ` }];
    },
    zero: () => fromWord(0n),
  };
}

export const bits8 = <B extends BitFields>(
  bits: B,
  ones: readonly number[] = [],
  reserved: 'mbz' | 'ignore' = 'mbz',
) => bitWord('bits8', 1, bits, ones, reserved);
export const bits32 = <B extends BitFields>(
  bits: B,
  ones: readonly number[] = [],
  reserved: 'mbz' | 'ignore' = 'mbz',
) => bitWord('bits32', 4, bits, ones, reserved);
export const bits64 = <B extends BitFields>(
  bits: B,
  ones: readonly number[] = [],
  reserved: 'mbz' | 'ignore' = 'mbz',
) => bitWord('bits64', 8, bits, ones, reserved);

/** `count` elements one after another. */
export function array<T>(element: Codec<T>, count: number): Codec<readonly T[]> {
  return {
    type: `${element.type}[${count}]`,
    size: element.size * count,
    count,
    ...(element.layout === undefined ? {} : { layout: element.layout }),
    read: (b, at) => Array.from({ length: count }, (_, i) => element.read(b, at + i * element.size)),
    write: (b, at, value, where) => {
      if (value.length !== count) {
        throw new InputError('LAYOUT_VALUE_OUT_OF_RANGE', `${value.length} elements given, ${count} wanted`, {
          where,
        });
      }
      value.forEach((item, i) => {
        element.write(b, at + i * element.size, item, `${where}[${i}]`);
      });
    },
    violations: (b, at, where) =>
      Array.from({ length: count }, (_, i) =>
        element.violations(b, at + i * element.size, `${where}[${i}]`),
      ).flat(),
    zero: () => Array.from({ length: count }, () => element.zero()),
  };
}

export interface LayoutSource {
  /** Key of SOURCES in abi/sources.ts. */
  readonly spec: string;
  /** Table, section or structure name inside that source. */
  readonly at: string;
  /**
   * 'mbz' (default): bytes no field covers must be zero. 'ignore': the specification says reserved or
   * unused there, not zero; they are neither judged nor kept.
   */
  readonly gaps?: 'mbz' | 'ignore';
  /** C structure the offsets are checked against, with the field names where they differ. */
  readonly c?: {
    readonly header: string;
    readonly struct: string;
    readonly names?: Readonly<Record<string, string | null>>;
  };
}

export interface Layout<F extends FieldTable> {
  readonly name: string;
  readonly size: number;
  readonly source: LayoutSource;
  readonly fields: F;
  /** Uncovered byte ranges, [from, to). */
  readonly gaps: readonly (readonly [from: number, to: number])[];
  /**
   * Copies the bytes into values.
   *
   * Errors   LAYOUT_LENGTH_MISMATCH; LAYOUT_RESERVED_NOT_ZERO naming the offset
   */
  decode(bytes: Uint8Array): DecodedFields<F>;
  /** The values without judging reserved bytes and bits; the length must still be exact. */
  decodeLoose(bytes: Uint8Array): DecodedFields<F>;
  /** Null when the length or a reserved byte is wrong: for machines that answer with a status. */
  tryDecode(bytes: Uint8Array): DecodedFields<F> | null;
  /** Every reserved byte range and bit field that is not as it must be. */
  violations(bytes: Uint8Array): readonly Violation[];
  /** Fields left out are zero. */
  encode(value: Partial<DecodedFields<F>>): Uint8Array;
  /** Offset of a field. */
  offsetOf(field: keyof F & string): number;
  /** Reads one field in place; `base` is where the structure starts in `bytes`. */
  get<K extends keyof F & string>(bytes: Uint8Array, field: K, base?: number): ValueOf<F[K][1]>;
  /** Writes one field in place. */
  set<K extends keyof F & string>(bytes: Uint8Array, field: K, value: ValueOf<F[K][1]>, base?: number): void;
  /** The same table with further or replaced fields. */
  extend<G extends FieldTable>(name: string, source: LayoutSource, fields: G): Layout<Omit<F, keyof G> & G>;
  /** This layout as a field of another. */
  readonly codec: Codec<DecodedFields<F>>;
}

/**
 * Declares a structure.
 *
 * Errors   BUG when fields overlap, overrun the size or are empty (a wrong declaration never loads)
 */
export function layout<const F extends FieldTable>(
  name: string,
  size: number,
  source: LayoutSource,
  fields: F,
): Layout<F> {
  const entries = Object.entries(fields).sort(([, a], [, b]) => a[0] - b[0]);
  const gaps: [number, number][] = [];
  let end = 0;
  for (const [field, [offset, codec]] of entries) {
    invariant(offset >= end, `${name}.${field} at ${hex(offset)} overlaps the field before it`);
    invariant(codec.size > 0, `${name}.${field} is empty`);
    if (offset > end) {
      gaps.push([end, offset]);
    }
    end = offset + codec.size;
  }
  invariant(end <= size, `${name} has ${size} bytes, its fields end at ${hex(end)}`);
  if (end < size) {
    gaps.push([end, size]);
  }

  const at = (field: string, offset: number): string => `${name}[${hex(offset)}]: ${field}`;
  // Made at the first write: fields are written far more often than a write fails.
  const places = new Map<string, string>();
  const placeOf = (field: string, offset: number): string => {
    let place = places.get(field);
    if (place === undefined) {
      place = at(field, offset);
      places.set(field, place);
    }
    return place;
  };

  const judged = entries.filter(([, [, codec]]) => codec.violations !== noViolations);
  const violationsAt = (b: Uint8Array, base: number, where: string): Violation[] => {
    const found: Violation[] = [];
    for (const [field, [offset, codec]] of judged) {
      found.push(...codec.violations(b, base + offset, `${where}${field}`));
    }
    if (source.gaps !== 'ignore') {
      for (const [from, to] of gaps) {
        found.push(...zeroViolations(b, base + from, base + to, `${where}reserved`));
      }
    }
    return found;
  };

  const readers = entries.map(([field, [offset, codec]]) => ({ field, offset, codec }));
  const blank = Object.fromEntries(entries.map(([field, [, codec]]) => [field, codec.zero()]));
  const readAt = (b: Uint8Array, base: number): DecodedFields<F> => {
    const out: Record<string, unknown> = { ...blank };
    for (const { field, offset, codec } of readers) {
      out[field] = codec.read(b, base + offset);
    }
    return out as DecodedFields<F>;
  };

  const writeAt = (b: Uint8Array, base: number, value: Readonly<Record<string, unknown>>): void => {
    for (const [field, [offset, codec]] of entries) {
      const given = value[field];
      codec.write(b, base + offset, given === undefined ? codec.zero() : given, placeOf(field, offset));
    }
  };

  const checkLength = (b: Uint8Array): void => {
    if (b.length !== size) {
      throw new InputError('LAYOUT_LENGTH_MISMATCH', `${b.length} bytes given, the structure has ${size}`, {
        where: name,
      });
    }
  };

  const self: Layout<F> = {
    name,
    size,
    source,
    fields,
    gaps,
    decode(b) {
      checkLength(b);
      const [first] = violationsAt(b, 0, '');
      if (first !== undefined) {
        throw new InputError('LAYOUT_RESERVED_NOT_ZERO', first.message, {
          where: at(first.where, first.offset),
        });
      }
      return readAt(b, 0);
    },
    decodeLoose(b) {
      checkLength(b);
      return readAt(b, 0);
    },
    tryDecode(b) {
      return b.length === size && violationsAt(b, 0, '').length === 0 ? readAt(b, 0) : null;
    },
    violations(b) {
      checkLength(b);
      return violationsAt(b, 0, '');
    },
    encode(value) {
      const out = new Uint8Array(size);
      writeAt(out, 0, value);
      return out;
    },
    offsetOf: (field) => fields[field]![0],
    get: (b, field, base = 0) => fields[field]![1].read(b, base + fields[field]![0]) as never,
    set: (b, field, value, base = 0) => {
      const [offset, codec] = fields[field]!;
      codec.write(b, base + offset, value, placeOf(field, offset));
    },
    extend: (newName, newSource, more) => layout(newName, size, newSource, { ...fields, ...more }) as never,
    codec: {
      type: name,
      size,
      get layout(): Layout<FieldTable> {
        return self as unknown as Layout<FieldTable>;
      },
      read: readAt,
      write: (b, base, value, where) => {
        try {
          writeAt(b, base, value as Record<string, unknown>);
        } catch (error) {
          throw error instanceof InputError
            ? new InputError(error.code, error.message, { where, cause: error })
            : error;
        }
      },
      violations: (b, base, where) => violationsAt(b, base, `${where}.`),
      zero: () => Object.fromEntries(entries.map(([field, [, codec]]) => [field, codec.zero()])) as never,
    },
  };
  return self;
}

/** Short text of a decoded value, for listings and messages. */
export function showValue(value: unknown): string {
  if (value instanceof Uint8Array) {
    return toHex(value);
  }
  if (typeof value === 'bigint') {
    return `0x${value.toString(16)}`;
  }
  return typeof value === 'object' && value !== null
    ? JSON.stringify(value, (_, v) =>
        typeof v === 'bigint' ? `0x${v.toString(16)}` : v instanceof Uint8Array ? toHex(v) : v,
      )
    : String(value);
}
