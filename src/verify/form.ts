// SPDX-License-Identifier: Apache-2.0
/**
 * What bytes are that are not what was wanted. Only their form is told and not one character of their
 * contents: they may be a private key, and a verdict is printed, logged and mailed.
 */
import { REPORT_SIZE, REPORT_VERSIONS } from '../abi/attestation-report.ts';
import { isOneDerSequence, isOtherCertificateLabel } from '../certs/pem.ts';
import { readCertificateTable } from '../certs/table.ts';
import { equalBytes, fromBase64, fromHex, isZero, readU16, readU32, startsWith, utf8 } from '../lib/bytes.ts';
import { decodedText } from '../lib/text.ts';

export type FormKind =
  | 'empty'
  | 'report'
  | 'intel'
  | 'der'
  | 'cut der'
  | 'long der'
  | 'table'
  | 'pem'
  | 'other pem'
  | 'cut pem'
  | 'private key'
  | 'page'
  | 'json'
  | 'dump'
  | 'hexadecimal'
  | 'odd hexadecimal'
  | 'base64'
  | 'text'
  | 'binary';

export interface Form {
  readonly kind: FormKind;
  /** Continues a sentence that begins with the name of the file. */
  readonly is: string;
  /** What hexadecimal or base64 text, or outblob of JSON stands for; null for all else. */
  readonly inner: Uint8Array | null;
}

/** What is larger is no text of evidence, and is not walked over. */
const MAX_TEXT_BYTES = 1 << 20;

/** What these bytes look like. */
export function formOf(bytes: Uint8Array): Form {
  const form = (kind: FormKind, is: string, inner: Uint8Array | null = null): Form => ({ kind, is, inner });
  if (bytes.length === 0) {
    return form('empty', 'is empty');
  }
  if (bytes.length <= MAX_TEXT_BYTES && isZero(bytes)) {
    return form('empty', `has ${bytes.length} zero bytes and nothing else`);
  }
  const intel = intelForm(bytes);
  if (intel !== null) {
    return form('intel', intel);
  }
  if (startsLikeReport(bytes) && bytes.length >= REPORT_SIZE) {
    return form('report', 'is an attestation report');
  }
  const der = derForm(bytes);
  if (der !== null) {
    return form(...der);
  }
  const reading = readCertificateTable(bytes);
  if ('entries' in reading && reading.entries.length > 0) {
    return form('table', 'is a certificate table');
  }
  const text = bytes.length > MAX_TEXT_BYTES ? null : decodedText(bytes);
  return text === null ? form('binary', `has ${bytes.length} bytes of no known form`) : textForm(text, form);
}

/** Whether the bytes begin with the version of a report, as other things do too. */
export const startsWithVersion = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && REPORT_VERSIONS.some((version) => version === readU32(bytes, 0));

/** Whether the bytes begin as a report does: a version, and in the guest policy the bit that is always one. */
export const startsLikeReport = (bytes: Uint8Array): boolean =>
  startsWithVersion(bytes) && (bytes.length < 16 || (bytes[10]! & 2) !== 0);

/** Azure's HCL report begins with these; the kind of report in it and what the guest has added follow the report. */
export const HCL_MAGIC = utf8('HCLA');
/** IGVM_REQUEST_DATA: behind a header of 32 bytes and room for 1184 of a report. */
export const HCL_DATA_AT = 0x20 + REPORT_SIZE;
const HCL_TYPE_TDX = 4;
const TDX_TYPE = 0x81;

/** Whether an HCL report holds the report of a TDX VM. */
export const isHclOfTdx = (bytes: Uint8Array): boolean =>
  startsWith(bytes, HCL_MAGIC) &&
  bytes.length >= HCL_DATA_AT + 12 &&
  (readU32(bytes, HCL_DATA_AT + 8) === HCL_TYPE_TDX || isTdReport(bytes.subarray(0x20)));

/** TDREPORT begins with type, subtype, version and a zero byte; twelve zero bytes follow. */
const isTdReport = (bytes: Uint8Array): boolean =>
  bytes.length >= TD_REPORT_SIZE && bytes[0] === TDX_TYPE && bytes[1] === 0 && isZero(bytes.subarray(3, 16));

const TD_REPORT_SIZE = 1024;
/** Header and report body of the shortest ECDSA quote. */
const QUOTE_SIZE = 432;
/** Quotes of all kinds but EPID name the vendor of the quoting enclave at 12: Intel. */
const INTEL_QE_VENDOR_ID = fromHex('939a7233f79c4ca9940a0db3957f0607');
/** An EPID quote: header, report body, and the length of the signature that is all that follows. */
const EPID_SIGNATURE_LENGTH_AT = 432;

/** A version of 3 to 5, an ECDSA key of P-256 or P-384, and a TEE that is SGX or TDX. */
const isEcdsaQuote = (bytes: Uint8Array): boolean =>
  bytes.length >= QUOTE_SIZE &&
  [3, 4, 5].includes(readU16(bytes, 0)) &&
  [2, 3].includes(readU16(bytes, 2)) &&
  [0, TDX_TYPE].includes(readU32(bytes, 4));

/** What Intel's processors hand out in the place of a report. */
function intelForm(bytes: Uint8Array): string | null {
  const isOfIntelsQe = bytes.length >= 48 && equalBytes(bytes.subarray(12, 28), INTEL_QE_VENDOR_ID);
  if (isOfIntelsQe || isEcdsaQuote(bytes)) {
    const kind = readU32(bytes, 4) === TDX_TYPE ? 'TDX' : 'SGX';
    return `is an Intel ${kind} quote, version ${readU16(bytes, 0)}`;
  }
  const rest = bytes.length - EPID_SIGNATURE_LENGTH_AT - 4;
  if (
    rest > 0 &&
    rest === readU32(bytes, EPID_SIGNATURE_LENGTH_AT) &&
    [1, 2].includes(readU16(bytes, 0)) &&
    readU16(bytes, 2) < 2
  ) {
    return `is an Intel SGX quote, version ${readU16(bytes, 0)} (EPID)`;
  }
  if (isHclOfTdx(bytes)) {
    return 'is an Azure HCL report of an Intel TDX VM';
  }
  return bytes.length === TD_REPORT_SIZE && isTdReport(bytes) ? 'is an Intel TDREPORT' : null;
}

/** Whether the bytes begin as a certificate or list does, and end too early or too late. */
function derForm(bytes: Uint8Array): [FormKind, string] | null {
  if (isOneDerSequence(bytes)) {
    return ['der', 'is DER'];
  }
  // Every certificate and list has a length of two bytes.
  if (bytes[0] !== 0x30 || bytes[1] !== 0x82 || bytes.length < 4) {
    return null;
  }
  const length = 4 + bytes[2]! * 256 + bytes[3]!;
  return length > bytes.length
    ? ['cut der', `ends after ${bytes.length} of ${length} bytes`]
    : ['long der', `has ${bytes.length - length} bytes after its end`];
}

function textForm(text: string, form: (kind: FormKind, is: string, inner?: Uint8Array | null) => Form): Form {
  const labels = pemLabels(text);
  if (labels.length > 0) {
    const names = labels.slice(0, 4).join(', ');
    return labels.some((label) => label.includes('PRIVATE KEY'))
      ? form('private key', `is PEM of ${names}`)
      : !labels.every((label) => text.includes(`-----END ${label}-----`))
        ? form('cut pem', `is PEM of ${names} without its end`)
        : form(labels.some(isOtherCertificateLabel) ? 'other pem' : 'pem', `is PEM of ${names}`);
  }
  if (text === '') {
    return form('empty', 'has nothing but white space');
  }
  if (text.startsWith('<')) {
    return form('page', 'is an HTML or XML page');
  }
  if (/^[0-9a-f]{4,8}:? +([0-9a-f]{2,6} +){3}/i.test(text.slice(0, 100))) {
    return form('dump', 'is a dump as of xxd or hexdump');
  }
  const compact = text.replace(/\s+/g, '');
  if (/^(0x)?[0-9a-fA-F]+$/.test(compact)) {
    return compact.length % 2 === 0
      ? form('hexadecimal', 'is hexadecimal text', fromHex(compact))
      : form(
          'odd hexadecimal',
          'is hexadecimal text with an odd number of digits',
          fromHex(compact.slice(0, -1)),
        );
  }
  const inner = compact.length >= 64 ? base64Bytes(compact) : null;
  if (inner !== null) {
    return form('base64', 'is base64 text', inner);
  }
  return text.startsWith('{') || text.startsWith('[')
    ? form('json', 'is JSON', tsmBlob(text, 'outblob'))
    : form('text', 'is text of no known form');
}

/**
 * A field of what configfs-tsm delivered, as JSON: outblob, auxblob or provider.
 *
 * Shape    in whatever case: go-configfs-tsm's Response is written as OutBlob, AuxBlob, Provider
 * Returns  null where there is none, and where there are two that differ only in that
 */
export function tsmField(text: string, name: 'outblob' | 'auxblob' | 'provider'): string | null {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof document !== 'object' || document === null) {
    return null;
  }
  const [field, ...others] = Object.entries(document).filter(([key]) => key.toLowerCase() === name);
  return field !== undefined && others.length === 0 && typeof field[1] === 'string' ? field[1] : null;
}

/** The bytes of such a field, which stand there in base64; null for none, or none of them. */
export function tsmBlob(text: string, name: 'outblob' | 'auxblob'): Uint8Array | null {
  const field = tsmField(text, name) ?? '';
  return field === '' ? null : base64Bytes(field);
}

/** Labels that are looked for the end of; a file with more is no chain. */
const MAX_LABELS = 16;

function pemLabels(text: string): readonly string[] {
  const labels = new Set<string>();
  for (const [, label] of text.matchAll(/-----BEGIN ([A-Z0-9# ]{1,40})-----/g)) {
    labels.add(label!);
    if (labels.size === MAX_LABELS) {
      break;
    }
  }
  return [...labels];
}

/** Bytes of base64 in either alphabet, with or without padding; null when it is none. */
export function base64Bytes(text: string): Uint8Array | null {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(text)) {
    return null;
  }
  return fromBase64(text.replaceAll('-', '+').replaceAll('_', '/').replace(/=+$/, ''));
}
