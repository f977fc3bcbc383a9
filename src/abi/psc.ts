// SPDX-License-Identifier: Apache-2.0
/**
 * Page state change buffer: up to 253 entries in the shared buffer of the GHCB.
 * [GHCB] "SNP Page State Change"; Linux `struct psc_hdr`, `struct psc_entry`.
 *
 * Pages change state at more than a million a second, so besides the declarations there are accessors
 * that read and write an entry in place without allocating.
 */
import { readU16, readU32, writeU16, writeU32 } from '../lib/bytes.ts';
import { bits64, type DecodedOf, layout, u16le } from '../lib/struct.ts';

export const PSC_HEADER_SIZE = 8;
export const PSC_ENTRY_SIZE = 8;
/** (0x7f0 - 8) / 8. */
export const VMGEXIT_PSC_MAX_ENTRY = 253;
/** What Linux guests use of it in one call. */
export const VMGEXIT_PSC_LINUX_MAX_ENTRY = 64;

/** Head of the buffer. Bytes 4-7 are reserved; KVM does not judge them, a guest may. */
export const PscHeader = layout(
  'PscHeader',
  PSC_HEADER_SIZE,
  { spec: 'GHCB', at: 'Page State Change, header' },
  {
    cur_entry: [0, u16le],
    end_entry: [2, u16le, 'index of the last entry'],
  },
);
export type PscHeader = DecodedOf<typeof PscHeader>;

/** One entry: `gfn` for 4 KiB, or 512 of them for 2 MiB. */
export const PscEntry = bits64({
  cur_page: [0, 12],
  gfn: [12, 40],
  operation: [52, 4],
  pagesize: [56, 1],
});
export type PscEntry = ReturnType<typeof PscEntry.fromWord>;

/** `operation` of an entry. */
export const PscOp = Object.freeze({
  SNP_PAGE_STATE_PRIVATE: 1,
  SNP_PAGE_STATE_SHARED: 2,
  SNP_PAGE_STATE_PSMASH: 3,
  SNP_PAGE_STATE_UNSMASH: 4,
} as const);

/** SW_EXITINFO2 of a page state change. */
export const PscResult = Object.freeze({
  VMGEXIT_PSC_DONE: 0n,
  /** Low word 1: the header is invalid. */
  VMGEXIT_PSC_ERROR_INVALID_HDR: 0x0000000100000001n,
  /** Low word 2: the entry `cur_entry` names is invalid. */
  VMGEXIT_PSC_ERROR_INVALID_ENTRY: 0x0000000100000002n,
  VMGEXIT_PSC_ERROR_GENERIC: 0x0000010000000000n,
} as const);

export const pscCurEntry = (buffer: Uint8Array, at: number): number => readU16(buffer, at);
export const pscEndEntry = (buffer: Uint8Array, at: number): number => readU16(buffer, at + 2);

/** Where entry `index` of the buffer that starts at `at` lies. */
export const pscEntryAt = (at: number, index: number): number =>
  at + PSC_HEADER_SIZE + PSC_ENTRY_SIZE * index;

export function pscSetCurEntry(buffer: Uint8Array, at: number, index: number): void {
  writeU16(buffer, at, index);
}

/** Writes a header for entries `first` to `last`. */
export function pscWriteHeader(buffer: Uint8Array, at: number, first: number, last: number): void {
  writeU16(buffer, at, first);
  writeU16(buffer, at + 2, last);
  writeU32(buffer, at + 4, 0);
}

/** Progress inside the entry at `at`, in 4 KiB pages. */
export const pscEntryCurPage = (buffer: Uint8Array, at: number): number => readU16(buffer, at) & 0xfff;

/** Frame number of the entry at `at`. */
export const pscEntryGfn = (buffer: Uint8Array, at: number): number =>
  (readU32(buffer, at) >>> 12) + (readU32(buffer, at + 4) & 0xfffff) * 0x100000;

/** Operation of the entry at `at`. */
export const pscEntryOperation = (buffer: Uint8Array, at: number): number => buffer[at + 6]! >> 4;

/** Page size of the entry at `at`: 0 is 4 KiB, 1 is 2 MiB. */
export const pscEntryPagesize = (buffer: Uint8Array, at: number): 0 | 1 => (buffer[at + 7]! & 1) as 0 | 1;

export function pscSetEntryCurPage(buffer: Uint8Array, at: number, page: number): void {
  writeU16(buffer, at, (readU16(buffer, at) & 0xf000) | (page & 0xfff));
}

/** Writes a fresh entry, no page of it done. */
export function pscWriteEntry(
  buffer: Uint8Array,
  at: number,
  gfn: number,
  operation: number,
  pagesize: 0 | 1,
): void {
  writeU32(buffer, at, (gfn % 0x100000) * 0x1000);
  writeU32(
    buffer,
    at + 4,
    (Math.floor(gfn / 0x100000) & 0xfffff) | ((operation & 0xf) << 20) | (pagesize << 24),
  );
}
