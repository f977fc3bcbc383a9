// SPDX-License-Identifier: Apache-2.0
/**
 * From a leaf to a trusted root: every path over every same-named issuer is tried, because AMD has two
 * intermediates named SEV-Genoa (one revoked) and whichever comes first must not decide.
 */
import { equalBytes } from '../lib/bytes.ts';
import type { KnownCertificate, Path, VerifyCache } from './cache.ts';
import type { Judging } from './crypto.ts';
import { type Finding, finding, isError } from './findings.ts';
import {
  type RevocationPolicy,
  type RevocationSource,
  revocationFindings,
  type UsedList,
} from './revocation.ts';
import {
  type CertificateRole,
  certificateLabel,
  issuerRole,
  subjectCommonName,
  subjectNameDer,
} from './roles.ts';

export interface JudgedPath extends Path {
  readonly chainFindings: readonly Finding[];
  readonly revocationFindings: readonly Finding[];
  /** The revocation list that cleared the path, if one did. */
  readonly list: UsedList | null;
}

/** The certificates and lists a path may be built from, each once, in the order they are tried. */
export interface Pool {
  readonly intermediates: readonly KnownCertificate[];
  readonly roots: readonly KnownCertificate[];
  readonly lists: readonly RevocationSource[];
}

export interface ChainRules {
  readonly atMs: number;
  /** Fingerprints of the roots that are believed. */
  readonly trusted: ReadonlySet<string>;
  /** Fingerprints of AMD's roots. */
  readonly amd: ReadonlySet<string>;
  readonly revocation: RevocationPolicy;
}

/**
 * What is given together with the roots that are handed in. Trusted roots come first: an impostor of the same name is
 * only worth a look when there is nothing better, and however many there are, none takes their place.
 */
export function poolOf(given: Pool, roots: readonly KnownCertificate[], { trusted }: ChainRules): Pool {
  const all = new Map([...given.roots, ...roots].map((root) => [root.fingerprint, root]));
  const isTrusted = (root: KnownCertificate): number => (trusted.has(root.fingerprint) ? 1 : 0);
  return { ...given, roots: [...all.values()].sort((a, b) => isTrusted(b) - isTrusted(a)) };
}

/** Same-named issuers that are tried at each level; AMD has two of one name. */
const MAX_SAME_NAMED = 4;

/**
 * Finds the path that is accepted, or else the one with the least to say against it.
 *
 * Shape    `role` is what the leaf is or, without a leaf, what the report wants it to be; null when neither
 *          is known, and then there is nothing to judge
 */
export function* judgeChain(
  cache: VerifyCache,
  leaf: KnownCertificate | null,
  role: CertificateRole | null,
  pool: Pool,
  rules: ChainRules,
): Judging<JudgedPath> {
  if (role === null) {
    return { leaf, intermediate: null, root: null, chainFindings: [], revocationFindings: [], list: null };
  }
  const issuer = issuerRole(role);
  let best: JudgedPath | null = null;
  let fewest = Number.POSITIVE_INFINITY;
  for (const intermediate of namedAs(pool.intermediates, nameOfIssuer(leaf, issuer))) {
    for (const root of namedAs(pool.roots, nameOfIssuer(intermediate, issuerRole(issuer)))) {
      const judged = yield* judgePath(cache, { leaf, intermediate, root }, role, pool, rules);
      const errors = errorWeight(judged);
      if (errors < fewest) {
        best = judged;
        fewest = errors;
      }
      if (errors === 0) {
        return judged;
      }
    }
  }
  return best!;
}

function nameOfIssuer(known: KnownCertificate | null, role: CertificateRole): Uint8Array {
  return known === null ? subjectNameDer(role) : known.certificate.issuer.der;
}

/** The candidates with this subject; [null] when there are none, so that the rest is judged all the same. */
function namedAs(
  candidates: readonly KnownCertificate[],
  name: Uint8Array,
): readonly (KnownCertificate | null)[] {
  const named = candidates.filter(({ certificate }) => equalBytes(certificate.subject.der, name));
  return named.length === 0 ? [null] : named.slice(0, MAX_SAME_NAMED);
}

// A wrong signature says that the certificate has nothing to do with this leaf: worse than all else.
function errorWeight(path: JudgedPath): number {
  const weight = (sum: number, found: Finding): number =>
    isError(found) ? sum + (found.code === 'CERT_SIGNATURE_MISMATCH' ? 100 : 1) : sum;
  return path.revocationFindings.reduce(weight, path.chainFindings.reduce(weight, 0));
}

function* judgePath(
  cache: VerifyCache,
  path: Path,
  role: CertificateRole,
  pool: Pool,
  rules: ChainRules,
): Judging<JudgedPath> {
  const { leaf, intermediate, root } = path;
  const found = presenceFindings(path, role, pool);
  for (const known of [leaf, intermediate, root]) {
    if (known !== null) {
      found.push(...known.profile, ...validityFindings(known, rules.atMs));
    }
  }
  if (leaf !== null && intermediate !== null) {
    const isSigned =
      cache.knownSignature(leaf, intermediate) ?? (yield* cache.isSignedBy(leaf, intermediate));
    found.push(...signatureFindings(leaf, intermediate, isSigned));
  }
  if (intermediate !== null && root !== null) {
    const isSigned =
      cache.knownSignature(intermediate, root) ?? (yield* cache.isSignedBy(intermediate, root));
    found.push(...signatureFindings(intermediate, root, isSigned));
  }
  if (root !== null) {
    found.push(...trustFindings(root, rules));
  }
  if (root === null) {
    return { ...path, chainFindings: found, revocationFindings: [], list: null };
  }
  const revocation = yield* revocationFindings(cache, path, pool.lists, rules.revocation, rules.atMs);
  return { ...path, chainFindings: found, revocationFindings: revocation.findings, list: revocation.list };
}

function presenceFindings({ intermediate, root }: Path, role: CertificateRole, pool: Pool): Finding[] {
  const found: Finding[] = [];
  const intermediateRole = issuerRole(role);
  if (intermediate === null) {
    found.push(
      finding('INTERMEDIATE_MISSING', {
        where: certificateLabel(intermediateRole),
        expected: `CN=${subjectCommonName(intermediateRole)}`,
        actual: commonNames(pool.intermediates),
        message: `There is no ${intermediateRole.kind} certificate with the name of the ${role.kind}'s issuer.`,
      }),
    );
  }
  if (root === null) {
    const rootRole = issuerRole(intermediateRole);
    found.push(
      finding('ROOT_MISSING', {
        where: certificateLabel(rootRole),
        expected: `CN=${subjectCommonName(rootRole)}`,
        actual: commonNames(pool.roots),
      }),
    );
  }
  return found;
}

const commonNames = (known: readonly KnownCertificate[]): string =>
  known.length === 0 ? 'none' : known.map(({ certificate }) => certificate.subject.commonName).join(', ');

function validityFindings(known: KnownCertificate, atMs: number): Finding[] {
  const { notBeforeMs, notAfterMs } = known.certificate;
  // X.509 times have whole seconds, and both ends belong to the interval.
  const at = Math.floor(atMs / 1000) * 1000;
  if (at >= notBeforeMs && at <= notAfterMs) {
    return [];
  }
  const where = `${labelOf(known)}.validity`;
  const iso = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`;
  return at < notBeforeMs
    ? [finding('CERT_NOT_YET_VALID', { where, expected: `from ${iso(notBeforeMs)}`, actual: iso(at) })]
    : [finding('CERT_EXPIRED', { where, expected: `until ${iso(notAfterMs)}`, actual: iso(at) })];
}

function signatureFindings(signed: KnownCertificate, issuer: KnownCertificate, isSigned: boolean): Finding[] {
  // Of another algorithm the profile has said so already, and no key can make such a signature good.
  if (isSigned || !signed.certificate.signatureAlgorithm.isAmdPss) {
    return [];
  }
  return [
    finding('CERT_SIGNATURE_MISMATCH', {
      where: `${labelOf(signed)}.signatureValue`,
      expected: `a signature of ${issuer.certificate.subject.commonName}`,
      message: `${issuer.certificate.subject.commonName} did not sign the ${labelOf(signed)} certificate.`,
    }),
  ];
}

function trustFindings(root: KnownCertificate, rules: ChainRules): Finding[] {
  const where = labelOf(root);
  if (!rules.trusted.has(root.fingerprint)) {
    return [
      finding('ROOT_UNTRUSTED', {
        where,
        expected: [...rules.trusted].join(' or '),
        actual: root.fingerprint,
        message: `The root calls itself ${root.certificate.subject.commonName}, but it is not one of the trusted roots.`,
      }),
    ];
  }
  return rules.amd.has(root.fingerprint)
    ? []
    : [finding('ROOT_IS_TEST', { where, actual: root.fingerprint })];
}

function labelOf(known: KnownCertificate): string {
  return known.role === null ? known.certificate.subject.text : certificateLabel(known.role);
}
