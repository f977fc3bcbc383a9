// SPDX-License-Identifier: Apache-2.0
/**
 * The certificate table of the extended guest request: what the host hands the guest beside a report, and
 * what configfs-tsm calls auxblob. [GHCB] "SNP Extended Guest Request".
 *
 * A guest takes it from its host and a host takes it from a file: neither may be able to make a reader
 * compute with wrapped sums, copy a byte twice or look at more than a few entries.
 */
import {
  ARK_GUID,
  ASK_GUID,
  CERT_GUIDS,
  CERT_TABLE_ENTRY_SIZE,
  CertTableEntry,
  CRL_GUID,
  guidBytes,
  guidText,
  VCEK_GUID,
  VLEK_GUID,
  ZERO_GUID,
} from '../abi/cert-table.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import { copyOf, equalBytes, isZero } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { certificatesOf, isOneDerSequence } from './pem.ts';

/** Entries a reader looks at before it gives up; real tables have up to four. */
export const CERT_TABLE_MAX_ENTRIES = 16;

export interface CertificateEntry {
  /** 36 characters, lower case. */
  readonly guid: string;
  readonly data: Uint8Array;
}

export interface LocatedCertificateEntry extends CertificateEntry {
  /** Bytes from the start of the table. */
  readonly offset: number;
  readonly length: number;
}

/** Why bytes are no certificate table; stable names for tests and findings. */
export type CertTableFault =
  /** The bytes end before an entry of 24 zero bytes. */
  | 'TABLE_UNTERMINATED'
  /** A zero GUID with an offset or length: some readers stop there and some go on. */
  | 'TABLE_TERMINATOR'
  /** More than CERT_TABLE_MAX_ENTRIES entries. */
  | 'TABLE_ENTRIES'
  /** Contents that do not lie within the bytes, or of no length. */
  | 'TABLE_RANGE'
  /** Contents that lie in the header or in another entry's contents. */
  | 'TABLE_OVERLAP'
  /** Two entries of one known GUID with different contents. */
  | 'TABLE_DUPLICATE';

/** The entries, or what is wrong with which of them. */
export type CertTableReading =
  | { readonly entries: readonly LocatedCertificateEntry[] }
  | { readonly fault: CertTableFault; readonly message: string };

/**
 * Reads a table without throwing.
 *
 * Shape    entries of {guid, offset, length}, 24 zero bytes, contents; bytes no entry claims are ignored
 * Returns  entries in table order, those with unknown GUIDs too; contents are copies
 */
export function readCertificateTable(table: Uint8Array): CertTableReading {
  const header = readHeader(table);
  if ('fault' in header) {
    return header;
  }
  const { rows, headerSize } = header;
  for (const [i, { offset, length }] of rows.entries()) {
    // Subtracted, never added: offset + length may be above 2^32.
    if (length === 0 || offset > table.length || length > table.length - offset) {
      return fault(
        'TABLE_RANGE',
        `entry ${i}: ${length} bytes at ${offset} do not lie within ${table.length}`,
      );
    }
    if (offset < headerSize) {
      return fault(
        'TABLE_OVERLAP',
        `entry ${i} starts at ${offset}, inside the header of ${headerSize} bytes`,
      );
    }
  }
  const byOffset = [...rows].sort((a, b) => a.offset - b.offset);
  const overlapped = byOffset.find(
    (row, i) => row.offset + row.length > (byOffset[i + 1]?.offset ?? Infinity),
  );
  if (overlapped !== undefined) {
    return fault('TABLE_OVERLAP', `the contents at ${overlapped.offset} run into those of another entry`);
  }
  const entries = rows.map((row) => ({ ...row, data: copyOf(table, row.offset, row.offset + row.length) }));
  const known = entries.filter(({ guid }) => guid in CERT_GUIDS);
  const duplicate = known.find((entry) =>
    known.some((other) => other.guid === entry.guid && !equalBytes(other.data, entry.data)),
  );
  return duplicate !== undefined
    ? fault('TABLE_DUPLICATE', `two different entries for ${CERT_GUIDS[duplicate.guid]}`)
    : { entries };
}

/**
 * The entries of a table.
 *
 * Errors   CERT_TABLE_INVALID, its message beginning with the CertTableFault
 */
export function decodeCertificateTable(table: Uint8Array): readonly LocatedCertificateEntry[] {
  const reading = readCertificateTable(table);
  if ('fault' in reading) {
    throw new InputError('CERT_TABLE_INVALID', `${reading.fault}: ${reading.message}`);
  }
  return reading.entries;
}

/**
 * A table with the contents packed after the terminator, in order.
 *
 * Returns  24 zero bytes for no entries; not padded to a page
 * Errors   CERT_TABLE_INVALID for what `decodeCertificateTable` would refuse
 */
export function encodeCertificateTable(entries: readonly CertificateEntry[]): Uint8Array {
  const headerSize = (entries.length + 1) * CERT_TABLE_ENTRY_SIZE;
  const table = new Uint8Array(entries.reduce((size, { data }) => size + data.length, headerSize));
  let offset = headerSize;
  for (const [i, { guid, data }] of entries.entries()) {
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(guid)) {
      throw new InputError('CERT_TABLE_INVALID', `entry ${i}: ${JSON.stringify(guid)} is no lower-case GUID`);
    }
    const row = CertTableEntry.encode({ guid: guidBytes(guid), offset, length: data.length });
    table.set(row, i * CERT_TABLE_ENTRY_SIZE);
    table.set(data, offset);
    offset += data.length;
  }
  decodeCertificateTable(table);
  return table;
}

/**
 * Bytes of a table up to the end of the last contents: a longer buffer is only padded.
 *
 * Errors   CERT_TABLE_INVALID
 */
export function tableSize(table: Uint8Array): number {
  const entries = decodeCertificateTable(table);
  const headerSize = (entries.length + 1) * CERT_TABLE_ENTRY_SIZE;
  return entries.reduce((end, { offset, length }) => Math.max(end, offset + length), headerSize);
}

/**
 * Pages a guest must offer for the table; what goes into them are its first `tableSize` bytes.
 *
 * Units    4 KiB pages, rounded up
 * Errors   CERT_TABLE_INVALID
 * Source   [GHCB] "SNP Extended Guest Request", RBX
 */
export function tableNpages(table: Uint8Array): number {
  return Math.ceil(tableSize(table) / PAGE_SIZE);
}

/**
 * What makes a certificate blob unfit to be given to a guest, as a sentence; null when nothing does.
 *
 * The certificates themselves are judged by whoever verifies the report. Here a blob is malformed when it
 * is no table, or when a certificate in it is neither DER nor PEM, as after a write that was cut short.
 */
export function validateBlob(blob: Uint8Array): string | null {
  const reading = readCertificateTable(blob);
  if ('fault' in reading) {
    return `${reading.fault}: ${reading.message}`;
  }
  for (const [i, { guid, data }] of reading.entries.entries()) {
    const wrong = CONTENTS[guid]?.(data) ?? null;
    if (wrong !== null) {
      return `entry ${i} (${CERT_GUIDS[guid]}): ${wrong}`;
    }
  }
  return null;
}

interface HeaderRow {
  readonly guid: string;
  readonly offset: number;
  readonly length: number;
}

function readHeader(
  table: Uint8Array,
): { readonly rows: readonly HeaderRow[]; readonly headerSize: number } | ReturnType<typeof fault> {
  const rows: HeaderRow[] = [];
  for (let at = 0; at + CERT_TABLE_ENTRY_SIZE <= table.length; at += CERT_TABLE_ENTRY_SIZE) {
    const bytes = table.subarray(at, at + CERT_TABLE_ENTRY_SIZE);
    if (isZero(bytes)) {
      return { rows, headerSize: at + CERT_TABLE_ENTRY_SIZE };
    }
    const { guid, offset, length } = CertTableEntry.decode(bytes);
    const text = guidText(guid);
    if (text === ZERO_GUID) {
      return fault('TABLE_TERMINATOR', `entry ${rows.length} has a zero GUID and is not all zero`);
    }
    if (rows.length === CERT_TABLE_MAX_ENTRIES) {
      return fault('TABLE_ENTRIES', `more than ${CERT_TABLE_MAX_ENTRIES} entries`);
    }
    rows.push({ guid: text, offset, length });
  }
  return fault('TABLE_UNTERMINATED', `${table.length} bytes end before an entry of zeros`);
}

const fault = (name: CertTableFault, message: string): { fault: CertTableFault; message: string } => ({
  fault: name,
  message,
});

/** What is wrong with the contents of the GUIDs that hold certificates and revocation lists. */
const CONTENTS: Readonly<Record<string, (data: Uint8Array) => string | null>> = {
  [VCEK_GUID]: certificateFault,
  [VLEK_GUID]: certificateFault,
  [ASK_GUID]: certificateFault,
  [ARK_GUID]: certificateFault,
  [CRL_GUID]: (data) => (isOneDerSequence(data) ? null : 'not one DER structure'),
};

function certificateFault(data: Uint8Array): string | null {
  try {
    certificatesOf(data);
    return null;
  } catch (error) {
    if (error instanceof InputError) {
      return error.message;
    }
    throw error;
  }
}
