// SPDX-License-Identifier: Apache-2.0
/** Evidence from files and folders, as the options of `softsnp verify` name it. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { embeddedAuthority } from '../kds/authority.ts';
import { equalBytes } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { decodeHostState } from '../machine/state.ts';
import { errnoCode } from '../os/errno.ts';
import { readCertificateInput, readReportInput } from '../verify/inputs.ts';
import { decodeCertificate } from '../verify/x509.ts';
import { fileOption } from './options.ts';

/** Files that the caller wrote: a policy, a state. */
export const MAX_FILE_BYTES = 1 << 20;
/** Files that came from elsewhere get a verdict whatever is in them, up to a size nobody would call evidence. */
export const MAX_EVIDENCE_BYTES = 1 << 26;
/** A folder of evidence has a dozen files; more is another kind of folder. */
const MAX_FOLDER_FILES = 64;

/** Certificates and lists gathered from any number of places. */
export interface Gathered {
  readonly certificates: readonly Uint8Array[];
  readonly crls: readonly Uint8Array[];
  readonly table: Uint8Array | null;
}

export const NOTHING: Gathered = { certificates: [], crls: [], table: null };

export function merged(a: Gathered, b: Gathered): Gathered {
  return {
    certificates: [...a.certificates, ...b.certificates],
    crls: [...a.crls, ...b.crls],
    table: a.table ?? b.table,
  };
}

const isFolder = (option: string, path: string): boolean => {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${path}: ${errnoCode(error)}`, {
      where: option,
      cause: error,
    });
  }
};

export interface ReportFile {
  readonly report: Uint8Array;
  readonly forms: readonly string[];
  readonly gathered: Gathered;
}

/**
 * A report with what stands beside it.
 *
 * Shape    a file in any form readReportInput knows, or a configfs-tsm folder with outblob and auxblob
 */
export function reportFile(path: string): ReportFile {
  if (!isFolder('FILE', path)) {
    const { report, forms, table } = readReportInput(fileOption('FILE', path, MAX_EVIDENCE_BYTES));
    return { report, forms, gathered: { ...NOTHING, table } };
  }
  const { report, forms, table } = readReportInput(
    fileOption('FILE', join(path, 'outblob'), MAX_EVIDENCE_BYTES),
  );
  const hasAux = readdirSync(path).includes('auxblob');
  const aux = hasAux ? fileOption('FILE', join(path, 'auxblob'), MAX_EVIDENCE_BYTES) : new Uint8Array(0);
  return {
    report,
    forms: [...forms, 'configfs-tsm'],
    gathered: { ...NOTHING, table: aux.length > 0 ? aux : table },
  };
}

const CERTIFICATE_FILE = /\.(pem|der|crt|cer|crl|cert)$/i;

/** The certificates of a file, or of every file of a folder that holds any. */
export function certificateFiles(option: string, path: string): Gathered {
  if (!isFolder(option, path)) {
    return readCertificateInput(fileOption(option, path, MAX_EVIDENCE_BYTES));
  }
  const files = readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)
    .sort();
  if (files.length > MAX_FOLDER_FILES) {
    throw new InputError('OPTION_INVALID', `${files.length} files, more than ${MAX_FOLDER_FILES}`, {
      where: path,
    });
  }
  // The limit is one for the folder, or its files together would have none.
  let left = MAX_EVIDENCE_BYTES;
  let found = NOTHING;
  for (const name of files) {
    const bytes = fileOption(option, join(path, name), left);
    left -= bytes.length;
    const input = readCertificateInput(bytes);
    if (input.form !== 'unknown' || CERTIFICATE_FILE.test(name)) {
      found = merged(found, input);
    }
  }
  return found;
}

/** The revocation lists of a file. */
export function crlFile(path: string): readonly Uint8Array[] {
  const bytes = fileOption('crl', path, MAX_EVIDENCE_BYTES);
  const { crls, certificates } = readCertificateInput(bytes);
  // Something else under this option is still looked at as a list, so that it is refused and not passed over.
  return crls.length > 0 ? crls : certificates;
}

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
  const roots = certificateFiles('trust', text).certificates.filter(isSelfIssued);
  if (roots.length === 0) {
    throw new InputError('OPTION_INVALID', `no root certificate in ${text}`, { where: '--trust' });
  }
  return roots;
}

/** As host-state.ts has it; importing that would load the whole machine for a file name. */
const STATE_FILE = 'state.json';

function productOfState(folder: string): ProductLine {
  const path = join(folder, STATE_FILE);
  return decodeHostState(fileOption('trust', path, MAX_FILE_BYTES), path).product;
}

function isSelfIssued(der: Uint8Array): boolean {
  const { subject, issuer } = decodeCertificate(der);
  return equalBytes(subject.der, issuer.der);
}
