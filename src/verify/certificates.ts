// SPDX-License-Identifier: Apache-2.0
/** Chains without a report: is what lies in this folder or table fit to verify with? */
import { type KnownCertificate, type Path, VerifyCache } from './cache.ts';
import { judgeChain, type Pool, poolOf } from './chain.ts';
import { type AsyncVerifyCrypto, type Judging, runAsync, runSync, type VerifyCrypto } from './crypto.ts';
import { type Evidence, readEvidence } from './evidence.ts';
import { type Finding, finding, isError } from './findings.ts';
import type { UsedList } from './revocation.ts';
import type { CertificateRole } from './roles.ts';
import { type ChainOptions, chainRules, checkCertificates } from './trust.ts';

export interface ChainVerdict extends Path {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
  /** The revocation list that was relied on. */
  readonly crl: UsedList | null;
}

export interface CertificatesResult {
  /** There is a chain, and every one is good. */
  readonly ok: boolean;
  /** One for each leaf, and one for each intermediate that is on no other. */
  readonly chains: readonly ChainVerdict[];
  /** Of the reading and of all chains. */
  readonly findings: readonly Finding[];
}

/** Verifies every chain there is in a set of certificates. */
export function verifyCertificates(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache; readonly crypto: VerifyCrypto },
): CertificatesResult {
  checkCertificates(certificates, options);
  return runSync(options.crypto, judgeCertificates(certificates, options));
}

/** The same with WebCrypto. */
export async function verifyCertificatesAsync(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache; readonly crypto: AsyncVerifyCrypto },
): Promise<CertificatesResult> {
  checkCertificates(certificates, options);
  return runAsync(options.crypto, judgeCertificates(certificates, options));
}

function* judgeCertificates(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache },
): Judging<CertificatesResult> {
  const cache = options.cache ?? new VerifyCache();
  const { rules, roots } = yield* chainRules(cache, options);
  const given = yield* readEvidence(cache, certificates, options.maxCertificates);
  const pool = poolOf(given, roots, rules);
  const chains: ChainVerdict[] = [];
  const isOn = ({ fingerprint }: KnownCertificate): boolean =>
    chains.some(({ leaf, intermediate, root }) =>
      [leaf, intermediate, root].some((known) => known?.fingerprint === fingerprint),
    );
  function* judge(leaf: KnownCertificate | null, role: CertificateRole, from: Pool): Judging<void> {
    const { intermediate, root, ...path } = yield* judgeChain(cache, leaf, role, from, rules);
    const findings = [...path.chainFindings, ...path.revocationFindings];
    chains.push({ leaf, intermediate, root, ok: !findings.some(isError), findings, crl: path.list });
  }
  for (const leaf of given.leaves) {
    yield* judge(leaf, leaf.role!, pool);
  }
  // What would be vouched for: the chain of the key service alone, or an intermediate that no leaf here wants.
  for (const intermediate of given.intermediates.filter((known) => !isOn(known))) {
    yield* judge(null, leafRole(intermediate.role!), { ...pool, intermediates: [intermediate] });
  }
  if (chains.length === 0) {
    for (const root of given.roots) {
      yield* judge(null, leafRole(root.role!), { ...pool, roots: [root] });
    }
  }
  const found = [...given.findings, ...chains.flatMap(({ findings }) => findings)];
  for (const known of [...given.roots, ...given.strangers].filter((one) => !isOn(one))) {
    const { subject } = known.certificate;
    found.push(finding('CERT_NOT_USED', { where: 'certificates', actual: subject.text }));
  }
  if (chains.length === 0) {
    found.push(finding('LEAF_MISSING', { where: 'certificates', actual: 'no certificate of AMD’s form' }));
  }
  return { ok: !found.some(isError), chains, findings: found };
}

/** Of the leaves that an authority is there for. */
const leafRole = ({ kind, product }: CertificateRole): CertificateRole => ({
  kind: kind === 'ASVK' ? 'VLEK' : 'VCEK',
  product,
});
