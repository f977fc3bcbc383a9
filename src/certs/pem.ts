// SPDX-License-Identifier: Apache-2.0
/** PEM, and telling it from DER: certificate tables hold either. [RFC7468] */
import { copyOf, fromBase64 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';

/** AMD's largest certificate has 1683 bytes, 2300 in PEM: a host that hands out more than this has made it up. */
const MAX_CERTIFICATES_BYTES = 1 << 16;
/** A chain has three. */
const MAX_PEM_BLOCKS = 16;

/** One PEM block with base64 lines of 64 characters and a final line break. */
export function toPem(der: Uint8Array, label = 'CERTIFICATE'): string {
  let binary = '';
  for (const byte of der) {
    binary += String.fromCharCode(byte);
  }
  const body = btoa(binary).replace(/.{1,64}/g, '$&\n');
  return `-----BEGIN ${label}-----\n${body}-----END ${label}-----\n`;
}

/**
 * The contents of every block with the label, in order; text around the blocks is skipped.
 *
 * Errors   CERTIFICATE_INVALID for a block without an end or with anything but base64 in it
 */
export function fromPem(text: string, label = 'CERTIFICATE'): Uint8Array[] {
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const found: Uint8Array[] = [];
  let at = text.indexOf(begin);
  while (at >= 0) {
    const from = at + begin.length;
    const to = text.indexOf(end, from);
    if (to < 0) {
      throw new InputError('CERTIFICATE_INVALID', `PEM block at character ${at} has no end`);
    }
    const der = fromBase64(text.slice(from, to));
    if (der === null) {
      throw new InputError('CERTIFICATE_INVALID', `PEM block at character ${at} is not base64`);
    }
    found.push(der);
    at = text.indexOf(begin, to + end.length);
  }
  return found;
}

/** A PEM block as it stands in its text. */
export interface PemBlock {
  readonly label: string;
  readonly text: string;
}

/** Labels under which tools write certificates in another encoding than DER of the certificate alone. */
const OTHER_CERTIFICATE_LABEL = /^(?!CERTIFICATE$).*CERTIFICATE$|^PKCS ?#?7|^CMS$/;

/** Whether blocks of this label hold certificates, although not as those of the label CERTIFICATE do. */
export const isOtherCertificateLabel = (label: string): boolean => OTHER_CERTIFICATE_LABEL.test(label);

/** The blocks that hold certificates under another label than CERTIFICATE: whoever skips them loses certificates. */
export function otherCertificateBlocks(text: string): PemBlock[] {
  const found: PemBlock[] = [];
  for (const { index, 1: label = '' } of text.matchAll(/-----BEGIN ([A-Z0-9# ]{1,40})-----/g)) {
    if (!isOtherCertificateLabel(label)) {
      continue;
    }
    const end = `-----END ${label}-----`;
    const to = text.indexOf(end, index);
    found.push({ label, text: to < 0 ? text.slice(index) : text.slice(index, to + end.length) });
    // The rest belongs to a block without an end, and a file with more blocks is no chain.
    if (to < 0 || found.length === MAX_PEM_BLOCKS) {
      break;
    }
  }
  return found;
}

/**
 * Certificates in a table entry or a file, as DER: one DER structure, or PEM blocks.
 *
 * Shape    at most 64 KiB and 16 blocks; what is larger is refused before anything of it is decoded
 * Errors   CERTIFICATE_INVALID when it is neither, and for PEM that holds certificates under another label as well
 */
export function certificatesOf(data: Uint8Array): Uint8Array[] {
  if (data.length > MAX_CERTIFICATES_BYTES) {
    throw new InputError(
      'CERTIFICATE_INVALID',
      `${data.length} bytes, no certificates have more than ${MAX_CERTIFICATES_BYTES}`,
    );
  }
  if (isOneDerSequence(data)) {
    return [copyOf(data)];
  }
  const text = new TextDecoder('latin1').decode(data);
  const [other] = otherCertificateBlocks(text);
  if (other !== undefined) {
    throw new InputError('CERTIFICATE_INVALID', `PEM block under the label ${other.label}, not CERTIFICATE`);
  }
  const found = fromPem(text);
  if (found.length === 0) {
    throw new InputError('CERTIFICATE_INVALID', 'neither one DER structure nor a PEM certificate');
  }
  if (found.length > MAX_PEM_BLOCKS) {
    throw new InputError('CERTIFICATE_INVALID', `${found.length} PEM blocks, more than ${MAX_PEM_BLOCKS}`);
  }
  const wrong = found.findIndex((der) => !isOneDerSequence(der));
  if (wrong >= 0) {
    throw new InputError('CERTIFICATE_INVALID', `PEM block ${wrong + 1} does not hold one DER structure`);
  }
  return found;
}

/** Whether the bytes are exactly one SEQUENCE with a length in its shortest form. */
export function isOneDerSequence(data: Uint8Array): boolean {
  const first = data[1];
  if (data[0] !== 0x30 || first === undefined || first === 0x80 || first > 0x84) {
    return false;
  }
  if (first < 0x80) {
    return data.length === 2 + first;
  }
  const lengthBytes = data.subarray(2, 2 + (first & 0x7f));
  const length = lengthBytes.reduce((sum, byte) => sum * 256 + byte, 0);
  const shortest = length >= 0x80 && lengthBytes[0] !== 0;
  return shortest && data.length === 2 + lengthBytes.length + length;
}
