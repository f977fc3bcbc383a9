// SPDX-License-Identifier: Apache-2.0
/**
 * What an x86-64 executable says of its code: which bytes are loaded where, and where functions begin and
 * end. Nothing is believed: whoever wrote the file may have wished us harm, so that every number has a
 * limit, and what does not hold together counts as not being there.
 *
 * Source   [ELF] "ELF Header", "Program Header", "Symbol Table"; [LSB] ".eh_frame_hdr", ".eh_frame"
 */
import { readU16, readU32, readU64 } from '../lib/bytes.ts';

/** The bytes of a file. */
export interface ByteSource {
  /** As many as there are, up to `length`. */
  read(at: number, length: number): Promise<Uint8Array>;
}

/** A part of the file that is mapped. */
export interface Segment {
  readonly offset: number;
  readonly address: number;
  /** Bytes of the file; what memory has more is zero. */
  readonly size: number;
  readonly executable: boolean;
}

export interface Executable {
  /** Where it starts, and every other address, before it is moved to where it is loaded. */
  readonly entry: number;
  readonly segments: readonly Segment[];
  /** .eh_frame_hdr. */
  readonly unwindTable: Segment | null;
  /** Symbol tables in the file, which may not be loaded. */
  readonly symbolTables: readonly { readonly offset: number; readonly size: number }[];
}

/** Addresses from..end, the end not included. */
export interface CodeRange {
  readonly from: number;
  readonly end: number;
}

const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const SECTION_HEADER_SIZE = 64;
const SYMBOL_SIZE = 24;
const MAGIC = 0x464c_457f;
/** 64 bits, little endian, version 1. */
const IDENT = 0x01_0102;
const EM_X86_64 = 62;
const ET_EXEC = 2;
const ET_DYN = 3;
const PT_LOAD = 1;
const PT_GNU_EH_FRAME = 0x6474_e550;
const PF_X = 1;
const SHT_SYMTAB = 2;
const STT_FUNC = 2;

/** End of the user half of the address space, 5-level page tables included. */
const USER_END = 2 ** 56;
/** Linux takes no more than a page or so of program headers. */
const MAX_PROGRAM_HEADERS = 64 * 1024;
const MAX_TABLE_BYTES = 64 << 20;
/** Longest common information entry whose augmentation is looked at. */
const MAX_CIE_BYTES = 256;

/** The executable in the file; null when it is none for x86-64. */
export async function readExecutable(source: ByteSource): Promise<Executable | null> {
  const header = await source.read(0, HEADER_SIZE);
  if (header.length < HEADER_SIZE || readU32(header, 0) !== MAGIC) {
    return null;
  }
  const type = readU16(header, 16);
  const isOurs =
    (readU32(header, 4) & 0xff_ffff) === IDENT &&
    readU16(header, 18) === EM_X86_64 &&
    (type === ET_EXEC || type === ET_DYN);
  const entry = plausible(readU64(header, 24));
  if (!isOurs || entry === null) {
    return null;
  }
  const headers = await programHeaders(source, header);
  const loaded = headers.filter(({ type: kind }) => kind === PT_LOAD).map(({ segment }) => segment);
  return {
    entry,
    segments: loaded,
    unwindTable: headers.find(({ type: kind }) => kind === PT_GNU_EH_FRAME)?.segment ?? null,
    symbolTables: await symbolTables(source, header),
  };
}

function plausible(value: bigint): number | null {
  return value < BigInt(USER_END) ? Number(value) : null;
}

async function programHeaders(source: ByteSource, header: Uint8Array) {
  const at = plausible(readU64(header, 32));
  const count = readU16(header, 56);
  if (
    at === null ||
    readU16(header, 54) !== PROGRAM_HEADER_SIZE ||
    count * PROGRAM_HEADER_SIZE > MAX_PROGRAM_HEADERS
  ) {
    return [];
  }
  const table = await source.read(at, count * PROGRAM_HEADER_SIZE);
  const found: { readonly type: number; readonly segment: Segment }[] = [];
  for (let row = 0; row + PROGRAM_HEADER_SIZE <= table.length; row += PROGRAM_HEADER_SIZE) {
    const [offset, address, size] = [8, 16, 32].map((field) => plausible(readU64(table, row + field)));
    if (offset == null || address == null || size == null || address + size > USER_END) {
      continue;
    }
    const executable = (readU32(table, row + 4) & PF_X) !== 0;
    found.push({ type: readU32(table, row), segment: { offset, address, size, executable } });
  }
  return found;
}

async function symbolTables(source: ByteSource, header: Uint8Array) {
  const at = plausible(readU64(header, 40));
  const count = readU16(header, 60);
  if (at === null || at === 0 || readU16(header, 58) !== SECTION_HEADER_SIZE) {
    return [];
  }
  const table = await source.read(at, count * SECTION_HEADER_SIZE);
  const found: { readonly offset: number; readonly size: number }[] = [];
  for (let row = 0; row + SECTION_HEADER_SIZE <= table.length; row += SECTION_HEADER_SIZE) {
    const offset = plausible(readU64(table, row + 24));
    const size = plausible(readU64(table, row + 32));
    if (
      readU32(table, row + 4) === SHT_SYMTAB &&
      offset !== null &&
      size !== null &&
      size <= MAX_TABLE_BYTES
    ) {
      found.push({ offset, size });
    }
  }
  return found;
}

/** Bytes of the file that are loaded at an address; none when they are not all of one segment. */
export async function readLoaded(
  source: ByteSource,
  { segments }: Executable,
  address: number,
  length: number,
): Promise<Uint8Array | null> {
  const segment = segments.find(
    (candidate) => address >= candidate.address && address + length <= candidate.address + candidate.size,
  );
  if (segment === undefined) {
    return null;
  }
  const bytes = await source.read(segment.offset + (address - segment.address), length);
  return bytes.length === length ? bytes : null;
}

/** Tells the function an address lies in; null where none is known. */
export type FindFunction = (address: number) => Promise<CodeRange | null>;

/**
 * The functions that the unwind tables describe, which compilers emit for stripped programs too.
 *
 * Returns  null when there is no such table, or none in the form that every linker writes
 */
export async function unwindFunctions(
  source: ByteSource,
  executable: Executable,
): Promise<FindFunction | null> {
  const place = executable.unwindTable;
  if (place === null || place.size > MAX_TABLE_BYTES) {
    return null;
  }
  const table = await source.read(place.offset, place.size);
  // Version 1, a 4-byte pointer to .eh_frame, a 4-byte count, rows of two 4-byte distances from the table.
  const pointerEncoding = table.length < 12 ? 0 : table[1]! & 0x0f;
  const isUsual = table[0] === 1 && table[2] === 0x03 && table[3] === 0x3b;
  if (!isUsual || (pointerEncoding !== 0x03 && pointerEncoding !== 0x0b)) {
    return null;
  }
  const rows = Math.min(readU32(table, 8), Math.floor((table.length - 12) / 8));
  const start = (row: number): number => place.address + (readU32(table, 12 + 8 * row) | 0);
  return async (address) => {
    const row = lastNotAbove(rows, start, address);
    if (row < 0) {
      return null;
    }
    const entry = place.address + (readU32(table, 16 + 8 * row) | 0);
    const size = await lengthInEntry(source, executable, entry);
    const from = start(row);
    return size !== null && address < from + size ? { from, end: from + size } : null;
  };
}

/** The last row whose value is at most `limit`; -1 when there is none. Rows ascend. */
function lastNotAbove(rows: number, value: (row: number) => number, limit: number): number {
  let [low, high] = [0, rows];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (value(middle) <= limit) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

/** How many bytes of code a frame description entry is about. */
async function lengthInEntry(source: ByteSource, executable: Executable, at: number): Promise<number | null> {
  const entry = await readLoaded(source, executable, at, 24);
  if (entry === null || readU32(entry, 0) >= 0xffff_fff0 || readU32(entry, 4) === 0) {
    return null;
  }
  const width = await pointerWidth(source, executable, at + 4 - readU32(entry, 4));
  const length = width === 4 ? readU32(entry, 12) : width === 8 ? plausible(readU64(entry, 16)) : null;
  return length === null || length === 0 ? null : length;
}

/** Bytes of a code pointer in the entries that share this common information; null for a form nobody uses. */
async function pointerWidth(source: ByteSource, executable: Executable, at: number): Promise<4 | 8 | null> {
  const size = await readLoaded(source, executable, at, 4);
  const length = size === null ? 0 : readU32(size, 0);
  const cie =
    length < 8 ? null : await readLoaded(source, executable, at, Math.min(length + 4, MAX_CIE_BYTES));
  if (cie === null || readU32(cie, 4) !== 0) {
    return null;
  }
  const encoding = pointerEncoding(cie);
  switch (encoding === null ? -1 : encoding & 0x0f) {
    case 0x03:
    case 0x0b:
      return 4;
    case 0x00:
    case 0x04:
    case 0x0c:
      return 8;
    default:
      return null;
  }
}

/** What the letter R of the augmentation says; 0, an absolute address, without one. */
function pointerEncoding(cie: Uint8Array): number | null {
  const textEnd = cie.indexOf(0, 9);
  const augmentation =
    textEnd < 0 ? [] : [...cie.subarray(9, textEnd)].map((code) => String.fromCharCode(code));
  if (textEnd < 0 || (augmentation.length > 0 && augmentation[0] !== 'z')) {
    return null;
  }
  // Code alignment, data alignment, return register, length of what follows.
  let at = textEnd + 1;
  for (let skipped = 0; skipped < (augmentation.length > 0 ? 4 : 3); skipped++) {
    while ((cie[at] ?? 0) >= 0x80) {
      at += 1;
    }
    at += 1;
  }
  for (const letter of augmentation.slice(1)) {
    const encoding = cie[at];
    if (encoding === undefined) {
      return null;
    }
    if (letter === 'R') {
      return encoding;
    }
    // L has an encoding, P an encoding and a pointer, S and B have nothing.
    const width = (encoding & 0x07) === 0x02 ? 2 : (encoding & 0x07) === 0x03 ? 4 : 8;
    at += letter === 'L' ? 1 : letter === 'P' ? 1 + width : 0;
  }
  return 0;
}

/** The functions that symbols name, in programs that are not stripped. Null when there are none. */
export async function symbolFunctions(
  source: ByteSource,
  executable: Executable,
): Promise<FindFunction | null> {
  const ranges: CodeRange[] = [];
  for (const { offset, size } of executable.symbolTables) {
    const table = await source.read(offset, size);
    for (let row = 0; row + SYMBOL_SIZE <= table.length; row += SYMBOL_SIZE) {
      const isFunction = (table[row + 4]! & 0xf) === STT_FUNC && readU16(table, row + 6) !== 0;
      const from = isFunction ? plausible(readU64(table, row + 8)) : null;
      const length = isFunction ? plausible(readU64(table, row + 16)) : null;
      if (from !== null && length !== null && length > 0) {
        ranges.push({ from, end: from + length });
      }
    }
  }
  if (ranges.length === 0) {
    return null;
  }
  ranges.sort((a, b) => a.from - b.from);
  return async (address) => {
    const range = ranges[lastNotAbove(ranges.length, (row) => ranges[row]!.from, address)];
    return range !== undefined && address < range.end ? range : null;
  };
}
