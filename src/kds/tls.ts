// SPDX-License-Identifier: Apache-2.0
/**
 * The TLS side of the service: a root that clients are told to trust, a certificate for kdsintf.amd.com
 * under it, and client certificates for cloud providers.
 *
 * A root in a trust store is a danger to whatever else reads that store. This one is made anew on every
 * machine and can certify nothing but AMD's key service and the loopback interface: a critical name
 * constraint says so, and TLS libraries refuse what is outside. Its keys have nothing to do with those that
 * sign VCEKs.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from 'node:crypto';
import {
  Boolean as Asn1Boolean,
  Set as Asn1Set,
  BitString,
  Integer,
  type Sequence,
  Utf8String,
} from 'asn1js';
import { toPem } from '../certs/pem.ts';
import { TEST_ROOT_COMMENT } from '../certs/test-root.ts';
import { concat, utf8 } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import {
  authorityKeyIdentifier,
  der,
  extension,
  integer,
  keyIdentifier,
  nsComment,
  OID,
  oid,
  parsedDer,
  sequence,
  subjectKeyIdentifier,
  tagged,
  taggedBytes,
  time,
  yearsAfter,
} from './x509.ts';

/** A certificate and its private key (PKCS #8), both PEM. */
export interface TlsKeyPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** 'server' certifies the service, 'client' the cloud providers; neither is believed in the other's place. */
export type TlsAuthorityKind = 'server' | 'client';

/** The host name in every client of AMD's service. */
export const KDS_HOST = 'kdsintf.amd.com';

const DNS_NAMES: readonly string[] = [KDS_HOST, 'localhost'];
const LOOPBACK_V4 = Uint8Array.of(127, 0, 0, 1);
const LOOPBACK_V6 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

/** P-256, by the name that node:crypto tells. */
const CURVE = 'prime256v1';

const AUTHORITY_YEARS = 10;
/** The longest that any client accepts of a public server; made anew at every start. */
const LEAF_DAYS = 397;
const DAY_MS = 86_400_000;
/** Clocks of client and server may differ by this much. */
const BACKDATE_MS = DAY_MS;

const COMMON_NAMES: Readonly<Record<TlsAuthorityKind, string>> = {
  server: 'softsnp TLS root for kdsintf.amd.com',
  client: 'softsnp root for cloud providers',
};

/** A new self-signed root. */
export function makeTlsAuthority(kind: TlsAuthorityKind, nowMs: number, random: Random): TlsKeyPair {
  const key = newKey();
  const name = distinguishedName(COMMON_NAMES[kind]);
  const certificate = signedBy(key, {
    issuer: name,
    subject: name,
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: yearsAfter(nowMs, AUTHORITY_YEARS),
    spki: spkiOf(key),
    random,
    extensions: [
      extension(OID.basicConstraints, sequence(new Asn1Boolean({ value: true }), integer(0)), true),
      keyUsage(1, 0x06),
      subjectKeyIdentifier(keyIdentifier(spkiOf(key))),
      ...(kind === 'server' ? [nameConstraints()] : []),
      nsComment(),
    ],
  });
  return { certificate: toPem(certificate), privateKey: privateKeyPem(key) };
}

/** A certificate for kdsintf.amd.com, localhost and the loopback addresses. */
function issueServerCertificate(authority: TlsKeyPair, nowMs: number, random: Random): TlsKeyPair {
  const names = sequence(
    ...DNS_NAMES.map((name) => taggedBytes(2, utf8(name))),
    taggedBytes(7, LOOPBACK_V4),
    taggedBytes(7, LOOPBACK_V6),
  );
  const purpose = [
    extension(OID.extKeyUsage, sequence(oid(OID.serverAuth))),
    extension(OID.subjectAltName, names),
  ];
  return issueLeaf(authority, {
    kind: 'server',
    commonName: KDS_HOST,
    key: newKey(),
    purpose,
    nowMs,
    random,
  });
}

/**
 * A client certificate with which a cloud provider is known to the service.
 *
 * Shape    csp is CN= and a common name, as in the CSP_ID extension of the provider's VLEKs; authority is a
 *          'client' one; privateKey PEM, a new one if left out
 */
export function issueClientCertificate(
  authority: TlsKeyPair,
  csp: string,
  nowMs: number,
  random: Random,
  privateKey?: string,
): TlsKeyPair {
  invariant(csp.startsWith('CN='), `${csp} is not CN= and a common name`);
  const key = privateKey === undefined ? newKey() : createPrivateKey(privateKey);
  const purpose = [extension(OID.extKeyUsage, sequence(oid(OID.clientAuth)))];
  const commonName = csp.slice('CN='.length);
  return issueLeaf(authority, { kind: 'client', commonName, key, purpose, nowMs, random });
}

/** A private key as those of the certificates here, PEM. */
export const makeTlsKey = (): string => privateKeyPem(newKey());

/** Whether it is one. */
export function isTlsKey(pem: string): boolean {
  try {
    return createPrivateKey(pem).asymmetricKeyDetails?.namedCurve === CURVE;
  } catch {
    return false;
  }
}

/** What a server needs, and what its clients need from it. */
export interface TlsIdentity {
  /** The root for trust stores, PEM. */
  readonly root: string;
  readonly server: TlsKeyPair;
  /** Who certifies the providers, PEM. */
  readonly clientRoot: string;
}

/** An identity under these authorities, with a server certificate of its own. */
export function makeTlsIdentity(
  authorities: Readonly<Record<TlsAuthorityKind, TlsKeyPair>>,
  nowMs: number,
  random: Random,
): TlsIdentity {
  return {
    root: authorities.server.certificate,
    server: issueServerCertificate(authorities.server, nowMs, random),
    clientRoot: authorities.client.certificate,
  };
}

/** Whether a stored certificate and key can be read, belong together and are the issuer's. */
export function isKeyPair(pair: TlsKeyPair, issuer: TlsKeyPair = pair): boolean {
  try {
    const certificate = new X509Certificate(pair.certificate);
    return (
      certificate.checkPrivateKey(createPrivateKey(pair.privateKey)) &&
      certificate.verify(createPublicKey(issuer.privateKey))
    );
  } catch {
    return false;
  }
}

/** First and last millisecond of a certificate's term. */
export function termOf({ certificate }: TlsKeyPair): readonly [fromMs: number, toMs: number] {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return [Date.parse(validFrom), Date.parse(validTo)];
}

interface Leaf {
  readonly kind: TlsAuthorityKind;
  readonly commonName: string;
  readonly key: KeyObject;
  readonly purpose: readonly Sequence[];
  readonly nowMs: number;
  readonly random: Random;
}

function issueLeaf(authority: TlsKeyPair, leaf: Leaf): TlsKeyPair {
  const { kind, commonName, key, purpose, nowMs, random } = leaf;
  const issuerKey = createPrivateKey(authority.privateKey);
  const issuerSpki = spkiOf(issuerKey);
  const certificate = signedBy(issuerKey, {
    issuer: distinguishedName(COMMON_NAMES[kind]),
    subject: distinguishedName(commonName),
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: nowMs - BACKDATE_MS + LEAF_DAYS * DAY_MS,
    spki: spkiOf(key),
    random,
    extensions: [
      extension(OID.basicConstraints, sequence(), true),
      keyUsage(7, 0x80),
      ...purpose,
      subjectKeyIdentifier(keyIdentifier(spkiOf(key))),
      authorityKeyIdentifier(keyIdentifier(issuerSpki)),
      nsComment(),
    ],
  });
  return { certificate: toPem(certificate), privateKey: privateKeyPem(key) };
}

const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: CURVE }).privateKey;

const spkiOf = (key: KeyObject): Uint8Array =>
  Uint8Array.from(createPublicKey(key).export({ format: 'der', type: 'spki' }));

const privateKeyPem = (key: KeyObject): string => key.export({ format: 'pem', type: 'pkcs8' }).toString();

function distinguishedName(commonName: string): Sequence {
  const attribute = (type: string, value: string): Asn1Set =>
    new Asn1Set({ value: [sequence(oid(type), new Utf8String({ value }))] });
  return sequence(attribute(OID.organizationName, TEST_ROOT_COMMENT), attribute(OID.commonName, commonName));
}

/** keyCertSign and cRLSign 0x06 with one unused bit, digitalSignature 0x80 with seven. */
const keyUsage = (unusedBits: number, bits: number): Sequence =>
  extension(OID.keyUsage, new BitString({ unusedBits, valueHex: Uint8Array.of(bits) }), true);

/** The only names the root may certify. [RFC5280] 4.2.1.10: addresses are followed by their mask. */
function nameConstraints(): Sequence {
  const permitted = [
    ...DNS_NAMES.map((name) => taggedBytes(2, utf8(name))),
    taggedBytes(7, Uint8Array.of(127, 0, 0, 0, 255, 0, 0, 0)),
    taggedBytes(7, concat(LOOPBACK_V6, new Uint8Array(16).fill(0xff))),
  ];
  const subtrees = tagged(0, ...permitted.map((name) => sequence(name)));
  return extension(OID.nameConstraints, sequence(subtrees), true);
}

interface TlsCertificateFields {
  readonly issuer: Sequence;
  readonly subject: Sequence;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly spki: Uint8Array;
  readonly random: Random;
  readonly extensions: readonly Sequence[];
}

function signedBy(key: KeyObject, fields: TlsCertificateFields): Uint8Array {
  const algorithm = (): Sequence => sequence(oid(OID.ecdsaWithSHA256));
  const tbs = der(
    sequence(
      tagged(0, integer(2)),
      new Integer({ valueHex: serialNumber(fields.random) }),
      algorithm(),
      fields.issuer,
      sequence(time(fields.notBeforeMs), time(fields.notAfterMs)),
      fields.subject,
      parsedDer(fields.spki),
      tagged(3, sequence(...fields.extensions)),
    ),
  );
  const signature = Uint8Array.from(sign('sha256', tbs, key));
  return der(sequence(parsedDer(tbs), algorithm(), new BitString({ valueHex: signature })));
}

/** Sixteen bytes that are a positive INTEGER in its shortest form. */
function serialNumber(random: Random): Uint8Array {
  const bytes = random.bytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes;
}
