// SPDX-License-Identifier: Apache-2.0
/** Raw DER, and what is none: most of what is written here a library would refuse to write. */
import { concat, utf8 } from '../../lib/bytes.ts';

/** One element of DER with the shortest length. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concat(...parts);
  const { length } = content;
  const digits: number[] = [];
  for (let left = length; length >= 0x80 && left > 0; left = Math.floor(left / 256)) {
    digits.unshift(left & 0xff);
  }
  const head = length < 0x80 ? [tag, length] : [tag, 0x80 | digits.length, ...digits];
  return concat(Uint8Array.from(head), content);
}

const oidContent = (dotted: string): Uint8Array => {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) {
      digits.unshift((left & 0x7f) | 0x80);
    }
    return digits;
  });
  return Uint8Array.from(bytes);
};

export const oid = (dotted: string): Uint8Array => tlv(0x06, oidContent(dotted));

export const int = (value: number): Uint8Array => {
  const bytes = [value & 0xff];
  for (let left = value >>> 8; left > 0; left >>>= 8) {
    bytes.unshift(left & 0xff);
  }
  return tlv(0x02, Uint8Array.from(bytes[0]! >= 0x80 ? [0, ...bytes] : bytes));
};

/** Empty sequences one inside the other. */
export function nested(levels: number): Uint8Array {
  let bytes: Uint8Array = new Uint8Array(0);
  for (let i = 0; i < levels; i++) {
    bytes = tlv(0x30, bytes);
  }
  return bytes;
}

/** A name in AMD's form, its common name of another string type where asked. */
export function name(commonName: string | Uint8Array, stringTag = 0x0c): Uint8Array {
  const attribute = (type: number, tag: number, text: Uint8Array): Uint8Array =>
    tlv(0x31, tlv(0x30, tlv(0x06, Uint8Array.of(0x55, 4, type)), tlv(tag, text)));
  return tlv(
    0x30,
    attribute(11, 0x0c, utf8('Engineering')),
    attribute(6, 0x13, utf8('US')),
    attribute(7, 0x0c, utf8('Santa Clara')),
    attribute(8, 0x0c, utf8('CA')),
    attribute(10, 0x0c, utf8('Advanced Micro Devices')),
    attribute(3, stringTag, typeof commonName === 'string' ? utf8(commonName) : commonName),
  );
}

export const utcTime = (ms: number): Uint8Array =>
  tlv(0x17, utf8(new Date(ms).toISOString().replace(/[-:T]/g, '').slice(2, 14).concat('Z')));

export const validity = (fromMs: number, toMs: number): Uint8Array =>
  tlv(0x30, utcTime(fromMs), utcTime(toMs));
