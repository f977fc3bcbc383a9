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

/** A folder with more is another kind of folder. */
export const MAX_FOLDER_FILES = 1024;

/** Files of one's own, as the command line has it: whoever dropped them waits for nobody else. */
export const MAX_CERTIFICATES = 1024;

/** A file as it came. */
export interface GivenFile {
  readonly name: string;
  readonly size: number;
  readonly bytes: Uint8Array;
}

/** One file and what it is taken for. */
export interface Item {
  /** The one of the file, with a number where there is another file of that name. */
  readonly name: string;
  readonly given: GivenFile;
  readonly kind: ItemKind;
  /** Taken for that by its name, for want of contents that say so. */
  readonly isByName: boolean;
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
  const { kind, isByName } = as === undefined ? guessKind(name, bytes) : { kind: as, isByName: false };
  const shown = printable(name);
  const given = { name: shown, size: bytes.length, bytes };
  return { name: shown, given, kind, isByName, ...readAs(kind, bytes) };
}

/** A file that was not read, and why; it can be taken for nothing else. */
export function unreadFile(name: string, size: number, why: string): Item {
  const shown = printable(name);
  const given = { name: shown, size, bytes: new Uint8Array(0) };
  return { name: shown, given, kind: 'ignored', isByName: false, contents: `not read: ${why}`, evidence: {} };
}

export const isRead = ({ given: { size, bytes } }: Item): boolean => bytes.length === size;

interface Guess {
  readonly kind: ItemKind;
  readonly isByName: boolean;
}

function guessKind(name: string, bytes: Uint8Array): Guess {
  const sure = (kind: ItemKind): Guess => ({ kind, isByName: false });
  const read = readCertificateInput(bytes);
  if (read.form !== 'table' && read.form !== 'unknown') {
    return sure(read.certificates.length > 0 ? 'certificates' : 'crl');
  }
  if (isReport(bytes)) {
    return sure('report');
  }
  return read.form === 'table' ? sure('table') : guessBroken(name, bytes);
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
function guessBroken(name: string, bytes: Uint8Array): Guess {
  const byName = (kind: ItemKind): Guess => ({ kind, isByName: true });
  if (/\.(pem|der|crt|cer|cert)$/i.test(name)) {
    return byName('certificates');
  }
  if (/\.crl$/i.test(name)) {
    return byName('crl');
  }
  // Key services answer errors with pages of HTML; other XML is a drawing or a setting.
  if (bytes[0] === '<'.charCodeAt(0)) {
    return { kind: isXml(bytes) ? 'ignored' : 'certificates', isByName: false };
  }
  if (/aux|table|certs/i.test(name)) {
    return byName('table');
  }
  // Evidence of other hardware was meant to be a report, and the verifier says what it is instead.
  if (startsLikeReport(bytes) || formOf(bytes).kind === 'intel') {
    return { kind: 'report', isByName: false };
  }
  return byName(/report|outblob/i.test(name) ? 'report' : 'ignored');
}

const isXml = (bytes: Uint8Array): boolean =>
  /^<(\?xml|svg|!DOCTYPE (?!html))/i.test(new TextDecoder('latin1').decode(bytes.subarray(0, 64)));

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
      return { contents: ignoredContents(bytes), evidence: {} };
  }
}

const ignoredContents = (bytes: Uint8Array): string =>
  isXml(bytes) ? 'an XML document: ignored' : 'no evidence: ignored';

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

/** Files, and what is to be said of how they came to be taken as they are. */
export interface Collection {
  readonly items: readonly Item[];
  readonly notes: readonly string[];
}

export const NO_FILES: Collection = { items: [], notes: [] };

/**
 * Adds items: there is one report and one table, so that a new one takes the place of the old, which is said.
 *
 * Shape    what only has the name of a report does not take the place of one
 */
export function withItems(items: readonly Item[], added: readonly Item[]): Collection {
  const all = added.reduce<readonly Item[]>((before, item) => {
    const kept = before.filter((old) => !isSameFile(old, item));
    return [...kept, { ...item, name: freeName(item.given.name, kept) }];
  }, items);
  return withOneOfEach(all, (rivals) => {
    const fresh = rivals.filter((item) => !items.includes(item));
    const old = rivals.find((item) => items.includes(item));
    const best = fresh.findLast(isWhole) ?? fresh.findLast(({ isByName }) => !isByName) ?? fresh.at(-1);
    return best === undefined || (old !== undefined && isWhole(old) && best.isByName) ? old! : best;
  });
}

/** Takes an item for something else, as somebody chose. */
export function retaken(items: readonly Item[], item: Item, kind: ItemKind): Collection {
  const { name, bytes } = item.given;
  const chosen = { ...takeFile(name, bytes, kind), name: item.name };
  const all = items.map((other) => (other === item ? chosen : other));
  return withOneOfEach(all, (rivals) => (rivals.includes(chosen) ? chosen : rivals[0]!));
}

const isSameFile = (a: Item, b: Item): boolean =>
  a.given.name === b.given.name && isRead(a) && isRead(b) && equalBytes(a.given.bytes, b.given.bytes);

function freeName(name: string, items: readonly Item[]): string {
  const taken = new Set(items.filter(({ given }) => given.name === name).map((item) => item.name));
  let free = name;
  for (let n = 2; taken.has(free); n++) {
    free = `${name} (${n})`;
  }
  return free;
}

/** The verifier may find fault with it, but it is all there. */
const isWhole = ({ evidence: { report, table } }: Item): boolean =>
  report === undefined
    ? table !== undefined && 'entries' in readCertificateTable(table)
    : report.length === REPORT_SIZE && startsLikeReport(report);

const ONLY_ONE = [
  ['report', 'report'],
  ['table', 'certificate table'],
] as const;

/** Leaves one report and one table: those set aside stay in the list, to be chosen again. */
function withOneOfEach(items: readonly Item[], choose: (rivals: readonly Item[]) => Item): Collection {
  let all = items;
  const notes: string[] = [];
  for (const [kind, noun] of ONLY_ONE) {
    const rivals = all.filter((item) => item.kind === kind);
    if (rivals.length < 2) {
      continue;
    }
    const used = choose(rivals);
    for (const other of rivals.filter((item) => item !== used)) {
      notes.push(
        other.isByName
          ? `${other.name} is no ${noun}, whatever its name says: ${used.name} is used.`
          : `${used.name} is the ${noun} now, in the place of ${other.name}.`,
      );
    }
    all = all.map((item) =>
      item.kind === kind && item !== used
        ? { ...item, kind: 'ignored', contents: `not used: ${used.name} is the ${noun}`, evidence: {} }
        : item,
    );
  }
  return { items: all, notes };
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
