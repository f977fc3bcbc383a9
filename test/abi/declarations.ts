// SPDX-License-Identifier: Apache-2.0
/** Finds every declaration that `softsnp/abi` exports, so that none is tested or documented by hand. */
import * as abi from '../../src/abi/index.ts';
import type { Codec, FieldTable, Layout } from '../../src/lib/struct.ts';

export interface Word extends Codec<Readonly<Record<string, number>>> {
  readonly bits: NonNullable<Codec<unknown>['bits']>;
  readonly reserved: 'mbz' | 'ignore';
  readonly reservedOnes: bigint;
  readonly reservedZeros: bigint;
  fromWord(word: bigint): Readonly<Record<string, number>>;
  toWord(value: Readonly<Record<string, number>>): bigint;
}

export interface Named<T> {
  readonly name: string;
  readonly value: T;
}

export type CodeTable = Readonly<Record<string, number | bigint>>;

const exported: readonly Named<unknown>[] = Object.entries(abi).map(([name, value]) => ({ name, value }));

const has = (value: unknown, ...keys: readonly string[]): boolean =>
  typeof value === 'object' && value !== null && keys.every((key) => key in value);

/** Every exported layout. */
export const layouts = exported.filter((e): e is Named<Layout<FieldTable>> =>
  has(e.value, 'fields', 'gaps', 'decode'),
);

/** Every exported bit word. */
export const words = exported.filter((e): e is Named<Word> => has(e.value, 'fromWord', 'bits'));

/** Every exported table of names and numbers. */
export const codeTables = exported.filter(
  (e): e is Named<CodeTable> =>
    typeof e.value === 'object' &&
    e.value !== null &&
    Object.keys(e.value).length > 0 &&
    Object.values(e.value).every((v) => typeof v === 'number' || typeof v === 'bigint') &&
    !Array.isArray(e.value) &&
    !ArrayBuffer.isView(e.value),
);

/** Every exported single number. */
export const constants = exported.filter(
  (e): e is Named<number | bigint> => typeof e.value === 'number' || typeof e.value === 'bigint',
);

export interface Leaf {
  /** Byte offset from the start of the outermost layout. */
  readonly offset: number;
  readonly path: string;
  readonly codec: Codec<unknown>;
}

/** The codecs of a layout without those that only contain others, each with where it lies. */
export function leaves(layout: Layout<FieldTable>, base = 0, prefix = ''): Leaf[] {
  return Object.entries(layout.fields).flatMap(([name, [offset, codec]]) => {
    const path = `${prefix}${name}`;
    if (codec.layout === undefined) {
      return [{ offset: base + offset, path, codec }];
    }
    const nested = codec.layout;
    return Array.from({ length: codec.count ?? 1 }, (_, i) =>
      leaves(nested, base + offset + i * nested.size, `${path}${codec.count === undefined ? '' : `[${i}]`}.`),
    ).flat();
  });
}

export interface Gap {
  readonly from: number;
  readonly to: number;
  /** Whether its bytes must be zero. */
  readonly judged: boolean;
}

/** The byte ranges of a layout and of those inside it that no field covers. */
export function gapsOf(layout: Layout<FieldTable>, base = 0): Gap[] {
  const judged = layout.source.gaps !== 'ignore';
  const own = layout.gaps.map(([from, to]) => ({ from: base + from, to: base + to, judged }));
  const nested = Object.values(layout.fields).flatMap(([offset, codec]) => {
    const inner = codec.layout;
    return inner === undefined
      ? []
      : Array.from({ length: codec.count ?? 1 }, (_, i) =>
          gapsOf(inner, base + offset + i * inner.size),
        ).flat();
  });
  return [...own, ...nested];
}
