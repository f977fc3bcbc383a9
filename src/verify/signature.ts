// SPDX-License-Identifier: Apache-2.0
/** ECDSA P-384 with SHA-384 as the firmware writes it: the form is judged before any library sees it. */
import { fromHex, isZero, toHex } from '../lib/bytes.ts';
import { type Judging, verifyEcdsaP384 } from './crypto.ts';
import { type Finding, finding } from './findings.ts';
import { type Report, SIGNATURE_PART_SIZE, signaturePart } from './report.ts';
import type { PublicKey } from './x509.ts';

/** Order of P-384, big-endian. */
const N = fromHex(
  'ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973',
);

/**
 * Judges R and S of a report.
 *
 * Shape    both parts as the report has them: 72 bytes, little-endian, of which 48 count
 * Differs  no rule about low s: firmware makes no difference, every second genuine report has a high one
 */
export function* signatureFindings(
  message: Uint8Array,
  parts: Pick<Report, 'signature_r' | 'signature_s'>,
  key: PublicKey,
): Judging<Finding[]> {
  const found: Finding[] = [];
  const r = signaturePart(parts.signature_r);
  const s = signaturePart(parts.signature_s);
  judgePart(found, 'report[0x2a0].signature_r', parts.signature_r, r);
  judgePart(found, 'report[0x2e8].signature_s', parts.signature_s, s);
  const isUsable = key.kind === 'p384' && !found.some(({ code }) => code === 'SIGNATURE_OUT_OF_RANGE');
  if (!isUsable || !(yield* verifyEcdsaP384(key.point, message, r, s))) {
    found.push(finding('SIGNATURE_MISMATCH', { where: 'report[0x2a0].signature' }));
  }
  return found;
}

function judgePart(found: Finding[], where: string, field: Uint8Array, value: Uint8Array): void {
  // Outside the signed bytes and outside the value: whoever wants a second form of a report writes here.
  if (!isZero(field, SIGNATURE_PART_SIZE)) {
    found.push(finding('SIGNATURE_PADDING_NOT_ZERO', { where, expected: 'zero above byte 48' }));
  }
  if (isZero(value) || !isBelow(value, N)) {
    found.push(finding('SIGNATURE_OUT_OF_RANGE', { where, expected: '0 < value < n', actual: toHex(value) }));
  }
}

/** Comparison of big-endian numbers of one size. */
function isBelow(value: Uint8Array, limit: Uint8Array): boolean {
  for (let i = 0; i < limit.length; i++) {
    if (value[i] !== limit[i]) {
      return value[i]! < limit[i]!;
    }
  }
  return false;
}
