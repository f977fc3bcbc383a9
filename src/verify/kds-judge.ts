// SPDX-License-Identifier: Apache-2.0
/** Judges what a key service answers, with the verifier's own rules for certificates and lists. */
import type { ProductLine } from '../abi/product.ts';
import { type TcbParts, tcbComponents } from '../abi/tcb-version.ts';
import { equalBytes, toHex } from '../lib/bytes.ts';
import type { Clock } from '../lib/clock.ts';
import { type KnownCertificate, type KnownRevocationList, VerifyCache } from './cache.ts';
import { judgeChain } from './chain.ts';
import { type Judging, runSync, type VerifyCrypto } from './crypto.ts';
import type { ServedChain } from './fetch.ts';
import { isError } from './findings.ts';
import type { CertificateRole } from './roles.ts';
import { chainRules } from './trust.ts';

interface AuthorityName {
  readonly path: 'vcek' | 'vlek';
  readonly product: ProductLine;
}

interface VcekName {
  readonly product: ProductLine;
  readonly hwid: string;
  readonly tcb: TcbParts;
}

/** The `judge` of a KdsClient of softsnp/kds: each gives null for an answer to believe, or else the reason. */
export interface AnswerJudge {
  chain(chain: ServedChain, name: AuthorityName): string | null;
  vcek(der: Uint8Array, name: VcekName, chain: ServedChain): string | null;
  crl(der: Uint8Array, name: AuthorityName, chain: ServedChain, seen: Uint8Array | null): string | null;
}

export interface KdsJudgeOptions {
  readonly crypto: VerifyCrypto;
  readonly clock: Clock;
  /** 'amd': AMD's pinned roots. A list of DER certificates: these roots and no others. */
  readonly trust: 'amd' | readonly Uint8Array[];
}

/**
 * A judge that believes these roots.
 *
 * Errors   CERTIFICATE_INVALID for a root in `trust` that is no certificate
 */
export function kdsJudge({ crypto, clock, trust }: KdsJudgeOptions): AnswerJudge {
  const cache = new VerifyCache();
  const run = <T>(judging: Judging<T>): T => runSync(crypto, judging);
  const { rules } = run(chainRules(cache, { atMs: 0, trust, crl: 'skip' }));

  /** What is wrong with the path from a leaf, or from an intermediate, to a trusted root. */
  const pathProblem = (
    leaf: KnownCertificate | null,
    role: CertificateRole,
    chain: ServedChain,
  ): string | null => {
    const intermediate = run(cache.certificate(chain.intermediate));
    const root = run(cache.certificate(chain.ark));
    if ('malformed' in intermediate || 'malformed' in root) {
      return 'a certificate of the chain cannot be read';
    }
    const pool = { intermediates: [intermediate], roots: [root], lists: [] };
    const path = run(judgeChain(cache, leaf, role, pool, { ...rules, atMs: clock.nowMs() }));
    const problem = path.chainFindings.find(isError);
    return problem === undefined ? null : `${problem.code}: ${problem.message}`;
  };

  const signedList = (der: Uint8Array, chain: ServedChain): KnownRevocationList | string => {
    const list = run(cache.revocationList(der));
    const root = run(cache.certificate(chain.ark));
    if ('malformed' in list || 'malformed' in root) {
      return 'malformed' in list ? list.malformed : 'the root cannot be read';
    }
    const isRoots =
      equalBytes(list.list.issuer.der, root.certificate.subject.der) && run(cache.isSignedBy(list, root));
    return isRoots ? list : 'the list is not signed by the root';
  };

  return {
    chain: (chain, { path, product }) =>
      pathProblem(null, { kind: path === 'vcek' ? 'VCEK' : 'VLEK', product }, chain),

    vcek(der, name, chain) {
      const leaf = run(cache.certificate(der));
      return 'malformed' in leaf
        ? leaf.malformed
        : (identityProblem(leaf, name) ?? pathProblem(leaf, { kind: 'VCEK', product: name.product }, chain));
    },

    crl(der, _name, chain, seen) {
      const known = signedList(der, chain);
      if (typeof known === 'string') {
        return known;
      }
      const { thisUpdateMs, nextUpdateMs, number } = known.list;
      const nowMs = clock.nowMs();
      if (nowMs < thisUpdateMs || nextUpdateMs === null || nowMs > nextUpdateMs) {
        return 'the list is not, or no longer, in force';
      }
      const last = seen === null ? null : signedList(seen, chain);
      return last !== null && typeof last !== 'string' && (number ?? -1n) < (last.list.number ?? -1n)
        ? 'the list is older than one seen before'
        : null;
    },
  };
}

function identityProblem({ role, endorsement }: KnownCertificate, name: VcekName): string | null {
  if (role?.kind !== 'VCEK' || role.product !== name.product) {
    return `not a VCEK certificate of ${name.product}`;
  }
  if (endorsement?.hwId == null || toHex(endorsement.hwId) !== name.hwid) {
    return 'the certificate is of another chip';
  }
  const { tcb } = endorsement;
  return tcb !== null &&
    tcbComponents(name.product).every((component) => tcb[component] === name.tcb[component])
    ? null
    : 'the certificate is for another TCB';
}
