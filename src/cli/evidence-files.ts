// SPDX-License-Identifier: Apache-2.0
/** Evidence from files and folders, as the options of `softsnp verify` name it. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PRODUCT_LINES } from '../abi/product.ts';
import { embeddedAuthority } from '../kds/authority.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { type CertificateInput, readCertificateInput, readReportInput } from '../verify/inputs.ts';
import { fileOption } from './options.ts';

export const MAX_FILE_BYTES = 1 << 20;
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
    const { report, forms, table } = readReportInput(fileOption('FILE', path, MAX_FILE_BYTES));
    return { report, forms, gathered: { ...NOTHING, table } };
  }
  const { report, forms, table } = readReportInput(fileOption('FILE', join(path, 'outblob'), MAX_FILE_BYTES));
  const hasAux = readdirSync(path).includes('auxblob');
  const aux = hasAux ? fileOption('FILE', join(path, 'auxblob'), MAX_FILE_BYTES) : new Uint8Array(0);
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
    return readCertificateInput(fileOption(option, path, MAX_FILE_BYTES));
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
  return files
    .map((name): [string, CertificateInput] => [
      name,
      readCertificateInput(fileOption(option, join(path, name), MAX_FILE_BYTES)),
    ])
    .filter(([name, { form }]) => form !== 'unknown' || CERTIFICATE_FILE.test(name))
    .reduce<Gathered>((all, [, input]) => merged(all, input), NOTHING);
}

/** The revocation lists of a file. */
export function crlFile(path: string): readonly Uint8Array[] {
  const bytes = fileOption('crl', path, MAX_FILE_BYTES);
  const { crls, certificates } = readCertificateInput(bytes);
  // Something else under this option is still looked at as a list, so that it is refused and not passed over.
  return crls.length > 0 ? crls : certificates;
}

/**
 * Trusted roots by name.
 *
 * Shape    softsnp, softsnp:milan ...: the test roots in this program; else a PEM or DER file
 */
export function trustedRoots(text: string): readonly Uint8Array[] {
  const [scheme, line] = text.split(':');
  if (scheme === 'softsnp') {
    const products = PRODUCT_LINES.filter(
      (product) => line === undefined || product.toLowerCase() === line.toLowerCase(),
    );
    if (products.length > 0) {
      return products.map((product) => embeddedAuthority(product).ark);
    }
    return certificateFiles('trust', line!).certificates;
  }
  const { certificates } = certificateFiles('trust', text);
  if (certificates.length === 0) {
    throw new InputError('OPTION_INVALID', `no certificate in ${text}`, { where: '--trust' });
  }
  return certificates;
}
