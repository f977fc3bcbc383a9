// SPDX-License-Identifier: Apache-2.0
/** Fast numbers and mutations that follow from a seed: fast-check draws better ones, a hundred times slower. */

/** A whole number below `limit`. */
export type Draw = (limit: number) => number;

/** A stream of xorshift32; the same seed gives the same numbers. */
export function drawOf(seed: number): Draw {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

/** Bytes and numbers at which parsers have gone wrong. */
const BYTES = [0, 1, 0x02, 0x04, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0xa0, 0xff] as const;
const WORDS = [0, 1, 23, 24, 48, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff] as const;

/** A copy with one to four changes: bytes, words, ranges copied, taken out or repeated, an end cut off or added. */
export function mutated(base: Uint8Array, draw: Draw): Uint8Array {
  let bytes: Uint8Array = base.slice();
  for (let left = 1 + draw(4); left > 0; left--) {
    bytes = MUTATIONS[draw(MUTATIONS.length)]!(bytes, draw, draw(Math.max(1, bytes.length)));
  }
  return bytes;
}

type Mutation = (bytes: Uint8Array, draw: Draw, at: number) => Uint8Array;

const MUTATIONS: readonly Mutation[] = [
  (bytes, draw, at) => withByte(bytes, at, draw(256)),
  (bytes, draw, at) => withByte(bytes, at, (bytes[at] ?? 0) ^ (1 << draw(8))),
  (bytes, draw, at) => withByte(bytes, at, BYTES[draw(BYTES.length)]!),
  (bytes, draw, at) => {
    const word = WORDS[draw(WORDS.length)]!;
    return [0, 8, 16, 24].reduce((out, shift, i) => withByte(out, at + i, (word >>> shift) & 0xff), bytes);
  },
  (bytes, draw, at) => bytes.copyWithin(at, draw(Math.max(1, bytes.length)), draw(bytes.length + 1)),
  (bytes, draw, at) => joined(bytes.subarray(0, at), bytes.subarray(at + draw(16))),
  (bytes, draw, at) => joined(bytes.subarray(0, at + draw(16)), bytes.subarray(at)),
  // The rarer ones last: half of all cases keep their length.
  (bytes, draw, at) => (draw(4) === 0 ? bytes.slice(0, at) : bytes),
  (bytes, draw) => (draw(4) === 0 ? joined(bytes, new Uint8Array(1 + draw(32)).fill(draw(256))) : bytes),
];

function withByte(bytes: Uint8Array, at: number, value: number): Uint8Array {
  if (at < bytes.length) {
    bytes[at] = value;
  }
  return bytes;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
