// SPDX-License-Identifier: Apache-2.0
/**
 * X.509 certificates and revocation lists as received: every slice the verifier hashes or compares is a
 * view of the bytes that came in. Decoding refuses what is not DER or not of the RFC 5280 shape; whether
 * the content is what AMD issues is for profile.ts to say.
 */

import { equalBytes, fromHex, startsWith, toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { printable } from '../lib/text.ts';
import {
  contentOf,
  type DerNode,
  DerSequence,
  decodeDer,
  derOf,
  failAt,
  oidOf,
  ownCopy,
  smallIntegerOf,
  Tag,
  textOf,
  timeOf,
} from './der.ts';

/** AMD's largest certificate has 1683 bytes. */
export const MAX_CERTIFICATE_BYTES = 8192;
const MAX_CERTIFICATE_NODES = 512;
/** AMD's revocation lists have some 800 bytes and one entry; an intermediate more adds about 36 bytes. */
export const MAX_CRL_BYTES = 65536;
const MAX_CRL_NODES = 8192;

export interface Name {
  /** DER of the whole name: names are compared by these bytes. */
  readonly der: Uint8Array;
  /** The one common name as it may be shown, or null when there is none or more than one. */
  readonly commonName: string | null;
  /** All attributes in order, for people and as they may be shown: OU=Engineering, C=US ... */
  readonly text: string;
}

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** Content of extnValue. */
  readonly value: Uint8Array;
}

export type PublicKey =
  | { readonly kind: 'rsa'; readonly bits: number; readonly exponent: number | null }
  | { readonly kind: 'p384'; readonly point: Uint8Array }
  | { readonly kind: 'other'; readonly what: string };

/** How a certificate or list is signed. */
export interface SignatureAlgorithm {
  /** RSASSA-PSS with SHA-384, MGF1-SHA-384 and 48 bytes of salt, in one of AMD's two encodings. */
  readonly isAmdPss: boolean;
  /** For people: what it is, or why it is not that. */
  readonly text: string;
}

export interface Certificate {
  readonly der: Uint8Array;
  /** What the issuer signed. */
  readonly tbs: Uint8Array;
  /** 1, 2 or 3. */
  readonly version: number;
  /** Hexadecimal digits of the INTEGER's content. */
  readonly serial: string;
  readonly issuer: Name;
  readonly subject: Name;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  readonly key: PublicKey;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
  readonly extensions: readonly Extension[];
}

export interface RevokedEntry {
  readonly serial: string;
  readonly dateMs: number;
}

export interface RevocationList {
  readonly der: Uint8Array;
  readonly tbs: Uint8Array;
  readonly issuer: Name;
  readonly thisUpdateMs: number;
  /** Null when the list does not say: treated as stale. */
  readonly nextUpdateMs: number | null;
  /** Null when the list carries no number. */
  readonly number: bigint | null;
  readonly revoked: readonly RevokedEntry[];
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

export const Oid = {
  commonName: '2.5.4.3',
  rsaEncryption: '1.2.840.113549.1.1.1',
  rsassaPss: '1.2.840.113549.1.1.10',
  ecPublicKey: '1.2.840.10045.2.1',
  secp384r1: '1.3.132.0.34',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  basicConstraints: '2.5.29.19',
  crlNumber: '2.5.29.20',
  crlDistributionPoints: '2.5.29.31',
  authorityKeyIdentifier: '2.5.29.35',
  nsComment: '2.16.840.1.113730.1.13',
} as const;

const ATTRIBUTE_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
};

const SIGNATURE_NAMES: Readonly<Record<string, string>> = {
  '1.2.840.113549.1.1.5': 'sha1WithRSAEncryption',
  '1.2.840.113549.1.1.11': 'sha256WithRSAEncryption',
  '1.2.840.113549.1.1.12': 'sha384WithRSAEncryption',
  '1.2.840.113549.1.1.13': 'sha512WithRSAEncryption',
  '1.2.840.10045.4.3.2': 'ecdsa-with-SHA256',
  '1.2.840.10045.4.3.3': 'ecdsa-with-SHA384',
};

/**
 * AMD's two encodings of the one algorithm: until 2023 with the default trailerField spelt out, which is
 * not DER (RFC 4055 says it must be left out), since then without. Both are in use side by side.
 */
const PSS_EXPLICIT_TRAILER = fromHex(
  '304606092a864886f70d01010a3039a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101',
);
const PSS_DEFAULT_TRAILER = fromHex(
  '304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130',
);

/**
 * Decodes one certificate.
 *
 * Errors   CERTIFICATE_INVALID naming the offset
 * Source   RFC 5280 section 4.1
 */
export function decodeCertificate(der: Uint8Array): Certificate {
  const what = 'Certificate';
  const limits = { what, maxBytes: MAX_CERTIFICATE_BYTES, maxNodes: MAX_CERTIFICATE_NODES };
  const bytes = ownCopy(der, limits);
  const root = decodeDer(bytes, limits);
  const outer = sequenceOf(bytes, root, what);
  const tbsNode = outer.take('tbsCertificate', Tag.SEQUENCE);
  const algorithmNode = outer.take('signatureAlgorithm', Tag.SEQUENCE);
  const signature = wholeBits(bytes, outer.take('signatureValue', Tag.BIT_STRING), what);
  outer.done();

  const tbs = new DerSequence(bytes, tbsNode, what);
  const version = versionOf(bytes, tbs.optional(0xa0), what);
  const serial = toHex(contentOf(bytes, tbs.take('serialNumber', Tag.INTEGER)));
  sameAlgorithm(bytes, tbs.take('signature', Tag.SEQUENCE), algorithmNode, what);
  const issuer = nameOf(bytes, tbs.take('issuer', Tag.SEQUENCE), what);
  const validity = tbs.enter('validity');
  const notBefore = validity.take('notBefore', Tag.UTC_TIME, Tag.GENERALIZED_TIME);
  const notAfter = validity.take('notAfter', Tag.UTC_TIME, Tag.GENERALIZED_TIME);
  validity.done();
  const subject = nameOf(bytes, tbs.take('subject', Tag.SEQUENCE), what);
  const spkiNode = tbs.take('subjectPublicKeyInfo', Tag.SEQUENCE);
  const extensions = extensionsOf(bytes, tbs.optional(0xa3), what);
  tbs.done();

  return {
    der: bytes,
    tbs: derOf(bytes, tbsNode),
    version,
    serial,
    issuer,
    subject,
    notBeforeMs: timeOf(bytes, notBefore, what),
    notAfterMs: timeOf(bytes, notAfter, what),
    spki: derOf(bytes, spkiNode),
    key: keyOf(bytes, spkiNode, what),
    signatureAlgorithm: signatureAlgorithmOf(bytes, algorithmNode),
    signature,
    extensions,
  };
}

/**
 * Decodes one revocation list.
 *
 * Errors   CERTIFICATE_INVALID naming the offset; also for a list with a critical extension, because such
 *          a list (delta, indirect, partial) does not mean what it seems to
 * Source   RFC 5280 section 5.1
 */
export function decodeRevocationList(der: Uint8Array): RevocationList {
  const what = 'CertificateList';
  const limits = { what, maxBytes: MAX_CRL_BYTES, maxNodes: MAX_CRL_NODES };
  const bytes = ownCopy(der, limits);
  const root = decodeDer(bytes, limits);
  const outer = sequenceOf(bytes, root, what);
  const tbsNode = outer.take('tbsCertList', Tag.SEQUENCE);
  const algorithmNode = outer.take('signatureAlgorithm', Tag.SEQUENCE);
  const signature = wholeBits(bytes, outer.take('signatureValue', Tag.BIT_STRING), what);
  outer.done();

  const tbs = new DerSequence(bytes, tbsNode, what);
  const versionNode = tbs.take('version', Tag.INTEGER);
  if (smallIntegerOf(bytes, versionNode) !== 1) {
    failAt(what, versionNode, 'version is not 2');
  }
  sameAlgorithm(bytes, tbs.take('signature', Tag.SEQUENCE), algorithmNode, what);
  const issuer = nameOf(bytes, tbs.take('issuer', Tag.SEQUENCE), what);
  const thisUpdate = tbs.take('thisUpdate', Tag.UTC_TIME, Tag.GENERALIZED_TIME);
  const nextUpdate = tbs.optional(Tag.UTC_TIME) ?? tbs.optional(Tag.GENERALIZED_TIME);
  const revokedNode = tbs.optional(Tag.SEQUENCE);
  const extensions = extensionsOf(bytes, tbs.optional(0xa0), what);
  tbs.done();

  const critical = extensions.find((extension) => extension.critical);
  if (critical !== undefined) {
    failAt(what, tbsNode, `critical extension ${critical.oid} is not understood`);
  }
  return {
    der: bytes,
    tbs: derOf(bytes, tbsNode),
    issuer,
    thisUpdateMs: timeOf(bytes, thisUpdate, what),
    nextUpdateMs: nextUpdate === null ? null : timeOf(bytes, nextUpdate, what),
    number: crlNumberOf(extensions, what),
    revoked: (revokedNode?.children ?? []).map((node) => revokedEntryOf(bytes, node, what)),
    signatureAlgorithm: signatureAlgorithmOf(bytes, algorithmNode),
    signature,
  };
}

/** The Netscape comment of a certificate as its issuer wrote it; null where there is none or it is no IA5String. */
export function commentOf({ extensions }: Certificate): string | null {
  const value = extensions.find(({ oid }) => oid === Oid.nsComment)?.value;
  if (value === undefined || value[0] !== Tag.IA5_STRING) {
    return null;
  }
  try {
    return textOf(
      value,
      decodeDer(value, { what: 'nsComment', maxBytes: MAX_CERTIFICATE_BYTES, maxNodes: 1 }),
    );
  } catch (error) {
    if (error instanceof InputError) {
      return null;
    }
    throw error;
  }
}

function sequenceOf(bytes: Uint8Array, node: DerNode, what: string): DerSequence {
  if (node.tag !== Tag.SEQUENCE) {
    failAt(what, node, 'not a SEQUENCE');
  }
  return new DerSequence(bytes, node, what);
}

function wholeBits(bytes: Uint8Array, node: DerNode, what: string): Uint8Array {
  if (bytes[node.body] !== 0) {
    failAt(what, node, 'the BIT STRING does not hold whole bytes');
  }
  return bytes.subarray(node.body + 1, node.end);
}

function versionOf(bytes: Uint8Array, node: DerNode | null, what: string): number {
  if (node === null) {
    return 1;
  }
  const inner = new DerSequence(bytes, node, what);
  const version = smallIntegerOf(bytes, inner.take('version', Tag.INTEGER));
  inner.done();
  if (version !== 1 && version !== 2) {
    failAt(what, node, 'version is neither 2 nor 3, and 1 must be left out');
  }
  return version + 1;
}

// The outer algorithm is not signed: were it believed, an attacker could choose it.
function sameAlgorithm(bytes: Uint8Array, inner: DerNode, outer: DerNode, what: string): void {
  if (!equalBytes(derOf(bytes, inner), derOf(bytes, outer))) {
    failAt(what, outer, 'the signature algorithm outside differs from the signed one inside');
  }
}

function signatureAlgorithmOf(bytes: Uint8Array, node: DerNode): SignatureAlgorithm {
  const der = derOf(bytes, node);
  if (equalBytes(der, PSS_DEFAULT_TRAILER) || equalBytes(der, PSS_EXPLICIT_TRAILER)) {
    return { isAmdPss: true, text: 'RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48' };
  }
  const first = node.children[0];
  const oid = first?.tag === Tag.OID ? oidOf(bytes, first) : 'no algorithm';
  return {
    isAmdPss: false,
    text:
      oid === Oid.rsassaPss
        ? `RSASSA-PSS with other parameters (${toHex(der)})`
        : (SIGNATURE_NAMES[oid] ?? `algorithm ${oid}`),
  };
}

function nameOf(bytes: Uint8Array, node: DerNode, what: string): Name {
  const texts: string[] = [];
  const commonNames: string[] = [];
  for (const set of node.children) {
    if (set.tag !== Tag.SET || set.children.length === 0) {
      failAt(what, set, 'a name is a sequence of non-empty sets');
    }
    for (const pair of set.children) {
      const attribute = sequenceOf(bytes, pair, what);
      const oid = oidOf(bytes, attribute.take('type', Tag.OID));
      const text = textOf(
        bytes,
        attribute.take('value', Tag.UTF8_STRING, Tag.PRINTABLE_STRING, Tag.IA5_STRING),
      );
      attribute.done();
      texts.push(`${ATTRIBUTE_NAMES[oid] ?? oid}=${text}`);
      if (oid === Oid.commonName) {
        commonNames.push(text);
      }
    }
  }
  return {
    der: derOf(bytes, node),
    commonName: commonNames.length === 1 ? printable(commonNames[0]!) : null,
    text: printable(texts.join(', ')),
  };
}

// AlgorithmIdentifier and the start of the BIT STRING of a P-384 key: id-ecPublicKey, secp384r1, 97 bytes.
const P384_SPKI_PREFIX = fromHex('3076301006072a8648ce3d020106052b8104002203620004');

function keyOf(bytes: Uint8Array, node: DerNode, what: string): PublicKey {
  const spki = new DerSequence(bytes, node, what);
  const algorithm = spki.enter('algorithm');
  const oid = oidOf(bytes, algorithm.take('algorithm', Tag.OID));
  const parameters = algorithm.rest();
  const keyNode = spki.take('subjectPublicKey', Tag.BIT_STRING);
  spki.done();
  const der = derOf(bytes, node);
  if (der.length === 120 && startsWith(der, P384_SPKI_PREFIX)) {
    return { kind: 'p384', point: der.subarray(23) };
  }
  if (oid === Oid.rsaEncryption && parameters.length === 1 && parameters[0]!.tag === Tag.NULL) {
    return rsaKeyOf(wholeBits(bytes, keyNode, what));
  }
  const curve = parameters[0]?.tag === Tag.OID ? oidOf(bytes, parameters[0]) : 'explicit parameters';
  return {
    kind: 'other',
    what:
      oid === Oid.ecPublicKey
        ? `EC key on ${curve === Oid.secp384r1 ? 'P-384, not as an uncompressed point' : curve}`
        : `key of algorithm ${oid}`,
  };
}

function rsaKeyOf(der: Uint8Array): PublicKey {
  const what = 'RSAPublicKey';
  const root = decodeDer(der, { what, maxBytes: MAX_CERTIFICATE_BYTES, maxNodes: 3 });
  const key = sequenceOf(der, root, what);
  const modulus = contentOf(der, key.take('modulus', Tag.INTEGER));
  const exponent = smallIntegerOf(der, key.take('publicExponent', Tag.INTEGER));
  key.done();
  // A positive modulus whose top bit is set has one leading zero byte.
  const digits = modulus[0] === 0 ? modulus.subarray(1) : modulus;
  const bits = digits.length === 0 ? 0 : 8 * digits.length - Math.clz32(digits[0]!) + 24;
  return { kind: 'rsa', bits: modulus[0]! >= 0x80 ? 0 : bits, exponent };
}

function extensionsOf(bytes: Uint8Array, node: DerNode | null, what: string): Extension[] {
  if (node === null) {
    return [];
  }
  const outer = new DerSequence(bytes, node, what);
  const list = outer.take('extensions', Tag.SEQUENCE);
  outer.done();
  if (list.children.length === 0) {
    failAt(what, list, 'an empty list of extensions must be left out');
  }
  return list.children.map((child) => {
    const extension = sequenceOf(bytes, child, what);
    const oid = oidOf(bytes, extension.take('extnID', Tag.OID));
    const critical = extension.optional(Tag.BOOLEAN);
    if (critical !== null && bytes[critical.body] === 0) {
      failAt(what, critical, 'critical FALSE is the default and must be left out');
    }
    const value = contentOf(bytes, extension.take('extnValue', Tag.OCTET_STRING));
    extension.done();
    return { oid, critical: critical !== null, value };
  });
}

function revokedEntryOf(bytes: Uint8Array, node: DerNode, what: string): RevokedEntry {
  const entry = sequenceOf(bytes, node, what);
  const serial = toHex(contentOf(bytes, entry.take('userCertificate', Tag.INTEGER)));
  const date = entry.take('revocationDate', Tag.UTC_TIME, Tag.GENERALIZED_TIME);
  const extensions = entry.optional(Tag.SEQUENCE);
  entry.done();
  for (const child of extensions?.children ?? []) {
    const extension = sequenceOf(bytes, child, what);
    extension.take('extnID', Tag.OID);
    // certificateIssuer is the critical one: the entry would be about another issuer's certificate.
    if (extension.optional(Tag.BOOLEAN) !== null) {
      failAt(what, child, 'a critical extension of an entry is not understood');
    }
    extension.take('extnValue', Tag.OCTET_STRING);
    extension.done();
  }
  return { serial, dateMs: timeOf(bytes, date, what) };
}

function crlNumberOf(extensions: readonly Extension[], what: string): bigint | null {
  const extension = extensions.find(({ oid }) => oid === Oid.crlNumber);
  if (extension === undefined) {
    return null;
  }
  const { value } = extension;
  const node = decodeDer(value, { what: `${what}.cRLNumber`, maxBytes: 22, maxNodes: 1 });
  if (node.tag !== Tag.INTEGER || value[node.body]! >= 0x80) {
    throw new InputError('CERTIFICATE_INVALID', 'not a positive INTEGER', { where: `${what}.cRLNumber` });
  }
  return BigInt(`0x${toHex(contentOf(value, node))}`);
}
