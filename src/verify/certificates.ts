// SPDX-License-Identifier: Apache-2.0
/** Chains without a report: is what lies in this folder or table fit to verify with? */
import { type KnownCertificate, type Path, VerifyCache } from './cache.ts';
import { judgeChain } from './chain.ts';
import { type AsyncVerifyCrypto, type Judging, runAsync, runSync, type VerifyCrypto } from './crypto.ts';
import { type Evidence, readEvidence, type SortedEvidence } from './evidence.ts';
import { type Finding, finding, isError } from './findings.ts';
import type { CertificateRole } from './roles.ts';
import { type ChainOptions, chainRules } from './trust.ts';

export interface ChainVerdict extends Path {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

export interface CertificatesResult {
  /** There is a chain, and every one is good. */
  readonly ok: boolean;
  /** One for each leaf; without leaves one for each intermediate. */
  readonly chains: readonly ChainVerdict[];
  /** Of the reading and of all chains. */
  readonly findings: readonly Finding[];
}

/** Verifies every chain there is in a set of certificates. */
export function verifyCertificates(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache; readonly crypto: VerifyCrypto },
): CertificatesResult {
  return runSync(options.crypto, judgeCertificates(certificates, options));
}

/** The same with WebCrypto. */
export function verifyCertificatesAsync(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache; readonly crypto: AsyncVerifyCrypto },
): Promise<CertificatesResult> {
  return runAsync(options.crypto, judgeCertificates(certificates, options));
}

function* judgeCertificates(
  certificates: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly cache?: VerifyCache },
): Judging<CertificatesResult> {
  const cache = options.cache ?? new VerifyCache();
  const { rules, roots } = yield* chainRules(cache, options);
  const given = yield* readEvidence(cache, certificates, options.maxCertificates);
  const pool = { ...given, roots: [...given.roots, ...roots] };
  const chains: ChainVerdict[] = [];
  for (const { leaf, role } of starts(given)) {
    const { intermediate, root, ...path } = yield* judgeChain(cache, leaf, role, pool, rules);
    const findings = [...path.chainFindings, ...path.revocationFindings];
    chains.push({ leaf, intermediate, root, ok: !findings.some(isError), findings });
  }
  const found = [...given.findings, ...chains.flatMap(({ findings }) => findings)];
  if (chains.length === 0) {
    found.push(finding('LEAF_MISSING', { where: 'certificates', actual: 'no certificate of AMD’s form' }));
  }
  return { ok: !found.some(isError), chains, findings: found };
}

interface Start {
  readonly leaf: KnownCertificate | null;
  readonly role: CertificateRole;
}

function starts({ leaves, intermediates, roots }: SortedEvidence): readonly Start[] {
  if (leaves.length > 0) {
    return leaves.map((leaf) => ({ leaf, role: leaf.role! }));
  }
  // The chain of the key service alone: what its intermediates would vouch for.
  const authorities = intermediates.length > 0 ? intermediates : roots;
  const found = new Map<string, Start>();
  for (const { role } of authorities) {
    const kind = role!.kind === 'ASVK' ? 'VLEK' : 'VCEK';
    found.set(`${kind} ${role!.product}`, { leaf: null, role: { kind, product: role!.product } });
  }
  return [...found.values()];
}
