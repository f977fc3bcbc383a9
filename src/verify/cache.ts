// SPDX-License-Identifier: Apache-2.0
/**
 * What a verifier may remember between two pieces of evidence: facts about bytes, never verdicts.
 *
 * A certificate's decoding and whether one key signed it do not depend on time, trust or policy, so a
 * verdict with a cache and one without are the same. Entries are found by the SHA-256 of the received
 * bytes; the oldest goes when a table is full.
 */
import { copyOf, toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { type Judging, sha256Hex, verifyRsaPss } from './crypto.ts';
import type { Finding } from './findings.ts';
import { type Endorsement, endorsementOf, profileFindings, roleOf } from './profile.ts';
import type { CertificateRole } from './roles.ts';
import {
  type Certificate,
  decodeCertificate,
  decodeRevocationList,
  MAX_CERTIFICATE_BYTES,
  MAX_CRL_BYTES,
  type RevocationList,
} from './x509.ts';

/** A certificate with everything that follows from its bytes alone. */
export interface KnownCertificate {
  readonly certificate: Certificate;
  /** SHA-256 of the DER, hexadecimal. */
  readonly fingerprint: string;
  /** Null when its names are none of AMD's. */
  readonly role: CertificateRole | null;
  /** In what it differs from AMD's profile for the role. */
  readonly profile: readonly Finding[];
  /** Only for VCEK and VLEK. */
  readonly endorsement: Endorsement | null;
}

/** One way up from a leaf; a null is a certificate that is not there. */
export interface Path {
  readonly leaf: KnownCertificate | null;
  readonly intermediate: KnownCertificate | null;
  readonly root: KnownCertificate | null;
}

/** A revocation list and its fingerprint. */
export interface KnownRevocationList {
  readonly list: RevocationList;
  readonly fingerprint: string;
}

/** Bytes that are no certificate or list, and why. */
export interface Malformed {
  readonly malformed: string;
  readonly fingerprint: string;
}

class BoundedMap<V> {
  readonly #entries = new Map<string, V>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: V): void {
    if (this.#entries.size >= this.#limit && !this.#entries.has(key)) {
      // A Map iterates in the order of insertion, so the first key is the oldest.
      this.#entries.delete(this.#entries.keys().next().value!);
    }
    this.#entries.set(key, value);
  }

  get size(): number {
    return this.#entries.size;
  }
}

/** Remembers decoded certificates, their keys and their signatures; share one among all verifications. */
export class VerifyCache {
  readonly #certificates: BoundedMap<KnownCertificate | Malformed>;
  readonly #lists: BoundedMap<KnownRevocationList | Malformed>;
  /** By what is signed, then by the issuer; gone with the certificates. */
  readonly #signatures = new WeakMap<object, WeakMap<KnownCertificate, boolean>>();
  readonly #points: BoundedMap<Uint8Array>;

  /** @param capacity certificates kept; a certificate takes some 10 kB with its key */
  constructor(capacity = 1024) {
    this.#certificates = new BoundedMap(capacity);
    this.#lists = new BoundedMap(Math.max(1, capacity >> 4));
    this.#points = new BoundedMap(capacity);
  }

  /** Endorsement keys known: certificates the key service issued anew for one key count once. */
  get endorsementKeys(): number {
    return this.#points.size;
  }

  /** Shape    `fingerprint` is that of the bytes, where it has been computed already */
  *certificate(given: Uint8Array, fingerprint?: string): Judging<KnownCertificate | Malformed> {
    const known = this.knownCertificate(fingerprint ?? (yield* sha256Hex(given)));
    if (known !== undefined) {
      return known;
    }
    const der = ownOf(given, MAX_CERTIFICATE_BYTES);
    const own = yield* sha256Hex(der);
    // Known by now if another verification was at the same certificate: one object each, so that facts are found.
    const decoded = this.knownCertificate(own) ?? this.#decode(der, own);
    this.#certificates.set(own, decoded);
    return decoded;
  }

  /** What `certificate` would find without decoding anything; asked first, it spares the warm way a generator. */
  knownCertificate(fingerprint: string): KnownCertificate | Malformed | undefined {
    return this.#certificates.get(fingerprint);
  }

  #decode(der: Uint8Array, fingerprint: string): KnownCertificate | Malformed {
    try {
      const certificate = this.#withSharedKey(decodeCertificate(der));
      const role = roleOf(certificate);
      const isLeaf = role?.kind === 'VCEK' || role?.kind === 'VLEK';
      const endorsement = isLeaf ? endorsementOf(certificate) : null;
      const profile = role === null ? [] : profileFindings(certificate, role, endorsement);
      return { certificate, fingerprint, role, profile, endorsement };
    } catch (error) {
      return malformed(error, fingerprint);
    }
  }

  // Providers remember a key with its array: re-issued certificates share one array, hence one key.
  #withSharedKey(certificate: Certificate): Certificate {
    const { key } = certificate;
    if (key.kind !== 'p384') {
      return certificate;
    }
    const name = toHex(key.point);
    let point = this.#points.get(name);
    if (point === undefined) {
      point = key.point;
      this.#points.set(name, point);
    }
    return { ...certificate, key: { kind: 'p384', point } };
  }

  /** Shape    as `certificate` */
  *revocationList(given: Uint8Array, fingerprint?: string): Judging<KnownRevocationList | Malformed> {
    const known = this.knownRevocationList(fingerprint ?? (yield* sha256Hex(given)));
    if (known !== undefined) {
      return known;
    }
    const der = ownOf(given, MAX_CRL_BYTES);
    const own = yield* sha256Hex(der);
    const decoded = this.knownRevocationList(own) ?? decodedList(der, own);
    this.#lists.set(own, decoded);
    return decoded;
  }

  /** What `revocationList` would find without decoding anything. */
  knownRevocationList(fingerprint: string): KnownRevocationList | Malformed | undefined {
    return this.#lists.get(fingerprint);
  }

  /**
   * Whether the issuer's key signed a certificate or list; false when that key is not RSA-4096 with exponent 65537,
   * because what a provider does with other keys differs from one to the next.
   */
  *isSignedBy(signed: KnownCertificate | KnownRevocationList, issuer: KnownCertificate): Judging<boolean> {
    const known = this.knownSignature(signed, issuer);
    if (known !== undefined) {
      return known;
    }
    const { key } = issuer.certificate;
    const document = 'certificate' in signed ? signed.certificate : signed.list;
    if (
      key.kind !== 'rsa' ||
      key.bits !== 4096 ||
      key.exponent !== 65537 ||
      !document.signatureAlgorithm.isAmdPss
    ) {
      return false;
    }
    const verdict = yield* verifyRsaPss(issuer.certificate.spki, document.tbs, document.signature);
    let byIssuer = this.#signatures.get(signed);
    if (byIssuer === undefined) {
      byIssuer = new WeakMap();
      this.#signatures.set(signed, byIssuer);
    }
    byIssuer.set(issuer, verdict);
    return verdict;
  }

  /** What `isSignedBy` would find without verifying anything. */
  knownSignature(
    signed: KnownCertificate | KnownRevocationList,
    issuer: KnownCertificate,
  ): boolean | undefined {
    return this.#signatures.get(signed)?.get(issuer);
  }
}

/**
 * Bytes that nobody changes between their hash, which may be waited for, and their decoding: else a document could be
 * known by the fingerprint of another. They are hashed anew, for they may have changed since they were looked for; what
 * is too large to be decoded needs no copy.
 */
const ownOf = (bytes: Uint8Array, maxBytes: number): Uint8Array =>
  bytes.length > maxBytes ? bytes : copyOf(bytes);

function decodedList(der: Uint8Array, fingerprint: string): KnownRevocationList | Malformed {
  try {
    return { list: decodeRevocationList(der), fingerprint };
  } catch (error) {
    return malformed(error, fingerprint);
  }
}

function malformed(error: unknown, fingerprint: string): Malformed {
  if (error instanceof InputError) {
    return { malformed: error.message, fingerprint };
  }
  throw error;
}
