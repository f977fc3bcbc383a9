// SPDX-License-Identifier: Apache-2.0
/**
 * What bytes are that are not what was wanted. Only their form is told and not one character of their
 * contents: they may be a private key, and a verdict is printed, logged and mailed.
 */
import { REPORT_SIZE, REPORT_VERSIONS } from '../abi/attestation-report.ts';
import { isOneDerSequence } from '../certs/pem.ts';
import { readCertificateTable } from '../certs/table.ts';
import { fromBase64, fromHex, isZero, readU32 } from '../lib/bytes.ts';

export type FormKind =
  | 'empty'
  | 'report'
  | 'der'
  | 'cut der'
  | 'long der'
  | 'table'
  | 'pem'
  | 'cut pem'
  | 'private key'
  | 'page'
  | 'dump'
  | 'hexadecimal'
  | 'base64'
  | 'text'
  | 'binary';

export interface Form {
  readonly kind: FormKind;
  /** Continues a sentence that begins with the name of the file. */
  readonly is: string;
  /** What hexadecimal or base64 text stands for; null for all else. */
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
  const text = utf8Of(bytes);
  return text === null ? form('binary', `has ${bytes.length} bytes of no known form`) : textForm(text, form);
}

export const startsLikeReport = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && REPORT_VERSIONS.some((version) => version === readU32(bytes, 0));

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

function utf8Of(bytes: Uint8Array): string | null {
  if (bytes.length > MAX_TEXT_BYTES || bytes.some((byte) => byte < 9 || (byte > 13 && byte < 0x20))) {
    return null;
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes).trim();
  } catch {
    // Pages in an older encoding are pages all the same.
    return bytes[0] === 0x3c ? new TextDecoder('latin1').decode(bytes).trim() : null;
  }
}

function textForm(text: string, form: (kind: FormKind, is: string, inner?: Uint8Array | null) => Form): Form {
  const labels = pemLabels(text);
  if (labels.length > 0) {
    const names = labels.slice(0, 4).join(', ');
    return labels.some((label) => label.includes('PRIVATE KEY'))
      ? form('private key', `is PEM of ${names}`)
      : labels.every((label) => text.includes(`-----END ${label}-----`))
        ? form('pem', `is PEM of ${names}`)
        : form('cut pem', `is PEM of ${names} without its end`);
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
    const even = compact.length % 2 === 0 ? compact : compact.slice(0, -1);
    return form('hexadecimal', 'is hexadecimal text', fromHex(even));
  }
  const inner = compact.length >= 64 ? base64Bytes(compact) : null;
  if (inner !== null) {
    return form('base64', 'is base64 text', inner);
  }
  return text.startsWith('{') || text.startsWith('[')
    ? form('page', 'is JSON')
    : form('text', 'is text of no known form');
}

/** Labels that are looked for the end of; a file with more is no chain. */
const MAX_LABELS = 16;

function pemLabels(text: string): readonly string[] {
  const labels = new Set<string>();
  for (const [, label] of text.matchAll(/-----BEGIN ([A-Z0-9 ]{1,40})-----/g)) {
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
