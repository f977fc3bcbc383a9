// SPDX-License-Identifier: Apache-2.0
/**
 * A strict DER reader: one bounded pass over the bytes received, nothing repaired, nothing re-encoded.
 *
 * Why not asn1js, which the rest of softsnp writes ASN.1 with: it reads BER. It takes indefinite and
 * non-minimal lengths, padded integers, BOOLEAN 01 and trailing bytes without a word, and one AMD
 * certificate costs it 0.65 ms, nine times the RSA signature check that follows. A verifier must refuse
 * the first and cannot afford the second. The tests hold this reader against asn1js on genuine input.
 */
import { copyOf } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';

/** One type-length-value of a DER document; offsets count from the start of the document. */
export interface DerNode {
  /** Identifier octet: class, constructed bit and tag number below 31. */
  readonly tag: number;
  /** Where the identifier octet is. */
  readonly start: number;
  /** Where the content begins. */
  readonly body: number;
  readonly end: number;
  /** Empty for primitive types. */
  readonly children: readonly DerNode[];
}

export interface DerLimits {
  /** Name of the document in error messages. */
  readonly what: string;
  readonly maxBytes: number;
  readonly maxNodes: number;
}

/** No structure the verifier reads nests deeper than 9; an attacker's 10,000 levels stop here. */
const MAX_DEPTH = 16;

export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  NULL: 0x05,
  OID: 0x06,
  ENUMERATED: 0x0a,
  UTF8_STRING: 0x0c,
  PRINTABLE_STRING: 0x13,
  IA5_STRING: 0x16,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  SET: 0x31,
} as const;

const NO_CHILDREN: readonly DerNode[] = Object.freeze([]);
const CONSTRUCTED = 0x20;
const CLASS_BITS = 0xc0;

const PRINTABLE = /^[A-Za-z0-9 '()+,\-./:=?]*$/;

/**
 * A copy of a document that is of a size that is read at all, so that the verdict is about bytes nobody changes.
 *
 * Errors   CERTIFICATE_INVALID for a larger one, of which nothing is copied
 */
export function ownCopy(bytes: Uint8Array, limits: DerLimits): Uint8Array {
  checkSize(bytes, limits);
  return copyOf(bytes);
}

function checkSize(bytes: Uint8Array, { what, maxBytes }: DerLimits): void {
  if (bytes.length > maxBytes) {
    fail(what, 0, `${bytes.length} bytes exceed the limit of ${maxBytes}`);
  }
}

function fail(what: string, at: number, message: string): never {
  throw new InputError('CERTIFICATE_INVALID', message, { where: `${what}[0x${at.toString(16)}]` });
}

/**
 * Reads a whole document and checks every rule of DER that does not need a schema.
 *
 * Returns  the root node; its end is the end of the bytes
 * Errors   CERTIFICATE_INVALID naming the offset and the rule
 * Source   X.690 sections 8, 10 and 11
 */
export function decodeDer(bytes: Uint8Array, limits: DerLimits): DerNode {
  const { what } = limits;
  checkSize(bytes, limits);
  let nodes = 0;

  const read = (start: number, limit: number, depth: number): DerNode => {
    nodes += 1;
    if (nodes > limits.maxNodes) {
      fail(what, start, `more than ${limits.maxNodes} elements`);
    }
    if (depth > MAX_DEPTH) {
      fail(what, start, `nested deeper than ${MAX_DEPTH} levels`);
    }
    if (limit - start < 2) {
      fail(what, start, 'cut off inside an element header');
    }
    const tag = bytes[start]!;
    if ((tag & 0x1f) === 0x1f) {
      fail(what, start, 'tag numbers above 30 have no place here');
    }
    let body = start + 2;
    let length = bytes[start + 1]!;
    if (length === 0x80) {
      fail(what, start, 'indefinite length is BER, not DER');
    }
    if (length > 0x80) {
      const count = length & 0x7f;
      if (count > 3) {
        fail(what, start, `a length of ${count} bytes exceeds every limit`);
      }
      if (limit - body < count) {
        fail(what, start, 'cut off inside an element header');
      }
      length = 0;
      for (let i = 0; i < count; i++) {
        length = length * 256 + bytes[body + i]!;
      }
      body += count;
      if (length < 0x80 || length < 2 ** (8 * (count - 1))) {
        fail(what, start, 'the length is not minimally encoded');
      }
    }
    const end = body + length;
    if (end > limit) {
      fail(what, start, `length ${length} runs past the ${limit - body} bytes that are there`);
    }
    if ((tag & CONSTRUCTED) !== 0) {
      const children: DerNode[] = [];
      if ((tag & CLASS_BITS) === 0 && tag !== Tag.SEQUENCE && tag !== Tag.SET) {
        fail(what, start, `universal tag 0x${tag.toString(16)} must not be constructed`);
      }
      for (let at = body; at < end; ) {
        const child = read(at, end, depth + 1);
        children.push(child);
        at = child.end;
      }
      if (tag === Tag.SET) {
        checkSetOrder(bytes, children, what);
      }
      return { tag, start, body, end, children };
    }
    if ((tag & CLASS_BITS) === 0) {
      checkPrimitive(bytes, tag, start, body, end, what);
    }
    return { tag, start, body, end, children: NO_CHILDREN };
  };

  const root = read(0, bytes.length, 0);
  if (root.end !== bytes.length) {
    fail(what, root.end, `${bytes.length - root.end} trailing bytes after the document`);
  }
  return root;
}

function checkSetOrder(bytes: Uint8Array, children: readonly DerNode[], what: string): void {
  for (let i = 1; i < children.length; i++) {
    const before = children[i - 1]!;
    const here = children[i]!;
    const length = Math.min(before.end - before.start, here.end - here.start);
    let order = before.end - before.start - (here.end - here.start);
    for (let k = 0; k < length; k++) {
      const difference = bytes[before.start + k]! - bytes[here.start + k]!;
      if (difference !== 0) {
        order = difference;
        break;
      }
    }
    if (order > 0) {
      fail(what, here.start, 'the elements of a SET OF are not in ascending order');
    }
  }
}

function checkPrimitive(
  bytes: Uint8Array,
  tag: number,
  start: number,
  body: number,
  end: number,
  what: string,
): void {
  const length = end - body;
  switch (tag) {
    case Tag.BOOLEAN:
      if (length !== 1 || (bytes[body] !== 0 && bytes[body] !== 0xff)) {
        fail(what, start, 'a BOOLEAN is one byte, 00 or FF');
      }
      return;
    case Tag.INTEGER:
    case Tag.ENUMERATED: {
      const first = bytes[body];
      const second = bytes[body + 1];
      if (length === 0) {
        fail(what, start, 'an INTEGER without content');
      }
      if (length > 1 && ((first === 0 && second! < 0x80) || (first === 0xff && second! >= 0x80))) {
        fail(what, start, 'the INTEGER is not minimally encoded');
      }
      return;
    }
    case Tag.BIT_STRING: {
      const unused = bytes[body];
      if (length === 0 || unused! > 7 || (length === 1 && unused !== 0)) {
        fail(what, start, 'the BIT STRING names an impossible number of unused bits');
      }
      if ((bytes[end - 1]! & ((1 << unused!) - 1)) !== 0 && length > 1) {
        fail(what, start, 'unused bits of the BIT STRING are set');
      }
      return;
    }
    case Tag.OCTET_STRING:
      return;
    case Tag.NULL:
      if (length !== 0) {
        fail(what, start, 'NULL with content');
      }
      return;
    case Tag.OID:
      checkOid(bytes, start, body, end, what);
      return;
    case Tag.UTF8_STRING:
    case Tag.PRINTABLE_STRING:
    case Tag.IA5_STRING:
      checkString(bytes, tag, start, body, end, what);
      return;
    case Tag.UTC_TIME:
    case Tag.GENERALIZED_TIME:
      timeAt(bytes, tag, start, body, end, what);
      return;
    default:
      fail(what, start, `universal tag 0x${tag.toString(16)} has no place here`);
  }
}

function checkOid(bytes: Uint8Array, start: number, body: number, end: number, what: string): void {
  if (end === body || bytes[end - 1]! >= 0x80) {
    fail(what, start, 'an OBJECT IDENTIFIER that is empty or cut off');
  }
  let size = 0;
  for (let at = body; at < end; at++) {
    if (size === 0 && bytes[at] === 0x80) {
      fail(what, start, 'an arc of the OBJECT IDENTIFIER is not minimally encoded');
    }
    size = bytes[at]! >= 0x80 ? size + 1 : 0;
    // Seven bits a byte: five bytes already exceed every arc that has been assigned.
    if (size > 4) {
      fail(what, start, 'an arc of the OBJECT IDENTIFIER exceeds 2^32');
    }
  }
}

function checkString(
  bytes: Uint8Array,
  tag: number,
  start: number,
  body: number,
  end: number,
  what: string,
): void {
  let text: string;
  try {
    text = decodeText(bytes, body, end);
  } catch {
    fail(what, start, 'the string is not UTF-8');
  }
  // "good.example\0.evil": a NUL or another control character ends a name for some readers only.
  for (let at = body; at < end; at++) {
    if (bytes[at]! < 0x20 || bytes[at] === 0x7f || (tag === Tag.IA5_STRING && bytes[at]! > 0x7f)) {
      fail(what, start, `character 0x${bytes[at]!.toString(16)} has no place in this string`);
    }
  }
  if (tag === Tag.PRINTABLE_STRING && !PRINTABLE.test(text)) {
    fail(what, start, 'a character outside PrintableString');
  }
}

const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Text of UTF-8; a decoder costs more than the few letters of a name, which are ASCII but for exceptions. */
function decodeText(bytes: Uint8Array, from: number, to: number): string {
  let text = '';
  for (let at = from; at < to; at++) {
    if (bytes[at]! > 0x7f || to - from > 64) {
      return textDecoder.decode(bytes.subarray(from, to));
    }
    text += String.fromCharCode(bytes[at]!);
  }
  return text;
}

/** Milliseconds since 1970 of a UTCTime or GeneralizedTime in the one form RFC 5280 allows. */
function timeAt(
  bytes: Uint8Array,
  tag: number,
  start: number,
  body: number,
  end: number,
  what: string,
): number {
  const digits = tag === Tag.UTC_TIME ? 12 : 14;
  let valid = end - body === digits + 1 && bytes[end - 1] === 0x5a;
  for (let at = body; valid && at < end - 1; at++) {
    valid = bytes[at]! >= 0x30 && bytes[at]! <= 0x39;
  }
  if (!valid) {
    fail(what, start, 'the time is not of the form [YY]YYMMDDHHMMSSZ');
  }
  const pair = (at: number): number => (bytes[at]! - 0x30) * 10 + (bytes[at + 1]! - 0x30);
  let at = body;
  let year: number;
  if (tag === Tag.UTC_TIME) {
    const short = pair(at);
    year = short < 50 ? 2000 + short : 1900 + short;
  } else {
    year = pair(at) * 100 + pair(at + 2);
    at += 2;
    if (year < 2050) {
      fail(what, start, `the year ${year} must be written as UTCTime`);
    }
  }
  const [month, day, hour, minute, second] = [2, 4, 6, 8, 10].map((n) => pair(at + n)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const ms = Date.UTC(year, month - 1, day, hour, minute, second);
  const back = new Date(ms);
  if (
    back.getUTCMonth() !== month - 1 ||
    back.getUTCDate() !== day ||
    hour > 23 ||
    minute > 59 ||
    second > 59
  ) {
    fail(what, start, 'no such date or time');
  }
  return ms;
}

/** Walks the children of one constructed node in order, as a schema asks for them. */
export class DerSequence {
  readonly #bytes: Uint8Array;
  readonly #what: string;
  readonly #node: DerNode;
  #next = 0;

  constructor(bytes: Uint8Array, node: DerNode, what: string) {
    this.#bytes = bytes;
    this.#what = what;
    this.#node = node;
  }

  /** The next element if it carries this tag, else null; it is consumed. */
  optional(tag: number): DerNode | null {
    const node = this.#node.children[this.#next];
    if (node === undefined || node.tag !== tag) {
      return null;
    }
    this.#next += 1;
    return node;
  }

  /** The next element, which must carry one of these tags. */
  take(name: string, ...tags: readonly number[]): DerNode {
    const node = this.#node.children[this.#next];
    if (node === undefined) {
      fail(this.#what, this.#node.end, `${name} is missing`);
    }
    if (!tags.includes(node.tag)) {
      fail(this.#what, node.start, `${name}: tag 0x${node.tag.toString(16)} is not what belongs here`);
    }
    this.#next += 1;
    return node;
  }

  /** The next element as a sequence of its own. */
  enter(name: string, tag: number = Tag.SEQUENCE): DerSequence {
    return new DerSequence(this.#bytes, this.take(name, tag), this.#what);
  }

  rest(): readonly DerNode[] {
    const rest = this.#node.children.slice(this.#next);
    this.#next = this.#node.children.length;
    return rest;
  }

  /** Refuses elements nobody asked for. */
  done(): void {
    const node = this.#node.children[this.#next];
    if (node !== undefined) {
      fail(this.#what, node.start, `an element (tag 0x${node.tag.toString(16)}) that has no place here`);
    }
  }
}

/** Content bytes of a node, in place. */
export const contentOf = (bytes: Uint8Array, node: DerNode): Uint8Array =>
  bytes.subarray(node.body, node.end);

/** Header and content bytes of a node, in place: what a signature or a fingerprint covers. */
export const derOf = (bytes: Uint8Array, node: DerNode): Uint8Array => bytes.subarray(node.start, node.end);

/** Text of a string node whose characters decodeDer has checked. */
export const textOf = (bytes: Uint8Array, node: DerNode): string => decodeText(bytes, node.body, node.end);

/** Milliseconds since 1970 of a time node. */
export const timeOf = (bytes: Uint8Array, node: DerNode, what: string): number =>
  timeAt(bytes, node.tag, node.start, node.body, node.end, what);

/** Dotted form of an OBJECT IDENTIFIER node. */
export function oidOf(bytes: Uint8Array, node: DerNode): string {
  let text = '';
  let arc = 0;
  for (let at = node.body; at < node.end; at++) {
    arc = arc * 128 + (bytes[at]! & 0x7f);
    if (bytes[at]! < 0x80) {
      if (text === '') {
        const first = Math.min(Math.floor(arc / 40), 2);
        text = `${first}.${arc - 40 * first}`;
      } else {
        text += `.${arc}`;
      }
      arc = 0;
    }
  }
  return text;
}

/** An INTEGER node as a number, or null when it is negative or above 2^32 - 1. */
export function smallIntegerOf(bytes: Uint8Array, node: DerNode): number | null {
  const content = contentOf(bytes, node);
  if (content[0]! >= 0x80 || content.length > 5 || (content.length === 5 && content[0] !== 0)) {
    return null;
  }
  return content.reduce((value, byte) => value * 256 + byte, 0);
}

/** Refuses with the place of a node: for rules of a schema rather than of DER. */
export function failAt(what: string, node: DerNode, message: string): never {
  fail(what, node.start, message);
}
