// SPDX-License-Identifier: Apache-2.0
/**
 * Revocation lists. Only the ARK has the right to sign one, and it lists intermediates; every VCEK and
 * VLEK has serial number 0, so that none of them can be revoked alone (TCB versions play that part).
 */
import { equalBytes } from '../lib/bytes.ts';
import type { KnownCertificate, KnownRevocationList, Malformed, Path, VerifyCache } from './cache.ts';
import type { Judging } from './crypto.ts';
import { type Finding, finding, type Severity } from './findings.ts';
import { serialText } from './profile.ts';
import { certificateLabel } from './roles.ts';

/** A list, or bytes that are none, and what findings call it. */
export interface RevocationSource {
  readonly known: KnownRevocationList | Malformed;
  readonly where: string;
}

export interface RevocationPolicy {
  /**
   * require: no current list of the root, no acceptance. if-present: without one the result says so as a
   * warning, and what a list says counts all the same. skip: lists are not looked at.
   */
  readonly mode: 'require' | 'if-present' | 'skip';
  /** Lowest CRL number that is accepted: the highest one this caller has seen for the root. */
  readonly minimumNumber: bigint | null;
}

export interface UsedList {
  readonly number: bigint | null;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
}

export interface RevocationOutcome {
  readonly findings: readonly Finding[];
  readonly list: UsedList | null;
}

const iso = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`;

/** Judges the lists for one path. */
export function* revocationFindings(
  cache: VerifyCache,
  path: Path,
  lists: readonly RevocationSource[],
  policy: RevocationPolicy,
  atMs: number,
): Judging<RevocationOutcome> {
  if (policy.mode === 'skip') {
    return { findings: [finding('CRL_NOT_CHECKED', { where: 'CRL' })], list: null };
  }
  const revoked: Finding[] = [];
  const defects: Finding[] = [];
  let used: UsedList | null = null;
  for (const { known: source, where } of lists) {
    if ('malformed' in source) {
      defects.push(finding('CRL_MALFORMED', { where, actual: source.malformed }));
      continue;
    }
    const issuer = issuerOf(source, path);
    if (issuer === null) {
      defects.push(
        finding('CRL_ISSUER_MISMATCH', {
          where,
          severity: 'info',
          expected: path.root?.certificate.subject.text ?? 'the root of the chain',
          actual: source.list.issuer.text,
        }),
      );
      continue;
    }
    if (!(cache.knownSignature(source, issuer) ?? (yield* cache.isSignedBy(source, issuer)))) {
      defects.push(
        finding('CRL_SIGNATURE_MISMATCH', {
          where,
          expected: `a signature of ${issuer.certificate.subject.commonName}`,
          ...(source.list.signatureAlgorithm.isAmdPss ? {} : { actual: source.list.signatureAlgorithm.text }),
        }),
      );
      continue;
    }
    // An authentic list never loses its word on what is revoked, however old it is.
    revoked.push(...revokedBy(source, issuer, path, where));
    if (issuer !== path.root) {
      defects.push(
        finding('CRL_ISSUER_MISMATCH', {
          where,
          message: 'The list is signed by an intermediate, which has no right to sign lists (no cRLSign).',
        }),
      );
      continue;
    }
    const unusable = freshnessFindings(source, policy, atMs, where);
    defects.push(...unusable);
    if (unusable.length === 0 && (used === null || (source.list.number ?? 0n) >= (used.number ?? 0n))) {
      const { number, thisUpdateMs, nextUpdateMs } = source.list;
      used = { number, thisUpdateMs, nextUpdateMs: nextUpdateMs! };
    }
  }
  return { findings: [...revoked, ...weighed(defects, used, policy, path)], list: used };
}

function issuerOf(source: KnownRevocationList, { intermediate, root }: Path): KnownCertificate | null {
  const named = [root, intermediate].find(
    (known) => known !== null && equalBytes(known.certificate.subject.der, source.list.issuer.der),
  );
  return named ?? null;
}

function revokedBy(
  source: KnownRevocationList,
  issuer: KnownCertificate,
  { leaf, intermediate, root }: Path,
  where: string,
): Finding[] {
  // A root lists what it issued itself: intermediates and, as a last word, itself.
  const issued = issuer === root ? [root, intermediate] : [leaf];
  return issued.flatMap((known) => {
    const entry = source.list.revoked.find(({ serial }) => serial === known?.certificate.serial);
    if (known === null || entry === undefined) {
      return [];
    }
    const label = known.role === null ? 'certificate' : certificateLabel(known.role);
    return [
      finding('CERT_REVOKED', {
        where: `${label}.serialNumber`,
        actual: serialText(known.certificate),
        message: `${label}, serial ${serialText(known.certificate)}, was revoked on ${iso(entry.dateMs)} (${where}).`,
      }),
    ];
  });
}

function freshnessFindings(
  { list }: KnownRevocationList,
  policy: RevocationPolicy,
  atMs: number,
  where: string,
): Finding[] {
  const at = Math.floor(atMs / 1000) * 1000;
  const found: Finding[] = [];
  if (at < list.thisUpdateMs) {
    found.push(
      finding('CRL_NOT_YET_VALID', { where, expected: `from ${iso(list.thisUpdateMs)}`, actual: iso(at) }),
    );
  }
  if (list.nextUpdateMs === null || at > list.nextUpdateMs) {
    found.push(
      finding('CRL_STALE', {
        where,
        expected: list.nextUpdateMs === null ? 'a nextUpdate' : `until ${iso(list.nextUpdateMs)}`,
        actual: iso(at),
      }),
    );
  }
  if (policy.minimumNumber !== null && (list.number === null || list.number < policy.minimumNumber)) {
    found.push(
      finding('CRL_ROLLBACK', {
        where,
        expected: `number ${policy.minimumNumber} or above`,
        actual: String(list.number ?? 'no number'),
      }),
    );
  }
  return found;
}

/** With a good list in hand, bad ones beside it are worth no more than a warning. */
function weighed(
  defects: readonly Finding[],
  used: UsedList | null,
  policy: RevocationPolicy,
  { intermediate, root }: Path,
): Finding[] {
  if (used !== null) {
    return defects.map((defect) => atMost(defect, 'warning'));
  }
  const unchecked = finding('CRL_NOT_CHECKED', { where: 'CRL' });
  if (policy.mode === 'if-present') {
    return [...defects.map((defect) => atMost(defect, 'warning')), unchecked];
  }
  if (defects.some(({ severity }) => severity === 'error')) {
    return [...defects];
  }
  const missing = finding('CRL_MISSING', {
    where: 'CRL',
    expected: `a list issued by ${root?.certificate.subject.commonName ?? 'the root'}${listPath(intermediate, root)}`,
  });
  return [...defects, missing];
}

/** Where the key service has the list of a root; nothing of a root that is none of AMD's lines. */
function listPath(intermediate: KnownCertificate | null, root: KnownCertificate | null): string {
  const product = root?.role?.product;
  const path = intermediate?.role?.kind === 'ASVK' ? 'vlek' : 'vcek';
  return product === undefined ? '' : `: /${path}/v1/${product}/crl of the key service`;
}

const atMost = (defect: Finding, severity: Severity): Finding =>
  defect.severity === 'error' ? { ...defect, severity } : defect;
