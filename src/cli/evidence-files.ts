// SPDX-License-Identifier: Apache-2.0
/** Evidence from files and folders, as the options of `softsnp verify` name it. */
import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import { ARK_GUID, ASK_GUID, CERT_GUIDS, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { readCertificateTable } from '../certs/table.ts';
import { embeddedAuthority } from '../kds/authority.ts';
import { equalBytes } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { decodedText } from '../lib/text.ts';
import { decodeHostState } from '../machine/state.ts';
import { errnoCode } from '../os/errno.ts';
import type { Evidence } from '../verify/evidence.ts';
import { startsLikeReport } from '../verify/form.ts';
import { type ReportInput, readCertificateInput, readReportInput, readTableInput } from '../verify/inputs.ts';
import { decodeCertificate } from '../verify/x509.ts';
import { fileLabel, fileOption, optionName, STANDARD_INPUT } from './options.ts';

/** Files that the caller wrote: a policy, a state. */
export const MAX_FILE_BYTES = 1 << 20;
/** Files that came from elsewhere get a verdict whatever is in them, up to a size nobody would call evidence. */
export const MAX_EVIDENCE_BYTES = 1 << 26;
/** What is larger is no certificate, list or table, and is read only where it is named as one. */
const MAX_STRANGER_BYTES = 1 << 20;
/** Far above any folder of evidence: more is another kind of folder. */
const MAX_FOLDER_FILES = 4096;
/** Certificates of one's own folders that are looked at. */
export const MAX_CERTIFICATES = 1024;

/** Bytes and the file they came from. */
export interface Named {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Certificates, lists and tables gathered from any number of places. */
export interface Gathered {
  readonly certificates: readonly Named[];
  readonly crls: readonly Named[];
  readonly tables: readonly Named[];
  /** Files of a folder that are nothing of the kind, but have the name of a certificate. */
  readonly passedOver: readonly Named[];
}

export const NOTHING: Gathered = { certificates: [], crls: [], tables: [], passedOver: [] };

export function merged(a: Gathered, b: Gathered): Gathered {
  return {
    certificates: [...a.certificates, ...b.certificates],
    crls: [...a.crls, ...b.crls],
    tables: [...a.tables, ...b.tables],
    passedOver: [...a.passedOver, ...b.passedOver],
  };
}

const isFolder = (option: string, path: string): boolean => {
  if (path === STANDARD_INPUT) {
    return false;
  }
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${path}: ${errnoCode(error)}`, {
      where: optionName(option),
      cause: error,
    });
  }
};

export interface ReportFile {
  readonly report: Uint8Array;
  readonly forms: readonly string[];
  /** What came in one with the report and is judged with it. */
  readonly beside: Pick<Evidence, 'runtimeData' | 'provider'>;
  readonly gathered: Gathered;
}

/**
 * A report with what stands beside it.
 *
 * Shape    a file in any form readReportInput knows, or a configfs-tsm folder with outblob and auxblob
 */
export function reportFile(path: string, option = 'FILE'): ReportFile {
  if (!isFolder(option, path)) {
    const input = readReportInput(fileOption(option, path, MAX_EVIDENCE_BYTES));
    const { report, forms, table } = input;
    return { report, forms, beside: besideOf(input), gathered: ownTable(fileLabel(path), table) };
  }
  const input = readReportInput(fileOption(option, join(path, 'outblob'), MAX_EVIDENCE_BYTES));
  const { report, forms, table } = input;
  const names = readdirSync(path);
  const read = (name: string, maxBytes: number): Uint8Array =>
    names.includes(name) ? fileOption(option, join(path, name), maxBytes) : new Uint8Array(0);
  const aux = read('auxblob', MAX_EVIDENCE_BYTES);
  const provider = decodedText(read('provider', MAX_PROVIDER_BYTES)) ?? '';
  return {
    report,
    forms: [...forms, 'configfs-tsm'],
    beside: { ...besideOf(input), ...(provider === '' ? {} : { provider }) },
    gathered: aux.length > 0 ? tableInput(join(path, 'auxblob'), aux) : ownTable(fileLabel(path), table),
  };
}

/** configfs shows a page at most. */
const MAX_PROVIDER_BYTES = 4096;

const besideOf = ({ runtimeData, provider }: ReportInput): ReportFile['beside'] => ({
  ...(runtimeData === null ? {} : { runtimeData }),
  ...(provider === null ? {} : { provider }),
});

const ownTable = (name: string, bytes: Uint8Array | null): Gathered => ({
  ...NOTHING,
  tables: bytes === null ? [] : [{ name, bytes }],
});

const tableInput = (name: string, bytes: Uint8Array): Gathered => ownTable(name, readTableInput(bytes));

/** The table in a file, in binary, hexadecimal or base64. */
export const tableFile = (path: string): Gathered =>
  tableInput(fileLabel(path), fileOption('table', path, MAX_EVIDENCE_BYTES));

const CERTIFICATE_FILE = /\.(pem|der|crt|cer|crl|cert)$/i;
const CERTIFICATE_NAME = /vcek|vlek|asvk|\bask\b|\bark\b|cert|chain/i;

/** The certificates of a file, or of every file of a folder that holds any. */
export function certificateFiles(option: string, path: string): Gathered {
  if (!isFolder(option, path)) {
    return certificateInput(fileLabel(path), fileOption(option, path, MAX_EVIDENCE_BYTES)).gathered;
  }
  const names = readdirSync(path).sort();
  if (names.length > MAX_FOLDER_FILES) {
    throw new InputError('OPTION_INVALID', `${names.length} files, more than ${MAX_FOLDER_FILES}`, {
      where: path,
      action: 'Put the certificates and lists that are meant into a folder of their own.',
    });
  }
  // The limit is one for the folder, or its files together would have none.
  let left = MAX_EVIDENCE_BYTES;
  let found = NOTHING;
  for (const name of names) {
    const file = join(path, name);
    const isNamed = CERTIFICATE_FILE.test(name);
    const size = fileSize(option, file, isNamed);
    if (size === null || (size > MAX_STRANGER_BYTES && !isNamed)) {
      continue;
    }
    const bytes = fileOption(option, file, left);
    left -= bytes.length;
    // The report that the certificates are for: neither one of them, nor one that is damaged.
    if (!isNamed && isReport(bytes)) {
      continue;
    }
    const { gathered, isKnown } = certificateInput(file, bytes);
    if (isKnown || isNamed) {
      found = merged(found, gathered);
    } else if (CERTIFICATE_NAME.test(name)) {
      found = merged(found, { ...NOTHING, passedOver: [{ name: file, bytes }] });
    }
  }
  return found;
}

/** Bytes of a regular file behind any number of links, as Kubernetes mounts them; null for anything else. */
function fileSize(option: string, path: string, isNeeded: boolean): number | null {
  try {
    const stat = statSync(path);
    return stat.isFile() ? stat.size : null;
  } catch (error) {
    if (!isNeeded) {
      return null;
    }
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${path}: ${errnoCode(error)}`, {
      where: optionName(option),
      cause: error,
    });
  }
}

function isReport(bytes: Uint8Array): boolean {
  try {
    const { report } = readReportInput(bytes);
    return report.length === REPORT_SIZE && startsLikeReport(report);
  } catch (error) {
    if (error instanceof InputError) {
      // A firmware response that carries a status instead of a report.
      return true;
    }
    throw error;
  }
}

function certificateInput(name: string, input: Uint8Array): { gathered: Gathered; isKnown: boolean } {
  const { certificates, crls, table, form } = readCertificateInput(input);
  const named = (all: readonly Uint8Array[]): readonly Named[] =>
    all.map((bytes, i) => ({ name: all.length === 1 ? name : `${name}[${i}]`, bytes }));
  const gathered = {
    certificates: named(certificates),
    crls: named(crls),
    tables: table === null ? [] : [{ name, bytes: table }],
    passedOver: [],
  };
  return { gathered, isKnown: form !== 'unknown' };
}

/** The revocation lists of a file, or of a folder. */
export function crlFiles(path: string): readonly Named[] {
  const { crls, certificates, tables } = certificateFiles('crl', path);
  if (crls.length > 0) {
    return crls;
  }
  if (isFolder('crl', path)) {
    throw new InputError('OPTION_INVALID', 'no revocation list in this folder', {
      where: path,
      action:
        'Fetch it with softsnp kds fetch crl --product milan (genoa, turin) --out crl.pem, or go without one by --no-crl.',
    });
  }
  // Something else under this option is still looked at as a list, so that it is refused and not passed over.
  return [...certificates, ...tables];
}

/**
 * The certificates and lists that files make together.
 *
 * Shape    the first table is the one that is judged as a table; what the others hold is taken out of them, and
 *          those that cannot be read are passed over and named in `notes`
 */
export function certificatesIn(gathered: Gathered): {
  readonly certificates: Omit<Evidence, 'report'>;
  readonly notes: readonly string[];
} {
  const [table, ...others] = gathered.tables;
  const notes: string[] = [];
  const certificates = [...gathered.certificates];
  const crls = [...gathered.crls];
  for (const { name, bytes } of others) {
    const reading = readCertificateTable(bytes);
    if ('fault' in reading) {
      notes.push(`${name} is not used: ${table!.name} is the table, and this one cannot be read`);
      continue;
    }
    for (const { guid, data } of reading.entries) {
      const named = (der: Uint8Array): Named => ({ name: `${name}.${CERT_GUIDS[guid]}`, bytes: der });
      if (guid === CRL_GUID) {
        crls.push(named(data));
      } else if (CERTIFICATE_GUIDS.includes(guid)) {
        certificates.push(...readCertificateInput(data).certificates.map(named));
      }
    }
  }
  const evidence = {
    certificates: certificates.map(({ bytes }) => bytes),
    crls: crls.map(({ bytes }) => bytes),
    ...(table === undefined ? {} : { table: table.bytes }),
    labels: {
      certificates: certificates.map(({ name }) => name),
      crls: crls.map(({ name }) => name),
      ...(table === undefined ? {} : { table: table.name }),
    },
  };
  return { certificates: evidence, notes };
}

const CERTIFICATE_GUIDS: readonly string[] = [VCEK_GUID, VLEK_GUID, ASK_GUID, ARK_GUID];

/**
 * Trusted roots by name.
 *
 * Shape    softsnp: all test roots of this program; softsnp:milan, softsnp:STATE: the one of that line, or of
 *          the host of a state folder; else a PEM or DER file, of which the self-issued certificates count
 * Errors   OPTION_INVALID when there is none
 */
export function trustedRoots(text: string): readonly Uint8Array[] {
  if (text === 'softsnp') {
    return PRODUCT_LINES.map((product) => embeddedAuthority(product).ark);
  }
  if (text.startsWith('softsnp:')) {
    const name = text.slice('softsnp:'.length);
    const line = PRODUCT_LINES.find((product) => product.toLowerCase() === name.toLowerCase());
    return [embeddedAuthority(line ?? productOfState(name)).ark];
  }
  const roots = certificateFiles('trust', text)
    .certificates.map(({ bytes }) => bytes)
    .filter(isSelfIssued);
  if (roots.length === 0) {
    throw new InputError('OPTION_INVALID', `no root certificate in ${text}`, {
      where: '--trust',
      action:
        'Name the file with the ARK: a root is issued by itself, ASK, ASVK, VCEK and VLEK are not. --trust softsnp is for evidence of softsnp.',
    });
  }
  return roots;
}

/** As host-state.ts has it; importing that would load the whole machine for a file name. */
const STATE_FILE = 'state.json';

function productOfState(folder: string): ProductLine {
  const path = join(folder, STATE_FILE);
  const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
  return decodeHostState({ sha256 }, fileOption('trust', path, MAX_FILE_BYTES), path).product;
}

function isSelfIssued(der: Uint8Array): boolean {
  try {
    const { subject, issuer } = decodeCertificate(der);
    return equalBytes(subject.der, issuer.der);
  } catch (error) {
    if (error instanceof InputError) {
      return false;
    }
    throw error;
  }
}
