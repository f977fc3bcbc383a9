// SPDX-License-Identifier: Apache-2.0
/**
 * Whom the verifier believes. AMD's roots are known by the SHA-256 of their certificate; the
 * certificates themselves come with the evidence, from the key service or from a folder, and count only
 * if they match. A root that came with the evidence is never believed for its name.
 */
import type { ProductLine } from '../abi/product.ts';
import { InputError } from '../lib/errors.ts';
import type { KnownCertificate, VerifyCache } from './cache.ts';
import type { ChainRules } from './chain.ts';
import { type Judging, sha256HexOfEach } from './crypto.ts';
import type { RevocationPolicy } from './revocation.ts';

export interface RootPin {
  readonly product: ProductLine;
  /** SHA-256 of the DER certificate, lower-case hexadecimal. */
  readonly sha256: string;
}

/**
 * AMD's root keys.
 *
 * Source   computed from the certificates of https://kdsintf.amd.com/vcek/v1/{product}/cert_chain
 */
export const AMD_ROOTS: readonly RootPin[] = Object.freeze([
  { product: 'Milan', sha256: '69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd' },
  { product: 'Genoa', sha256: '4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1' },
  { product: 'Turin', sha256: '1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a' },
]);

export const AMD_FINGERPRINTS: ReadonlySet<string> = new Set(AMD_ROOTS.map(({ sha256 }) => sha256));

export interface ChainOptions {
  /** Time of verification in milliseconds since 1970. */
  readonly atMs: number;
  /** 'amd', the default: AMD's pinned roots. A list of DER certificates: these roots and no others. */
  readonly trust?: 'amd' | readonly Uint8Array[];
  /** Left out: 'require'. */
  readonly crl?: RevocationPolicy['mode'];
  /** Lowest CRL number to accept, so that an old list cannot hide a new revocation. */
  readonly crlMinimumNumber?: bigint;
  /**
   * Certificates that are looked at, copies counted once, and half as many lists; 16 if left out. More is an error
   * of its own, so that whoever sends evidence does not say how long it takes; raise it for folders of your own.
   */
  readonly maxCertificates?: number;
}

/**
 * The rules a caller's options make, and the roots handed in, which are candidates as well.
 *
 * Errors   CERTIFICATE_INVALID for a root that is no certificate; OPTION_INVALID for a time that is none
 */
export function* chainRules(
  cache: VerifyCache,
  options: ChainOptions,
): Judging<{ readonly rules: ChainRules; readonly roots: readonly KnownCertificate[] }> {
  const { trust = 'amd', atMs } = options;
  // Every comparison with NaN is false: such a time would lie within each validity.
  if (!Number.isFinite(atMs)) {
    throw new InputError('OPTION_INVALID', `${atMs} is no time`, { where: 'atMs' });
  }
  const roots: KnownCertificate[] = [];
  const ders = trust === 'amd' ? [] : trust;
  const fingerprints = ders.length === 0 ? [] : yield* sha256HexOfEach(ders);
  for (const [i, der] of ders.entries()) {
    const fingerprint = fingerprints[i]!;
    const known = cache.knownCertificate(fingerprint) ?? (yield* cache.certificate(der, fingerprint));
    if ('malformed' in known) {
      throw new InputError('CERTIFICATE_INVALID', known.malformed, { where: `trust[${i}]` });
    }
    roots.push(known);
  }
  const rules = {
    atMs,
    trusted: trust === 'amd' ? AMD_FINGERPRINTS : new Set(roots.map(({ fingerprint }) => fingerprint)),
    amd: AMD_FINGERPRINTS,
    revocation: { mode: options.crl ?? 'require', minimumNumber: options.crlMinimumNumber ?? null },
  };
  return { rules, roots };
}
