// SPDX-License-Identifier: Apache-2.0
/** Evidence from files, folders and the key service, as the options of `softsnp verify` name it. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { decodeTcb } from '../abi/tcb-version.ts';
import { fromPem } from '../certs/pem.ts';
import { embeddedAuthority } from '../kds/authority.ts';
import { formatKdsTarget, hwidOfChipId } from '../kds/url.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { type CertificateInput, readCertificateInput, readReportInput } from '../verify/inputs.ts';
import { decodeReport, productOfReport, wantedKind } from '../verify/report.ts';
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

const FETCH_TIMEOUT_MS = 20_000;
const MAX_ANSWER_BYTES = 1 << 18;

/** What could not be fetched: the URL and why. */
export interface Unfetched {
  readonly url: string;
  readonly why: string;
}

export interface Fetched extends Gathered {
  readonly failures: readonly Unfetched[];
}

/**
 * Fetches what belongs to a report from a key service: VCEK, chain and revocation list.
 *
 * Returns  what came, and what did not with the reason; a VLEK certificate cannot be had there
 */
export async function fetchEvidence(
  base: string,
  reportBytes: Uint8Array,
  told: ProductLine | null,
): Promise<Fetched> {
  const { report } = decodeReport(reportBytes);
  if (report === null) {
    return { ...NOTHING, failures: [] };
  }
  const own = productOfReport(report) ?? told;
  const failures: Unfetched[] = [];
  // A version 2 report names no product line; a chip of the other line is simply not known there.
  for (const product of own === null ? (['Milan', 'Genoa'] as const) : [own]) {
    const kind = wantedKind(report) === 'VLEK' ? 'vlek' : 'vcek';
    const certificates: Uint8Array[] = [];
    if (kind === 'vcek') {
      const hwid = hwidOfChipId(product, report.chip_id);
      if (hwid === null) {
        return { ...NOTHING, failures: [{ url: base, why: 'CHIP_ID is masked: nobody can fetch the VCEK' }] };
      }
      const tcb = decodeTcb(report.reported_tcb, product);
      const leaf = await get(base, formatKdsTarget({ type: 'vcek', product, hwid, tcb }));
      if (!(leaf instanceof Uint8Array)) {
        failures.push(leaf);
        continue;
      }
      certificates.push(leaf);
    }
    const chain = await get(base, formatKdsTarget({ type: 'cert_chain', path: kind, product }));
    const crl = await get(base, formatKdsTarget({ type: 'crl', path: kind, product }));
    const missing = [chain, crl].filter((answer): answer is Unfetched => !(answer instanceof Uint8Array));
    return {
      certificates: [...certificates, ...(chain instanceof Uint8Array ? pemCertificates(chain) : [])],
      crls: crl instanceof Uint8Array ? [crl] : [],
      table: null,
      failures: missing,
    };
  }
  return { ...NOTHING, failures };
}

const pemCertificates = (answer: Uint8Array): readonly Uint8Array[] =>
  fromPem(new TextDecoder().decode(answer));

async function get(base: string, target: string): Promise<Uint8Array | Unfetched> {
  const url = `${base.replace(/\/+$/, '')}${target}`;
  try {
    const answer = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
    if (answer.status !== 200) {
      await answer.body?.cancel();
      return { url, why: `HTTP status ${answer.status}` };
    }
    return await bounded(answer, url);
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    return { url, why: errnoCode(cause) };
  }
}

/** The body, as long as it is of a size that an honest answer has. */
async function bounded(answer: Response, url: string): Promise<Uint8Array | Unfetched> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) {
      return { url, why: `an answer of more than ${MAX_ANSWER_BYTES} bytes` };
    }
    chunks.push(chunk);
  }
  return Uint8Array.from(Buffer.concat(chunks));
}
