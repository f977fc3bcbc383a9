// SPDX-License-Identifier: Apache-2.0
/**
 * Files as people drop them: what each is taken for, and the evidence they make together. Whatever is
 * guessed here is shown, and can be overruled; the verifier itself guesses nothing.
 */
import { REPORT_SIZE } from '../../src/abi/attestation-report.ts';
import { CERT_GUIDS } from '../../src/abi/cert-table.ts';
import { readCertificateTable } from '../../src/certs/table.ts';
import { equalBytes, readU32 } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import { printable } from '../../src/lib/text.ts';
import { formOf, startsLikeReport } from '../../src/verify/form.ts';
import {
  type Evidence,
  readCertificateInput,
  readReportInput,
  readTableInput,
} from '../../src/verify/index.ts';
import { type Certificate, commentOf, decodeCertificate } from '../../src/verify/x509.ts';

export const ITEM_KINDS = ['report', 'table', 'certificates', 'crl', 'ignored'] as const;
export type ItemKind = (typeof ITEM_KINDS)[number];

/** Larger than any evidence; a file beyond it is not even read. */
export const MAX_FILE_BYTES = 1 << 20;

/** One file and what it is taken for. */
export interface Item {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly kind: ItemKind;
  /** What is in it, in a few words. */
  readonly contents: string;
  readonly evidence: Partial<Evidence>;
}

/**
 * Reads a file.
 *
 * Shape    `as` overrules the guess
 * Returns  an item for any bytes; those that are no evidence are kept and ignored
 */
export function takeFile(name: string, bytes: Uint8Array, as?: ItemKind): Item {
  const kind = as ?? guessKind(name, bytes);
  return { name: printable(name), bytes, kind, ...readAs(kind, bytes) };
}

function guessKind(name: string, bytes: Uint8Array): ItemKind {
  const read = readCertificateInput(bytes);
  if (read.form !== 'table' && read.form !== 'unknown') {
    return read.certificates.length > 0 ? 'certificates' : 'crl';
  }
  if (isReport(bytes)) {
    return 'report';
  }
  if (read.form === 'table') {
    return 'table';
  }
  return guessBroken(name, bytes);
}

function isReport(bytes: Uint8Array): boolean {
  try {
    return readReportInput(bytes).report.length === REPORT_SIZE;
  } catch (error) {
    // A firmware response that carries a status instead of a report.
    return error instanceof InputError;
  }
}

/** What bytes that are nothing whole were meant to be: only then can the verifier say what is wrong. */
function guessBroken(name: string, bytes: Uint8Array): ItemKind {
  if (/\.(pem|der|crt|cer|cert)$/i.test(name) || bytes[0] === '<'.charCodeAt(0)) {
    return 'certificates';
  }
  if (/\.crl$/i.test(name)) {
    return 'crl';
  }
  if (/aux|table|certs/i.test(name)) {
    return 'table';
  }
  // Evidence of other hardware was meant to be a report, and the verifier says what it is instead.
  const isMeant = startsLikeReport(bytes) || formOf(bytes).kind === 'intel';
  return isMeant || /report|outblob/i.test(name) ? 'report' : 'ignored';
}

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

function readAs(kind: ItemKind, bytes: Uint8Array): Pick<Item, 'contents' | 'evidence'> {
  switch (kind) {
    case 'report':
      return readReport(bytes);
    case 'table': {
      const table = readTableInput(bytes);
      return { contents: tableContents(table), evidence: { table } };
    }
    case 'certificates': {
      const { certificates, crls } = readCertificateInput(bytes);
      return { contents: certificateContents(certificates), evidence: { certificates, crls } };
    }
    case 'crl': {
      const { certificates, crls } = readCertificateInput(bytes);
      // Something else is looked at as a list all the same, so that it is refused and not passed over.
      const lists = crls.length > 0 ? crls : certificates;
      return { contents: count(lists.length, 'revocation list'), evidence: { crls: lists } };
    }
    case 'ignored':
      return { contents: 'no evidence: ignored', evidence: {} };
  }
}

function readReport(bytes: Uint8Array): Pick<Item, 'contents' | 'evidence'> {
  try {
    const { report, forms, table, runtimeData, provider } = readReportInput(bytes);
    const version = report.length === REPORT_SIZE ? `version ${readU32(report, 0)}` : 'not 1184 bytes';
    return {
      contents: [version, ...forms, ...(table === null ? [] : ['with certificate table'])].join(', '),
      evidence: {
        report,
        ...(table === null ? {} : { table }),
        ...(runtimeData === null ? {} : { runtimeData }),
        ...(provider === null ? {} : { provider }),
      },
    };
  } catch (error) {
    if (error instanceof InputError) {
      return { contents: error.message, evidence: { report: bytes } };
    }
    throw error;
  }
}

function tableContents(table: Uint8Array): string {
  const reading = readCertificateTable(table);
  if ('fault' in reading) {
    return `no table: ${reading.message}`;
  }
  return reading.entries.length === 0
    ? 'empty table'
    : reading.entries.map(({ guid }) => CERT_GUIDS[guid] ?? 'unknown GUID').join(', ');
}

function certificateContents(certificates: readonly Uint8Array[]): string {
  const names = certificates.map((der) => tryDecode(der)?.subject.commonName ?? 'unreadable');
  return names.length === 0 ? 'nothing' : names.join(', ');
}

function tryDecode(der: Uint8Array): Certificate | null {
  try {
    return decodeCertificate(der);
  } catch (error) {
    if (error instanceof InputError) {
      return null;
    }
    throw error;
  }
}

/** What the items make together; the last report and the last table count. */
export function gather(items: readonly Item[]): Partial<Evidence> {
  const withTable = items.findLast(({ kind }) => kind === 'table');
  const table =
    withTable?.evidence.table ??
    items.findLast(({ evidence }) => evidence.table !== undefined)?.evidence.table;
  const given = items.findLast(({ evidence }) => evidence.report !== undefined)?.evidence ?? {};
  const { report, runtimeData, provider } = given;
  const named = (key: 'certificates' | 'crls'): readonly string[] =>
    items.flatMap(({ name, evidence }) => (evidence[key] ?? []).map(() => name));
  return {
    ...(report === undefined ? {} : { report }),
    ...(runtimeData === undefined ? {} : { runtimeData }),
    ...(provider === undefined ? {} : { provider }),
    ...(table === undefined ? {} : { table }),
    certificates: items.flatMap(({ evidence }) => evidence.certificates ?? []),
    crls: items.flatMap(({ evidence }) => evidence.crls ?? []),
    labels: {
      certificates: named('certificates'),
      crls: named('crls'),
      ...(withTable === undefined ? {} : { table: withTable.name }),
    },
  };
}

/** Adds items: there is one report and one table, so that a new one takes the place of the old. */
export function withItems(items: readonly Item[], added: readonly Item[]): readonly Item[] {
  return added.reduce<readonly Item[]>((all, item) => {
    const isOnly = item.kind === 'report' || item.kind === 'table';
    const kept = all.filter(
      (old) =>
        !(isOnly && old.kind === item.kind) && !(old.name === item.name && equalBytes(old.bytes, item.bytes)),
    );
    return [...kept, item];
  }, items);
}

/** A root somebody may choose to trust instead of AMD's. */
export interface RootCandidate {
  readonly name: string;
  readonly der: Uint8Array;
  readonly subject: string;
  /** What the certificate says of itself; softsnp's say that they are test roots. */
  readonly comment: string | null;
}

/** The self-issued certificates of a file. */
export function rootsOf(name: string, bytes: Uint8Array): readonly RootCandidate[] {
  return readCertificateInput(bytes).certificates.flatMap((der) => {
    const certificate = tryDecode(der);
    if (certificate === null || !equalBytes(certificate.subject.der, certificate.issuer.der)) {
      return [];
    }
    const comment = commentOf(certificate);
    return {
      name: printable(name),
      der,
      subject: certificate.subject.commonName ?? certificate.subject.text,
      comment: comment === null ? null : printable(comment),
    };
  });
}
