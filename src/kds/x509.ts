// SPDX-License-Identifier: Apache-2.0
/**
 * X.509 as AMD's key service writes it: the names, algorithm identifiers, extensions and times that its
 * certificates and revocation lists are made of. [KDS]; [RFC5280]; forms checked against genuine ones.
 */
import { createHash } from 'node:crypto';
import {
  Boolean as Asn1Boolean,
  Set as Asn1Set,
  type AsnType,
  BitString,
  Constructed,
  fromBER,
  GeneralizedTime,
  IA5String,
  Integer,
  Null,
  ObjectIdentifier,
  OctetString,
  Primitive,
  PrintableString,
  Sequence,
  UTCTime,
  Utf8String,
} from 'asn1js';
import { TEST_ROOT_COMMENT } from '../certs/test-root.ts';
import { utf8 } from '../lib/bytes.ts';
import { invariant } from '../lib/errors.ts';

export const OID = {
  id_ecPublicKey: '1.2.840.10045.2.1',
  secp384r1: '1.3.132.0.34',
  rsassaPss: '1.2.840.113549.1.1.10',
  mgf1: '1.2.840.113549.1.1.8',
  sha384: '2.16.840.1.101.3.4.2.2',
  commonName: '2.5.4.3',
  countryName: '2.5.4.6',
  localityName: '2.5.4.7',
  stateOrProvinceName: '2.5.4.8',
  organizationName: '2.5.4.10',
  organizationalUnitName: '2.5.4.11',
  ecdsaWithSHA256: '1.2.840.10045.4.3.2',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  cRLNumber: '2.5.29.20',
  nameConstraints: '2.5.29.30',
  cRLDistributionPoints: '2.5.29.31',
  authorityKeyIdentifier: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  nsComment: '2.16.840.1.113730.1.13',
  amd: '1.3.6.1.4.1.3704.1',
} as const;

export const oid = (value: string): ObjectIdentifier => new ObjectIdentifier({ value });
export const sequence = (...value: AsnType[]): Sequence => new Sequence({ value });
export const integer = (value: number): Integer => new Integer({ value });
export const der = (node: AsnType): Uint8Array => new Uint8Array(node.toBER());

/** A context-specific tag around other values: EXPLICIT, or IMPLICIT over a constructed type. */
export const tagged = (tagNumber: number, ...value: AsnType[]): Constructed =>
  new Constructed({ idBlock: { tagClass: 3, tagNumber }, value });

/** A context-specific IMPLICIT tag over a primitive type. */
export const taggedBytes = (tagNumber: number, valueHex: Uint8Array): Primitive =>
  new Primitive({ idBlock: { tagClass: 3, tagNumber }, valueHex });

/** The tree of DER that this process made itself. */
export function parsedDer(bytes: Uint8Array): AsnType {
  const { offset, result } = fromBER(bytes);
  invariant(offset === bytes.length, 'DER made here does not parse');
  return result;
}

/** A distinguished name with AMD's attributes, their order and string types. */
export function amdName(commonName: string): Sequence {
  const attributes: [string, AsnType][] = [
    [OID.organizationalUnitName, new Utf8String({ value: 'Engineering' })],
    [OID.countryName, new PrintableString({ value: 'US' })],
    [OID.localityName, new Utf8String({ value: 'Santa Clara' })],
    [OID.stateOrProvinceName, new Utf8String({ value: 'CA' })],
    [OID.organizationName, new Utf8String({ value: 'Advanced Micro Devices' })],
    [OID.commonName, new Utf8String({ value: commonName })],
  ];
  return sequence(...attributes.map(([type, value]) => new Asn1Set({ value: [sequence(oid(type), value)] })));
}

/**
 * RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
 *
 * `trailer` 'explicit' encodes trailerField although it has its default value, as AMD's CA certificates
 * do against DER; 'omitted' is the form of what AMD signs since November 2024.
 */
export function pssAlgorithm(trailer: 'explicit' | 'omitted'): Sequence {
  const sha384 = (): Sequence => sequence(oid(OID.sha384), new Null());
  return sequence(
    oid(OID.rsassaPss),
    sequence(
      tagged(0, sha384()),
      tagged(1, sequence(oid(OID.mgf1), sha384())),
      tagged(2, integer(48)),
      ...(trailer === 'explicit' ? [tagged(3, integer(1))] : []),
    ),
  );
}

/** A time in whole seconds: UTCTime until 2049, GeneralizedTime after. [RFC5280] 4.1.2.5. */
export function time(ms: number): UTCTime | GeneralizedTime {
  const valueDate = new Date(Math.floor(ms / 1000) * 1000);
  invariant(!Number.isNaN(valueDate.getTime()), `${ms} is no time in milliseconds`);
  const year = valueDate.getUTCFullYear();
  return year >= 1950 && year <= 2049 ? new UTCTime({ valueDate }) : new GeneralizedTime({ valueDate });
}

/** The same date and time of day some years later; 29 February becomes the 28th. */
export function yearsAfter(ms: number, years: number): number {
  const date = new Date(ms);
  const month = date.getUTCMonth();
  date.setUTCFullYear(date.getUTCFullYear() + years);
  if (date.getUTCMonth() !== month) {
    date.setUTCDate(0);
  }
  return date.getTime();
}

/** An extension whose value is these bytes as they stand. */
export function rawExtension(type: string, value: Uint8Array, critical = false): Sequence {
  return sequence(
    oid(type),
    ...(critical ? [new Asn1Boolean({ value: true })] : []),
    new OctetString({ valueHex: value }),
  );
}

export const extension = (type: string, value: AsnType, critical = false): Sequence =>
  rawExtension(type, der(value), critical);

/** The remark that makes a certificate recognisable to people, as an extension of its own. */
export const nsComment = (): Sequence =>
  extension(OID.nsComment, new IA5String({ value: TEST_ROOT_COMMENT }));

export const subjectKeyIdentifier = (keyId: Uint8Array): Sequence =>
  extension(OID.subjectKeyIdentifier, new OctetString({ valueHex: keyId }));

export const authorityKeyIdentifier = (keyId: Uint8Array): Sequence =>
  extension(OID.authorityKeyIdentifier, sequence(taggedBytes(0, keyId)));

/**
 * The same remark where a VCEK or VLEK certificate may carry it.
 *
 * go-sev-guest refuses an endorsement key certificate with any extension besides AMD's own and the
 * authority key identifier. So the remark stands there, as the name of the root: an otherName of type
 * nsComment in authorityCertIssuer, which `openssl x509 -text` prints as "othername: Netscape Comment".
 *
 * Shape    keyIdentifier [0], authorityCertIssuer [1], authorityCertSerialNumber [2] of the ASK or ASVK
 * Source   [RFC5280] 4.2.1.1 and 4.2.1.6
 */
export function commentedAuthorityKeyIdentifier(keyId: Uint8Array, issuerSerial: number): Sequence {
  const otherName = tagged(0, oid(OID.nsComment), tagged(0, new IA5String({ value: TEST_ROOT_COMMENT })));
  const serial = new Uint8Array(integer(issuerSerial).valueBlock.toBER());
  return extension(
    OID.authorityKeyIdentifier,
    sequence(taggedBytes(0, keyId), tagged(1, otherName), taggedBytes(2, serial)),
  );
}

/** A certificate's only CRL distribution point, a URL. */
export function crlDistributionPoint(url: string): Sequence {
  const fullName = tagged(0, tagged(0, taggedBytes(6, utf8(url))));
  return extension(OID.cRLDistributionPoints, sequence(sequence(fullName)));
}

/** SHA-1 of the subjectPublicKey bits, as AMD computes it. [RFC5280] 4.2.1.2 (1). */
export function keyIdentifier(spki: Uint8Array): Uint8Array {
  const [, key] = (parsedDer(spki) as Sequence).valueBlock.value as [Sequence, BitString];
  return Uint8Array.from(createHash('sha1').update(key.valueBlock.valueHexView).digest());
}

export interface CertificateFields {
  readonly serial: number;
  readonly trailer: 'explicit' | 'omitted';
  readonly issuer: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly subject: string;
  readonly spki: Uint8Array;
  readonly extensions: readonly Sequence[];
}

/** TBSCertificate, version 3; issuer and subject are common names. */
export function tbsCertificate(fields: CertificateFields): Uint8Array {
  return der(
    sequence(
      tagged(0, integer(2)),
      integer(fields.serial),
      pssAlgorithm(fields.trailer),
      amdName(fields.issuer),
      sequence(time(fields.notBeforeMs), time(fields.notAfterMs)),
      amdName(fields.subject),
      parsedDer(fields.spki),
      tagged(3, sequence(...fields.extensions)),
    ),
  );
}

/** A signed structure: the bytes that were signed, the algorithm again, the signature. */
export function signed(tbs: Uint8Array, trailer: 'explicit' | 'omitted', signature: Uint8Array): Uint8Array {
  return der(sequence(parsedDer(tbs), pssAlgorithm(trailer), new BitString({ valueHex: signature })));
}
