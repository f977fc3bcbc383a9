// SPDX-License-Identifier: Apache-2.0
/** The certificates of ARK, ASK and ASVK: AMD's names, serial numbers, dates and extensions. [KDS] */
import { Boolean as Asn1Boolean, BitString, type Sequence } from 'asn1js';
import type { ProductLine } from '../abi/product.ts';
import {
  authorityKeyIdentifier,
  crlDistributionPoint,
  extension,
  integer,
  keyIdentifier,
  nsComment,
  OID,
  sequence,
  subjectKeyIdentifier,
  tbsCertificate,
  yearsAfter,
} from './x509.ts';

/** ARK is the root; ASK signs VCEKs, ASVK signs VLEKs. */
export type CaRole = 'ARK' | 'ASK' | 'ASVK';

export const CA_ROLES: readonly CaRole[] = Object.freeze(['ARK', 'ASK', 'ASVK']);

/** The key service's certificates have the signature algorithm in this form. */
export const CA_TRAILER = 'explicit';

const VALIDITY_YEARS = 25;

interface CaRow {
  readonly serial: number;
  readonly notBefore: string;
}

/** Serial numbers and start dates of AMD's own certificates; a chain is valid whenever AMD's is. */
export const CA_ROWS: Readonly<Record<ProductLine, Readonly<Record<CaRole, CaRow>>>> = Object.freeze({
  Milan: {
    ARK: { serial: 0x010000, notBefore: '2020-10-22T17:23:05Z' },
    ASK: { serial: 0x010001, notBefore: '2020-10-22T18:24:20Z' },
    ASVK: { serial: 0x010101, notBefore: '2022-11-16T22:45:24Z' },
  },
  Genoa: {
    ARK: { serial: 0x020000, notBefore: '2022-01-26T15:34:37Z' },
    // 0x020001 is the intermediate that AMD revoked.
    ASK: { serial: 0x020002, notBefore: '2022-10-31T13:33:48Z' },
    ASVK: { serial: 0x020101, notBefore: '2022-11-18T20:48:34Z' },
  },
  Turin: {
    ARK: { serial: 0x030000, notBefore: '2023-05-15T20:03:12Z' },
    ASK: { serial: 0x030001, notBefore: '2023-05-15T20:25:21Z' },
    ASVK: { serial: 0x030101, notBefore: '2023-05-15T21:09:41Z' },
  },
});

/** Common name of a CA certificate. */
export function caName(product: ProductLine, role: CaRole): string {
  return { ARK: `ARK-${product}`, ASK: `SEV-${product}`, ASVK: `SEV-VLEK-${product}` }[role];
}

/**
 * What the ARK signs for one of the three.
 *
 * Shape    spki and arkSpki are SubjectPublicKeyInfo of RSA-4096 keys
 * Differs  an nsComment extension comes last
 */
export function caTbsCertificate(
  product: ProductLine,
  role: CaRole,
  spki: Uint8Array,
  arkSpki: Uint8Array,
): Uint8Array {
  const { serial, notBefore } = CA_ROWS[product][role];
  const notBeforeMs = Date.parse(notBefore);
  return tbsCertificate({
    serial,
    trailer: CA_TRAILER,
    issuer: caName(product, 'ARK'),
    notBeforeMs,
    notAfterMs: yearsAfter(notBeforeMs, VALIDITY_YEARS),
    subject: caName(product, role),
    spki,
    extensions: [...caExtensions(product, role, spki, arkSpki), nsComment()],
  });
}

function caExtensions(
  product: ProductLine,
  role: CaRole,
  spki: Uint8Array,
  arkSpki: Uint8Array,
): readonly Sequence[] {
  const kind = role === 'ASVK' ? 'vlek' : 'vcek';
  const skid = subjectKeyIdentifier(keyIdentifier(spki));
  const crl = crlDistributionPoint(`https://kdsintf.amd.com/${kind}/v1/${product}/crl`);
  if (role === 'ARK') {
    return [keyUsage(0x06), skid, basicConstraints(), crl];
  }
  return [skid, authorityKeyIdentifier(keyIdentifier(arkSpki)), basicConstraints(0), keyUsage(0x04), crl];
}

/** keyCertSign 0x04, cRLSign 0x02. AMD says one bit is unused where DER wants two for 0x04 alone. */
function keyUsage(bits: number): Sequence {
  return extension(OID.keyUsage, new BitString({ unusedBits: 1, valueHex: Uint8Array.of(bits) }), true);
}

function basicConstraints(pathLen?: number): Sequence {
  const value = [new Asn1Boolean({ value: true }), ...(pathLen === undefined ? [] : [integer(pathLen)])];
  return extension(OID.basicConstraints, sequence(...value), true);
}
