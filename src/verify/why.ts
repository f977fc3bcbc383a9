// SPDX-License-Identifier: Apache-2.0
/**
 * Why evidence was refused, found by trying: each hypothesis changes or compares one thing, and is a cause
 * only if that explains what was found. The verdict is never touched: what is named here is for people.
 */
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import { CERT_GUIDS, CERT_TABLE_ENTRY_SIZE, guidText } from '../abi/cert-table.ts';
import { PRODUCTS, type ProductLine } from '../abi/product.ts';
import {
  decodeTcb,
  formatTcb,
  type TcbComponent,
  type TcbParts,
  tcbAtMost,
  tcbComponents,
} from '../abi/tcb-version.ts';
import { certificatesOf } from '../certs/pem.ts';
import { copyOf, isZero, reversed, toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { CAUSES, type CauseCode } from './causes.ts';
import {
  type AsyncVerifyCrypto,
  type Judging,
  runAsync,
  runSync,
  type VerifyCrypto,
  verifyEcdsaP384,
} from './crypto.ts';
import type { Evidence } from './evidence.ts';
import { type FindingCode, isError } from './findings.ts';
import { readReportInput } from './inputs.ts';
import { type Report, SIGNATURE_PART_SIZE, signedBytesOf, wantedKind } from './report.ts';
import type { VerifyResult } from './verify.ts';
import { Oid } from './x509.ts';

/** A cause that explains findings. */
export interface Explanation {
  readonly code: CauseCode;
  readonly cause: string;
  /** What was tried and what it showed. */
  readonly because: string;
  readonly cure: string;
  /** The findings it explains. */
  readonly explains: readonly FindingCode[];
}

/** Looks for the causes of a refusal; none for accepted evidence. */
export function explain(evidence: Evidence, result: VerifyResult, crypto: VerifyCrypto): Explanation[] {
  return runSync(crypto, search(evidence, result));
}

/** The same with WebCrypto. */
export function explainAsync(
  evidence: Evidence,
  result: VerifyResult,
  crypto: AsyncVerifyCrypto,
): Promise<Explanation[]> {
  return runAsync(crypto, search(evidence, result));
}

interface Case {
  readonly evidence: Evidence;
  readonly result: VerifyResult;
  /** Codes of the errors. */
  readonly errors: ReadonlySet<FindingCode>;
}

function* search(evidence: Evidence, result: VerifyResult): Judging<Explanation[]> {
  const errors = new Set(result.findings.filter(isError).map(({ code }) => code));
  const refused: Case = { evidence, result, errors };
  return [
    ...reportForm(refused),
    ...certificateForm(refused),
    ...certificateKind(refused),
    ...certificateTcb(refused),
    ...certificateChip(refused),
    ...intermediates(refused),
    ...roots(refused),
    ...(yield* signature(refused)),
  ];
}

function explanation(
  code: CauseCode,
  because: string,
  explains: readonly FindingCode[],
  cure?: string,
): Explanation {
  const row = CAUSES[code];
  return { code, cause: row.cause, because, cure: cure ?? row.cure, explains };
}

function reportForm({ evidence, errors }: Case): Explanation[] {
  if (!errors.has('REPORT_LENGTH_MISMATCH')) {
    return [];
  }
  const { report } = evidence;
  const explains = ['REPORT_LENGTH_MISMATCH'] as const;
  try {
    const { forms } = readReportInput(report);
    const form = forms.join(', ');
    const isText = forms.some((name) => name === 'hexadecimal' || name === 'base64' || name.endsWith('JSON'));
    if (forms.length > 0) {
      return [
        explanation(
          isText ? 'REPORT_IS_TEXT' : 'REPORT_IS_WRAPPED',
          `Read as ${form} it is a report.`,
          explains,
        ),
      ];
    }
  } catch (error) {
    if (error instanceof InputError) {
      return [explanation('REPORT_IS_WRAPPED', error.message, explains)];
    }
    throw error;
  }
  const startsWell =
    report.length >= 4 && report[0]! >= 2 && report[0]! <= 5 && isZero(report.subarray(1, 4));
  return startsWell && report.length < REPORT_SIZE
    ? [
        explanation(
          'REPORT_IS_TRUNCATED',
          `${REPORT_SIZE - report.length} of ${REPORT_SIZE} bytes are missing.`,
          explains,
        ),
      ]
    : [];
}

/** First characters of something that is text and no PEM, or null. */
function textStart(bytes: Uint8Array): string | null {
  const start = bytes.subarray(0, 200);
  const isText = start.length > 0 && start.every((byte) => byte >= 9 && byte < 0x7f);
  return isText ? new TextDecoder().decode(start).trim().replace(/\s+/g, ' ').slice(0, 80) : null;
}

function certificateForm({ evidence, result, errors }: Case): Explanation[] {
  const found: Explanation[] = [];
  if (errors.has('CERT_MALFORMED')) {
    for (const der of evidence.certificates ?? []) {
      const start = textStart(der);
      if (start !== null && isPem(der)) {
        found.push(explanation('CERT_IS_PEM', 'Decoded from PEM it is a certificate.', ['CERT_MALFORMED']));
      } else if (start !== null) {
        found.push(
          explanation('CERT_IS_ERROR_PAGE', `It begins: ${start}`, ['CERT_MALFORMED', 'LEAF_MISSING']),
        );
      }
    }
  }
  if (errors.has('LEAF_MISSING')) {
    found.push(...missingLeaf(evidence, result));
  }
  return found;
}

function isPem(bytes: Uint8Array): boolean {
  try {
    return certificatesOf(bytes).length > 0;
  } catch {
    return false;
  }
}

function missingLeaf({ table }: Evidence, { report, product }: VerifyResult): Explanation[] {
  const found: Explanation[] = [];
  const swapped = table === undefined ? 0 : swappedGuids(table);
  if (swapped > 0) {
    found.push(
      explanation(
        'TABLE_GUIDS_SWAPPED',
        `With their first three groups turned around ${swapped} GUIDs are known.`,
        ['LEAF_MISSING'],
      ),
    );
  }
  if (report === null) {
    return found;
  }
  if (wantedKind(report) !== 'VCEK') {
    return [...found, explanation('NO_CERTIFICATE', 'SIGNING_KEY is 1: a VLEK is wanted.', ['LEAF_MISSING'])];
  }
  if (isZero(report.chip_id)) {
    found.push(explanation('CHIP_ID_MASKED', 'CHIP_ID is zero and SIGNING_KEY says VCEK.', ['LEAF_MISSING']));
  } else {
    const line = product ?? 'Milan';
    const because =
      product === null
        ? 'A version 2 report does not name its product line: it is Milan or Genoa.'
        : `The report is of a ${product} part and of REPORTED_TCB ${formatTcb(decodeTcb(report.reported_tcb, product), product)}.`;
    const code = product === 'Turin' ? 'TURIN_URL' : 'NO_CERTIFICATE';
    found.push(explanation(code, because, ['LEAF_MISSING'], `Fetch ${vcekUrl(report, line)}`));
  }
  return found;
}

/** Entries whose GUID is known once its first three groups are turned around. */
function swappedGuids(table: Uint8Array): number {
  let count = 0;
  for (
    let at = 0;
    at + CERT_TABLE_ENTRY_SIZE <= Math.min(table.length, 16 * CERT_TABLE_ENTRY_SIZE);
    at += CERT_TABLE_ENTRY_SIZE
  ) {
    const guid = copyOf(table, at, at + 16);
    guid.subarray(0, 4).reverse();
    guid.subarray(4, 6).reverse();
    guid.subarray(6, 8).reverse();
    count += guidText(guid) in CERT_GUIDS ? 1 : 0;
  }
  return count;
}

function certificateKind({ result, errors }: Case): Explanation[] {
  const { report, chain } = result;
  const kind = chain.leaf?.role?.kind;
  if (!errors.has('CERT_KIND_MISMATCH') || report === null) {
    return [];
  }
  const wanted = wantedKind(report);
  const explains = ['CERT_KIND_MISMATCH', 'SIGNATURE_MISMATCH'] as const;
  if (wanted === 'VCEK' && kind === 'VLEK') {
    return [
      explanation(
        'VLEK_FOR_VCEK_REPORT',
        'SIGNING_KEY is 0; the subject of the certificate is SEV-VLEK.',
        explains,
      ),
    ];
  }
  if (wanted === 'VLEK' && kind === 'VCEK') {
    return [
      explanation(
        'VCEK_FOR_VLEK_REPORT',
        'SIGNING_KEY is 1; the subject of the certificate is SEV-VCEK.',
        explains,
      ),
    ];
  }
  return [];
}

function certificateTcb({ result, errors }: Case): Explanation[] {
  const { report, product, chain } = result;
  const certified = chain.leaf?.endorsement?.tcb ?? null;
  if (!errors.has('TCB_MISMATCH') || report === null || product === null || certified === null) {
    return [];
  }
  const explains = ['TCB_MISMATCH', 'SIGNATURE_MISMATCH'] as const;
  const text = formatTcb(certified, product);
  const cure =
    wantedKind(report) === 'VCEK' && !isZero(report.chip_id)
      ? `Fetch ${vcekUrl(report, product)}`
      : undefined;
  const found: Explanation[] = [];
  for (const [code, field] of [
    ['CERT_OF_CURRENT_TCB', 'current_tcb'],
    ['CERT_OF_COMMITTED_TCB', 'committed_tcb'],
    ['CERT_OF_LAUNCH_TCB', 'launch_tcb'],
  ] as const) {
    if (sameParts(certified, decodeTcb(report[field], product), product)) {
      found.push(
        explanation(
          code,
          `Certificate and ${field} both say ${text} (${tcbComponents(product).join(',')}).`,
          explains,
          cure,
        ),
      );
    }
  }
  if (found.length > 0) {
    return found;
  }
  if (errors.has('CHIP_ID_MISMATCH')) {
    return [];
  }
  const reported = decodeTcb(report.reported_tcb, product);
  const because = `The certificate says ${text}, REPORTED_TCB is ${formatTcb(reported, product)}.`;
  if (tcbAtMost(certified, reported, product)) {
    return [explanation('CERT_IS_STALE', because, explains, cure)];
  }
  return tcbAtMost(reported, certified, product)
    ? [explanation('CERT_IS_AHEAD', because, explains, cure)]
    : [];
}

const sameParts = (a: TcbParts, b: TcbParts, product: ProductLine): boolean =>
  tcbComponents(product).every((component) => a[component] === b[component]);

function certificateChip({ result, errors }: Case): Explanation[] {
  const { report, product, chain } = result;
  const hwId = chain.leaf?.endorsement?.hwId ?? null;
  if (!errors.has('CHIP_ID_MISMATCH') || report === null || product === null || hwId === null) {
    return [];
  }
  const short = (id: Uint8Array): string => `${toHex(id.subarray(0, 8))}${id.length > 8 ? '…' : ''}`;
  return [
    explanation(
      'CERT_OF_ANOTHER_CHIP',
      `The report is of chip ${short(report.chip_id)}, the certificate of chip ${short(hwId)}.`,
      ['CHIP_ID_MISMATCH', 'SIGNATURE_MISMATCH'],
      `Fetch ${vcekUrl(report, product)}`,
    ),
  ];
}

function intermediates({ result, errors }: Case): Explanation[] {
  const role = result.chain.leaf?.role ?? null;
  const missing = result.findings.find(({ code }) => code === 'INTERMEDIATE_MISSING');
  const present = missing?.actual ?? '';
  if (role !== null && missing !== undefined && present !== 'none') {
    const explains = ['INTERMEDIATE_MISSING'] as const;
    const because = `There is CN=${present} where ${missing.expected} is wanted.`;
    const names = present.split(', ');
    if (role.kind === 'VLEK' && names.includes(`SEV-${role.product}`)) {
      return [explanation('ASK_FOR_VLEK', because, explains)];
    }
    if (role.kind === 'VCEK' && names.includes(`SEV-VLEK-${role.product}`)) {
      return [explanation('ASVK_FOR_VCEK', because, explains)];
    }
    return [explanation('INTERMEDIATE_OF_ANOTHER_LINE', because, explains)];
  }
  const isLeafUnsigned = result.findings.some(
    ({ code, where }) => code === 'CERT_SIGNATURE_MISMATCH' && where.startsWith(`${role?.kind}.`),
  );
  const isChainGood = !result.findings.some(
    ({ code, where }) => code === 'CERT_SIGNATURE_MISMATCH' && !where.startsWith(`${role?.kind}.`),
  );
  if (isLeafUnsigned && isChainGood && !errors.has('ROOT_UNTRUSTED') && result.chain.intermediate !== null) {
    const { serial } = result.chain.intermediate.certificate;
    return [
      explanation(
        'INTERMEDIATE_REPLACED',
        `The root vouches for the intermediate of serial 0x${serial}, but that one did not sign the leaf.`,
        ['CERT_SIGNATURE_MISMATCH'],
      ),
    ];
  }
  return [];
}

function roots({ result, errors }: Case): Explanation[] {
  const { root, leaf } = result.chain;
  const found: Explanation[] = [];
  const comment = root?.certificate.extensions.find(({ oid }) => oid === Oid.nsComment);
  if (errors.has('ROOT_UNTRUSTED') && comment !== undefined) {
    const text = new TextDecoder().decode(comment.value.subarray(2));
    found.push(explanation('SOFTSNP_ROOT', `The root says of itself: ${text}.`, ['ROOT_UNTRUSTED']));
  }
  const expired = result.findings.find(
    ({ code, where }) => code === 'CERT_EXPIRED' && where.startsWith('VLEK'),
  );
  if (expired !== undefined && leaf !== null) {
    found.push(explanation('EXPIRED_VLEK', `Valid ${expired.expected}.`, ['CERT_EXPIRED']));
  }
  return found;
}

/** What explains a wrong signature better than the signature itself. */
const EXPLAINS_SIGNATURE: readonly FindingCode[] = [
  'TCB_MISMATCH',
  'CHIP_ID_MISMATCH',
  'CERT_KIND_MISMATCH',
  'REPORT_UNSIGNED',
  'PRODUCT_MISMATCH',
];

function* signature({ evidence, result, errors }: Case): Judging<Explanation[]> {
  const { report, product, chain } = result;
  const key = chain.leaf?.certificate.key;
  if (!errors.has('SIGNATURE_MISMATCH') || report === null || key?.kind !== 'p384') {
    return [];
  }
  const explains: readonly FindingCode[] = ['SIGNATURE_MISMATCH'];
  const message = signedBytesOf(evidence.report);
  const { r, s } = { r: report.signature_r, s: report.signature_s };
  const part = (field: Uint8Array): Uint8Array => field.slice(0, SIGNATURE_PART_SIZE);
  const bigEndian = [
    [part(r), part(s)],
    // Turned around with its padding: 24 zero bytes, then the value.
    [r.slice(72 - SIGNATURE_PART_SIZE), s.slice(72 - SIGNATURE_PART_SIZE)],
  ] as const;
  for (const [bigR, bigS] of bigEndian) {
    if (yield* verifyEcdsaP384(key.point, message, bigR, bigS)) {
      return [explanation('SIGNATURE_BIG_ENDIAN', 'Read in big-endian the signature verifies.', explains)];
    }
  }
  if (yield* verifyEcdsaP384(key.point, message, reversed(part(s)), reversed(part(r)))) {
    return [
      explanation('SIGNATURE_PARTS_SWAPPED', 'With R and S exchanged the signature verifies.', explains),
    ];
  }
  const cpuid = yield* lostCpuid(message, report, key.point);
  if (cpuid !== null) {
    return [
      explanation(
        'REPORT_LOST_CPUID',
        `With CPUID bytes ${cpuid} at 0x188 the signature verifies.`,
        explains,
      ),
    ];
  }
  const isExplained = EXPLAINS_SIGNATURE.some((code) => errors.has(code));
  return isExplained || product === null
    ? []
    : [explanation('REPORT_CHANGED', 'Nothing else differs between report and certificate.', explains)];
}

/** Tries the CPUID bytes of every model and the lower steppings where a version 3 report has none. */
function* lostCpuid(message: Uint8Array, report: Report, point: Uint8Array): Judging<string | null> {
  const at = 0x188;
  if (report.version < 3 || !isZero(message.subarray(at, at + 3))) {
    return null;
  }
  const r = reversed(report.signature_r.subarray(0, SIGNATURE_PART_SIZE));
  const s = reversed(report.signature_s.subarray(0, SIGNATURE_PART_SIZE));
  for (const { family, models } of PRODUCTS) {
    for (const model of new Set([models[0], models[0] + 1, models[0] + 2, models[1]])) {
      for (const step of [0, 1, 2]) {
        const whole = copyOf(message);
        whole.set([family, model, step], at);
        if (yield* verifyEcdsaP384(point, whole, r, s)) {
          return toHex(whole.subarray(at, at + 3));
        }
      }
    }
  }
  return null;
}

const SPL_PARAMETERS: Readonly<Record<TcbComponent, string>> = {
  fmc: 'fmcSPL',
  boot_loader: 'blSPL',
  tee: 'teeSPL',
  snp: 'snpSPL',
  microcode: 'ucodeSPL',
};

/** URL at AMD's key service of the VCEK that signed a report. */
export function vcekUrl(report: Report, product: ProductLine): string {
  const chip = product === 'Turin' ? report.chip_id.subarray(0, 8) : report.chip_id;
  const tcb = decodeTcb(report.reported_tcb, product);
  const query = tcbComponents(product).map(
    (component) => `${SPL_PARAMETERS[component]}=${String(tcb[component]).padStart(2, '0')}`,
  );
  return `https://kdsintf.amd.com/vcek/v1/${product}/${toHex(chip)}?${query.join('&')}`;
}
