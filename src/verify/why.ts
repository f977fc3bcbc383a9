// SPDX-License-Identifier: Apache-2.0
/**
 * Why evidence was refused, found by trying: each hypothesis changes or compares one thing, and is a cause
 * only if that explains what was found. The verdict is never touched: what is named here is for people.
 */
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import {
  ARK_GUID,
  ASK_GUID,
  CERT_GUIDS,
  CERT_TABLE_ENTRY_SIZE,
  guidText,
  VCEK_GUID,
  VLEK_GUID,
} from '../abi/cert-table.ts';
import { PRODUCTS, type ProductLine } from '../abi/product.ts';
import {
  decodeTcb,
  formatTcb,
  splQuery,
  type TcbParts,
  tcbAtMost,
  tcbComponents,
} from '../abi/tcb-version.ts';
import { certificatesOf, isOneDerSequence } from '../certs/pem.ts';
import { readCertificateTable } from '../certs/table.ts';
import { TEST_ROOT_COMMENT } from '../certs/test-root.ts';
import { copyOf, isZero, reversed, toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { printable } from '../lib/text.ts';
import type { Path } from './cache.ts';
import { CAUSES, type CauseCode } from './causes.ts';
import type { CertificatesResult } from './certificates.ts';
import {
  type AsyncVerifyCrypto,
  type Judging,
  runAsync,
  runSync,
  type VerifyCrypto,
  verifyEcdsaP384,
} from './crypto.ts';
import type { Evidence } from './evidence.ts';
import { type Finding, type FindingCode, isError } from './findings.ts';
import { type FormKind, formOf, startsLikeReport } from './form.ts';
import { readReportInput } from './inputs.ts';
import { productOfReport, type Report, SIGNATURE_PART_SIZE, signedBytesOf, wantedKind } from './report.ts';
import { type CertificateRole, issuerRole, subjectCommonName } from './roles.ts';
import { AMD_FINGERPRINTS } from './trust.ts';
import type { VerifyResult } from './verify.ts';
import { commentOf } from './x509.ts';

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

/** Looks for the causes of refused certificates without a report. */
export function explainCertificates(
  certificates: Omit<Evidence, 'report'>,
  result: CertificatesResult,
): Explanation[] {
  const refused = { evidence: certificates, errors: errorsAmong(result.findings) };
  const chains = result.chains.flatMap(({ findings, ...chain }) => {
    const path = { chain, findings, errors: errorsAmong(findings) };
    return [...intermediates(path), ...missingChain(path, leafRole(path)), ...roots(path)];
  });
  return [...certificateForm(refused), ...tableForm(refused), ...listForm(refused), ...chains];
}

/** Certificates and what was found of them. */
interface Given {
  readonly evidence: Omit<Evidence, 'report'>;
  /** Codes of the errors. */
  readonly errors: ReadonlySet<FindingCode>;
}

/** A path and what was found on it. */
interface RefusedPath {
  readonly chain: Path;
  readonly findings: readonly Finding[];
  readonly errors: ReadonlySet<FindingCode>;
}

interface Case extends Given, RefusedPath {
  readonly evidence: Evidence;
  readonly result: VerifyResult;
}

const errorsAmong = (findings: readonly Finding[]): ReadonlySet<FindingCode> =>
  new Set(findings.filter(isError).map(({ code }) => code));

function* search(evidence: Evidence, result: VerifyResult): Judging<Explanation[]> {
  const { chain, findings } = result;
  const refused: Case = { evidence, result, chain, findings, errors: errorsAmong(findings) };
  return [
    ...reportForm(refused),
    ...certificateForm(refused),
    ...tableForm(refused),
    ...listForm(refused),
    ...missingLeaf(refused),
    ...certificateKind(refused),
    ...certificateLine(refused),
    ...certificateTcb(refused),
    ...certificateChip(refused),
    ...intermediates(refused),
    ...missingChain(refused, chain.leaf?.role ?? wantedRole(result)),
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
  return {
    code,
    cause: row.cause,
    because: printable(because),
    cure: cure === undefined ? row.cure : printable(cure),
    explains,
  };
}

function reportForm({ evidence: { report, provider }, errors }: Case): Explanation[] {
  const { kind } = formOf(report);
  // Text of 1184 characters has the length of a report and the version of four letters.
  const isOther = kind !== 'binary' && kind !== 'report' && errors.has('REPORT_VERSION_UNSUPPORTED');
  if (!errors.has('REPORT_LENGTH_MISMATCH') && !isOther) {
    return [];
  }
  const explains = (['REPORT_LENGTH_MISMATCH', 'REPORT_VERSION_UNSUPPORTED'] as const).filter((code) =>
    errors.has(code),
  );
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
  return [brokenReport(report, provider ?? null, explains)];
}

/** Layers of text around something else that are taken off to see what it is. */
const MAX_LAYERS = 3;

function brokenReport(
  report: Uint8Array,
  provider: string | null,
  explains: readonly FindingCode[],
): Explanation {
  let form = formOf(report);
  let bytes = report;
  let as = '';
  let isOdd = false;
  for (let layers = 0; form.inner !== null && layers < MAX_LAYERS; layers++) {
    as += layers === 0 ? `The file ${form.is}. ` : `What it stands for ${form.is}. `;
    isOdd ||= form.kind === 'odd hexadecimal';
    bytes = form.inner;
    form = formOf(bytes);
  }
  const { kind, is } = form;
  if (kind === 'intel') {
    return explanation('OTHER_HARDWARE', as === '' ? `It ${is}.` : `${as}Decoded it ${is}.`, explains);
  }
  const change = changeAsText(bytes);
  if (change !== null) {
    return explanation('REPORT_WENT_THROUGH_TEXT', `${as}${change}`, explains);
  }
  if (startsLikeReport(bytes)) {
    const more = bytes.length - REPORT_SIZE;
    if (more < 0) {
      return explanation(
        'REPORT_IS_TRUNCATED',
        `${as}${-more} of ${REPORT_SIZE} bytes are missing.`,
        explains,
      );
    }
    return more === 0 && !isOdd
      ? explanation(
          'REPORT_IS_TEXT',
          `${as}It stands for ${REPORT_SIZE} bytes that begin as a report.`,
          explains,
        )
      : explanation(
          'REPORT_HAS_MORE_BYTES',
          `${as}${isOdd ? `${more} bytes and half a byte` : `${more} bytes`} follow the ${REPORT_SIZE}.`,
          explains,
        );
  }
  if (provider !== null && provider !== SNP_PROVIDER && PROVIDER.test(provider)) {
    return explanation('OTHER_HARDWARE', `The provider that configfs-tsm names is ${provider}.`, explains);
  }
  if (kind === 'dump') {
    return explanation('REPORT_IS_DUMP', `${as}It ${is}.`, explains);
  }
  const because =
    as !== ''
      ? `${as}Decoded it ${is}.`
      : kind === 'json'
        ? 'It is JSON, and no field outblob (in any case) holds a report in base64.'
        : `It ${is}.`;
  return explanation('REPORT_IS_SOMETHING_ELSE', because, explains);
}

/** What configfs-tsm calls the device of SEV-SNP guests. */
const SNP_PROVIDER = 'sev_guest';
/** A name of a device: what else a file of that name holds is not repeated. */
const PROVIDER = /^[a-z][a-z0-9_]{0,31}$/;

/** What a program that takes bytes for text does to them, and what undoes it. */
const TEXT_CHANGES: readonly (readonly [because: string, undo: (bytes: Uint8Array) => Uint8Array | null])[] =
  [
    ['With CR LF turned back into LF it has the 1184 bytes of a report.', withoutReturns],
    ['Turned back from UTF-8 into single bytes it has the 1184 bytes of a report.', withoutUtf8],
    [
      'Turned back from UTF-8 into single bytes and from CR LF into LF it has the 1184 bytes of a report.',
      (bytes) => {
        const single = withoutUtf8(bytes);
        return single === null ? null : withoutReturns(single);
      },
    ],
  ];

/** In which of these ways a report was changed; null where undoing none of them gives one. */
function changeAsText(bytes: Uint8Array): string | null {
  // Each byte becomes two at most, and two and a CR with both changes.
  if (bytes.length <= REPORT_SIZE || bytes.length > 3 * REPORT_SIZE) {
    return null;
  }
  for (const [because, undo] of TEXT_CHANGES) {
    const whole = undo(bytes);
    if (whole?.length === REPORT_SIZE && startsLikeReport(whole)) {
      return because;
    }
  }
  return null;
}

function withoutReturns(bytes: Uint8Array): Uint8Array {
  return bytes.filter((byte, i) => byte !== 0x0d || bytes[i + 1] !== 0x0a);
}

/** Null for what is no UTF-8 of characters up to 0xff. */
function withoutUtf8(bytes: Uint8Array): Uint8Array | null {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const codes = Array.from(text, (character) => character.codePointAt(0)!);
    return codes.every((code) => code <= 0xff) ? Uint8Array.from(codes) : null;
  } catch {
    return null;
  }
}

const CERTIFICATE_GUIDS: readonly string[] = [VCEK_GUID, VLEK_GUID, ASK_GUID, ARK_GUID];

interface Named {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Everything that was given as a certificate. */
function givenCertificates({
  table,
  certificates = [],
  labels = {},
}: Omit<Evidence, 'report'>): readonly Named[] {
  const reading = table === undefined ? null : readCertificateTable(table);
  const inTable =
    reading !== null && 'entries' in reading
      ? reading.entries.filter(({ guid }) => CERTIFICATE_GUIDS.includes(guid))
      : [];
  return [
    // A table may hold PEM, and a reader of tables decodes it.
    ...inTable
      .filter(({ data }) => !isPem(data))
      .map(({ guid, data }) => ({ name: `${labels.table ?? 'table'}.${CERT_GUIDS[guid]}`, bytes: data })),
    ...certificates.map((bytes, i) => ({ name: labels.certificates?.[i] ?? `certificates[${i}]`, bytes })),
  ];
}

const FORM_CAUSES: Readonly<Partial<Record<FormKind, CauseCode>>> = {
  empty: 'CERT_IS_TRUNCATED',
  'cut der': 'CERT_IS_TRUNCATED',
  'cut pem': 'CERT_IS_TRUNCATED',
  'private key': 'CERT_IS_PRIVATE_KEY',
  'other pem': 'CERT_IS_OTHER_PEM',
  page: 'CERT_IS_ERROR_PAGE',
  json: 'CERT_IS_ERROR_PAGE',
  text: 'CERT_IS_ERROR_PAGE',
};

/** Where a certificate is missing, what was given in its place may be why. */
const MISSING: readonly FindingCode[] = [
  'CERT_MALFORMED',
  'LEAF_MISSING',
  'INTERMEDIATE_MISSING',
  'ROOT_MISSING',
];

function certificateForm({ evidence, errors }: Given): Explanation[] {
  const explains = MISSING.filter((code) => errors.has(code));
  return explains.length === 0
    ? []
    : givenCertificates(evidence).flatMap(({ name, bytes }) => brokenCertificate(name, bytes, explains));
}

function brokenCertificate(name: string, bytes: Uint8Array, explains: readonly FindingCode[]): Explanation[] {
  const { kind, is, inner } = formOf(bytes);
  if (kind === 'der') {
    return [];
  }
  if (kind === 'pem' && isPem(bytes)) {
    return [explanation('CERT_IS_PEM', `${name} decoded from PEM is a certificate.`, explains)];
  }
  if (inner !== null && isOneDerSequence(inner)) {
    return [explanation('CERT_IS_TEXT', `${name} ${is}, and decoded it is DER.`, explains)];
  }
  return [explanation(FORM_CAUSES[kind] ?? 'CERT_IS_SOMETHING_ELSE', `${name} ${is}.`, explains)];
}

function isPem(bytes: Uint8Array): boolean {
  try {
    return certificatesOf(bytes).length > 0;
  } catch {
    return false;
  }
}

function tableForm({ evidence: { table, labels = {} }, errors }: Given): Explanation[] {
  if (table === undefined || !errors.has('CERT_TABLE_INVALID')) {
    return [];
  }
  const explains = ['CERT_TABLE_INVALID'] as const;
  const { kind, is } = formOf(table);
  if (kind !== 'binary') {
    return [explanation('TABLE_IS_SOMETHING_ELSE', `${labels.table ?? 'It'} ${is}.`, explains)];
  }
  const reading = readCertificateTable(table);
  const guid = table.length < CERT_TABLE_ENTRY_SIZE ? '' : guidText(table.slice(0, 16));
  if ('entries' in reading || !(guid in CERT_GUIDS)) {
    return [
      explanation('TABLE_IS_SOMETHING_ELSE', 'Its first entry has no GUID of a certificate.', explains),
    ];
  }
  const isCut = reading.fault === 'TABLE_UNTERMINATED' || reading.fault === 'TABLE_RANGE';
  const code = isCut ? 'TABLE_IS_TRUNCATED' : 'TABLE_IS_DAMAGED';
  return [explanation(code, `${reading.fault}: ${reading.message}.`, explains)];
}

function listForm({ evidence: { crls = [], labels = {} }, errors }: Given): Explanation[] {
  if (!errors.has('CRL_MALFORMED')) {
    return [];
  }
  return crls.flatMap((bytes, i) => {
    const { kind, is } = formOf(bytes);
    const name = labels.crls?.[i] ?? `CRL[${i}]`;
    return kind === 'der' ? [] : [explanation('CRL_IS_SOMETHING_ELSE', `${name} ${is}.`, ['CRL_MALFORMED'])];
  });
}

function missingLeaf({ evidence, result: { report, product }, errors }: Case): Explanation[] {
  if (!errors.has('LEAF_MISSING')) {
    return [];
  }
  const explains = ['LEAF_MISSING'] as const;
  const found: Explanation[] = [];
  const swapped = evidence.table === undefined ? 0 : swappedGuids(evidence.table);
  if (swapped > 0) {
    const because = `With their first three groups turned around ${swapped} GUIDs are known.`;
    found.push(explanation('TABLE_GUIDS_SWAPPED', because, explains));
  }
  if (report === null) {
    return found;
  }
  if (wantedKind(report) !== 'VCEK') {
    return [...found, explanation('NO_CERTIFICATE', 'SIGNING_KEY is 1: a VLEK is wanted.', explains)];
  }
  if (isZero(report.chip_id)) {
    return [...found, explanation('CHIP_ID_MASKED', 'CHIP_ID is zero and SIGNING_KEY says VCEK.', explains)];
  }
  if (product === null) {
    const because = 'A version 2 report does not name its product line: it is Milan or Genoa.';
    const cure = `Fetch ${vcekUrl(report, 'Milan')} or, if the chip is not known there, ${vcekUrl(report, 'Genoa')}`;
    return [...found, explanation('NO_CERTIFICATE', because, explains, cure)];
  }
  const says = productOfReport(report) === null ? 'By the option given the report' : 'The report';
  const because = `${says} is of a ${product} part and of REPORTED_TCB ${formatTcb(decodeTcb(report.reported_tcb, product), product)}.`;
  // The key service answers 404 to a URL of the old form, and its page is then found in the place of the certificate.
  const isPage = givenCertificates(evidence).some(({ bytes }) =>
    ['page', 'json', 'text', 'empty'].includes(formOf(bytes).kind),
  );
  const code = product === 'Turin' && isPage ? 'TURIN_URL' : 'NO_CERTIFICATE';
  return [...found, explanation(code, because, explains, `Fetch ${vcekUrl(report, product)}`)];
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

/** What a wrong product line makes of a report and a certificate that belong together. */
const EXPLAINED_BY_OPTION = ['PRODUCT_MISMATCH', 'TCB_MISMATCH', 'TCB_RESERVED_NOT_ZERO'] as const;

/**
 * What shows that the product line given as an option is wrong: the report names another, or the key of a certificate
 * of another line has signed it and is for its TCB.
 *
 * Returns  null where nothing does
 */
function wrongOption({ result: { report, product, chain, findings }, errors }: Case): string | null {
  if (!errors.has('PRODUCT_MISMATCH') || report === null || product === null) {
    return null;
  }
  const own = productOfReport(report);
  if (own !== null) {
    const given = findings.find(
      ({ code, where }) => code === 'PRODUCT_MISMATCH' && where === OWN_PRODUCT,
    )?.expected;
    return given === undefined ? null : `The option says ${given}, the CPUID bytes of the report ${own}.`;
  }
  // A report that names no line has the one of the option, or else that of its certificate.
  const { role = null, endorsement = null } = chain.leaf ?? {};
  const certified = endorsement?.tcb ?? null;
  if (role === null || role.product === product || certified === null || errors.has('SIGNATURE_MISMATCH')) {
    return null;
  }
  return sameParts(certified, decodeTcb(report.reported_tcb, role.product), role.product)
    ? `The option says ${product}; the key of a ${role.kind} of ${role.product} has signed the report and is for its TCB.`
    : null;
}

const OWN_PRODUCT = 'report[0x188].cpuid_fam_id';

function certificateLine(refused: Case): Explanation[] {
  const { result, errors } = refused;
  const { report, product, chain } = result;
  const found: Explanation[] = [];
  const option = wrongOption(refused);
  if (option !== null) {
    const explains = EXPLAINED_BY_OPTION.filter((code) => errors.has(code));
    found.push(explanation('PRODUCT_OPTION_WRONG', option, explains));
  }
  const role = chain.leaf?.role ?? null;
  if (
    !errors.has('PRODUCT_MISMATCH') ||
    report === null ||
    role === null ||
    product === null ||
    role.product === product ||
    (option !== null && productOfReport(report) === null)
  ) {
    return found;
  }
  const isNamed = productOfReport(report) !== null;
  const because = isNamed
    ? `The report is of a ${product} part, the ${role.kind} was issued for ${role.product}.`
    : `The option says that the report is of a ${product} part, the ${role.kind} was issued for ${role.product}.`;
  const cure =
    wantedKind(report) === 'VCEK' && !isZero(report.chip_id)
      ? `${isNamed ? '' : 'If the option is right: '}Fetch ${vcekUrl(report, product)}`
      : undefined;
  const explains = ['PRODUCT_MISMATCH', 'SIGNATURE_MISMATCH', 'TCB_MISMATCH', 'CHIP_ID_MISMATCH'] as const;
  return [
    ...found,
    explanation(
      'CERT_OF_ANOTHER_LINE',
      because,
      explains.filter((code) => errors.has(code)),
      cure,
    ),
  ];
}

function certificateTcb(refused: Case): Explanation[] {
  const { result, errors } = refused;
  const { report, product, chain } = result;
  const certified = chain.leaf?.endorsement?.tcb ?? null;
  if (!errors.has('TCB_MISMATCH') || report === null || product === null || certified === null) {
    return [];
  }
  // Read by the layout of another line the parts of a TCB mean nothing.
  if (productOfReport(report) === null && wrongOption(refused) !== null) {
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
  // Another chip or line explains more.
  if (errors.has('CHIP_ID_MISMATCH') || chain.leaf?.role?.product !== product) {
    return [];
  }
  const reported = decodeTcb(report.reported_tcb, product);
  const because = `The certificate says ${text}, REPORTED_TCB is ${formatTcb(reported, product)}.`;
  if (tcbAtMost(certified, reported, product)) {
    return [explanation('CERT_IS_STALE', because, explains, cure)];
  }
  const code = tcbAtMost(reported, certified, product) ? 'CERT_IS_AHEAD' : 'CERT_OF_ANOTHER_TCB';
  return [explanation(code, because, explains, cure)];
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

function intermediates({ chain, findings, errors }: RefusedPath): Explanation[] {
  const role = chain.leaf?.role ?? null;
  const missing = findings.find(({ code }) => code === 'INTERMEDIATE_MISSING');
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
  const isLeafUnsigned = findings.some(
    ({ code, where }) => code === 'CERT_SIGNATURE_MISMATCH' && where.startsWith(`${role?.kind}.`),
  );
  const isChainGood = !findings.some(
    ({ code, where }) => code === 'CERT_SIGNATURE_MISMATCH' && !where.startsWith(`${role?.kind}.`),
  );
  if (isLeafUnsigned && isChainGood && !errors.has('ROOT_UNTRUSTED') && chain.intermediate !== null) {
    const { serial } = chain.intermediate.certificate;
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

/** What the leaf is, or would be below the authorities there are; null without any. */
function leafRole({ chain: { leaf, intermediate, root } }: RefusedPath): CertificateRole | null {
  const authority = intermediate?.role ?? root?.role ?? null;
  return (
    leaf?.role ??
    (authority === null
      ? null
      : { kind: authority.kind === 'ASVK' ? 'VLEK' : 'VCEK', product: authority.product })
  );
}

/** What the report wants for a leaf, where there is none. */
function wantedRole({ report, product }: VerifyResult): CertificateRole | null {
  const kind = report === null ? null : wantedKind(report);
  return kind === null || product === null ? null : { kind, product };
}

/** The intermediate and the root, where there is nothing in their place. */
function missingChain({ findings }: RefusedPath, role: CertificateRole | null): Explanation[] {
  if (role === null) {
    return [];
  }
  const issuer = issuerRole(role);
  const missing = (
    [
      ['INTERMEDIATE_MISSING', issuer],
      ['ROOT_MISSING', issuerRole(issuer)],
    ] as const
  ).filter(([code]) => findings.some((found) => found.code === code));
  const other = findings.find(({ code }) => code === 'INTERMEDIATE_MISSING')?.actual ?? 'none';
  // Where another intermediate stands, that is the cause, and its cure brings the root along.
  if (missing.length === 0 || other !== 'none') {
    return [];
  }
  const names = missing.map(([, { kind, product }]) => `${kind} (${subjectCommonName({ kind, product })})`);
  const because = `${names.join(' and ')} ${names.length === 1 ? 'is' : 'are'} not among what was given.`;
  const path = role.kind === 'VLEK' ? 'vlek' : 'vcek';
  return [
    explanation(
      'CHAIN_MISSING',
      because,
      missing.map(([code]) => code),
      `Fetch ${KEY_SERVICE}/${path}/v1/${role.product}/cert_chain`,
    ),
  ];
}

function roots({ chain: { root, leaf }, findings, errors }: RefusedPath): Explanation[] {
  const found: Explanation[] = [];
  if (errors.has('ROOT_UNTRUSTED') && root !== null) {
    if (AMD_FINGERPRINTS.has(root.fingerprint)) {
      const because = `Its SHA-256 is the one that is pinned as AMD’s: ${root.fingerprint}.`;
      found.push(explanation('AMD_ROOT_NOT_NAMED', because, ['ROOT_UNTRUSTED']));
    } else if (commentOf(root.certificate) === TEST_ROOT_COMMENT) {
      const because = 'Its comment is that of softsnp’s certificates, which anybody can write.';
      found.push(explanation('SOFTSNP_ROOT', because, ['ROOT_UNTRUSTED']));
    }
  }
  const expired = findings.find(({ code, where }) => code === 'CERT_EXPIRED' && where.startsWith('VLEK'));
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
  if (product === null || EXPLAINS_SIGNATURE.some((code) => errors.has(code))) {
    return [];
  }
  const unknown = unknownSigner(report, chain.leaf?.endorsement?.cspId ?? null);
  return unknown === null
    ? [explanation('REPORT_CHANGED', 'Nothing else differs between report and certificate.', explains)]
    : [explanation('SIGNER_UNKNOWN', unknown, explains)];
}

/** Why report and certificate cannot be compared any further, or null where they name the same chip. */
function unknownSigner(report: Report, cspId: string | null): string | null {
  if (wantedKind(report) === 'VLEK') {
    return `The certificate is of a VLEK of ${cspId ?? 'some cloud'}; a report does not say which VLEK signed it.`;
  }
  return isZero(report.chip_id) ? 'CHIP_ID is masked: the report does not say which chip signed it.' : null;
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

/** AMD's key service. */
const KEY_SERVICE = 'https://kdsintf.amd.com';

/** URL at AMD's key service of the VCEK that signed a report. */
export function vcekUrl(report: Report, product: ProductLine): string {
  const chip = product === 'Turin' ? report.chip_id.subarray(0, 8) : report.chip_id;
  const tcb = decodeTcb(report.reported_tcb, product);
  return `${KEY_SERVICE}/vcek/v1/${product}/${toHex(chip)}?${splQuery(tcb, product)}`;
}
