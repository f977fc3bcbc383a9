// SPDX-License-Identifier: Apache-2.0
/** Byte-string helpers that work in Node, browsers and workers alike. */
import { InputError } from './errors.ts';

const HEX: readonly string[] = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'));

/** Lower-case hexadecimal digits of the bytes. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    text += HEX[byte];
  }
  return text;
}

/**
 * Bytes of a hexadecimal text, an optional leading 0x allowed.
 *
 * Errors   HEX_INVALID for an odd number of digits or another character
 */
export function fromHex(text: string, where = 'hex'): Uint8Array {
  const digits = text.startsWith('0x') || text.startsWith('0X') ? text.slice(2) : text;
  if (digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) {
    throw new InputError(
      'HEX_INVALID',
      `not an even number of hexadecimal digits: ${JSON.stringify(text.slice(0, 80))}`,
      {
        where,
      },
    );
  }
  const out = new Uint8Array(digits.length / 2);
  for (let i = 0; i < out.length; i++) {
    out[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  }
  return out;
}

/**
 * Bytes of base64 in the standard alphabet; white space is skipped and the padding may be missing.
 *
 * Returns  null when it is none
 */
export function fromBase64(text: string): Uint8Array | null {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    return null;
  }
  // Uint8Array.from would gather the characters in a list first, thirty times the memory of the bytes.
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) {
    out[i] = binary.charCodeAt(i);
  }
  return out;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) {
    size += part.length;
  }
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** A copy of some of the bytes, also of a Buffer, which is a Uint8Array as well and whose `slice` gives a view. */
export function copyOf(bytes: Uint8Array, from = 0, to = bytes.length): Uint8Array<ArrayBuffer> {
  // The faster way where it is a copy: a report is some twenty of these.
  return bytes.constructor === Uint8Array ? bytes.slice(from, to) : new Uint8Array(bytes.subarray(from, to));
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) {
    return false;
  }
  let difference = 0;
  for (let i = 0; i < a.length; i++) {
    difference |= a[i]! ^ b[i]!;
  }
  return difference === 0;
}

/** Whether bytes begin with others; makes no view, which for short arrays costs more than the comparison. */
export function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length; i++) {
    if (bytes[i] !== prefix[i]) {
      return false;
    }
  }
  return true;
}

/** Whether all bytes, or those from an offset on, are zero. */
export function isZero(bytes: Uint8Array, from = 0): boolean {
  for (let i = from; i < bytes.length; i++) {
    if (bytes[i] !== 0) {
      return false;
    }
  }
  return true;
}

/** The bytes, or the first `size` of them, last first. */
export function reversed(bytes: Uint8Array, size = bytes.length): Uint8Array {
  const out = new Uint8Array(size);
  for (let i = 0; i < size; i++) {
    out[i] = bytes[size - 1 - i]!;
  }
  return out;
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Copies part of one byte string into another; short parts without the view a `set` would need. */
export function copyBytes(
  out: Uint8Array,
  start: number,
  from: Uint8Array,
  at: number,
  length: number,
): void {
  if (at === 0 && length === from.length) {
    out.set(from, start);
  } else if (length > 64) {
    out.set(from.subarray(at, at + length), start);
  } else {
    for (let i = 0; i < length; i++) {
      out[start + i] = from[at + i]!;
    }
  }
}

export function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

export function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

// 64-bit fields pass through these eight bytes: arithmetic on bigints would make several for each field.
const QUAD = new DataView(new ArrayBuffer(8));

export function readU64(bytes: Uint8Array, at: number): bigint {
  QUAD.setUint32(0, readU32(bytes, at), true);
  QUAD.setUint32(4, readU32(bytes, at + 4), true);
  return QUAD.getBigUint64(0, true);
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = (value >>> 8) & 0xff;
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = (value >>> 8) & 0xff;
  bytes[at + 2] = (value >>> 16) & 0xff;
  bytes[at + 3] = (value >>> 24) & 0xff;
}

export function writeU64(bytes: Uint8Array, at: number, value: bigint): void {
  QUAD.setBigUint64(0, value, true);
  writeU32(bytes, at, QUAD.getUint32(0, true));
  writeU32(bytes, at + 4, QUAD.getUint32(4, true));
}
