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
import { type AsyncVerifyCrypto, type Judging, sha256HexOfEach, type VerifyCrypto } from './crypto.ts';
import type { Evidence } from './evidence.ts';
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
 * Errors   CERTIFICATE_INVALID for a root that is no certificate
 */
export function* chainRules(
  cache: VerifyCache,
  options: ChainOptions,
): Judging<{ readonly rules: ChainRules; readonly roots: readonly KnownCertificate[] }> {
  const { trust = 'amd', atMs } = options;
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

/** The last millisecond a Date can hold. */
const MAX_TIME_MS = 8.64e15;
const CRL_MODES: readonly unknown[] = ['require', 'if-present', 'skip'] satisfies RevocationPolicy['mode'][];

/** Options come from programs without types, too, and one that is not understood must not be one that is not given. */
function checkChainOptions(options: ChainOptions): void {
  const { trust = 'amd', atMs, crl = 'require', crlMinimumNumber = 0n, maxCertificates = 1 } = options;
  // Every comparison with NaN is false: such a time would lie within each validity, such a number below each list's.
  mustBe(Number.isFinite(atMs) && Math.abs(atMs) <= MAX_TIME_MS, 'atMs', 'milliseconds since 1970');
  mustBe(CRL_MODES.includes(crl), 'crl', CRL_MODES.join(', '));
  mustBe(typeof crlMinimumNumber === 'bigint', 'crlMinimumNumber', 'a bigint');
  mustBe(
    Number.isInteger(maxCertificates) && maxCertificates > 0,
    'maxCertificates',
    'a positive whole number',
  );
  mustBe(trust === 'amd' || isListOfBytes(trust), 'trust', "'amd' or a list of Uint8Array");
}

/**
 * Sees to it that certificates and options are what their types say.
 *
 * Errors   OPTION_INVALID naming what is not
 */
export function checkCertificates(
  { table, certificates, crls }: Omit<Evidence, 'report'>,
  options: ChainOptions & { readonly crypto: VerifyCrypto | AsyncVerifyCrypto },
): void {
  checkChainOptions(options);
  for (const name of ['sha256Hex', 'verifyRsaPss', 'verifyEcdsaP384'] as const) {
    mustBe(typeof options.crypto?.[name] === 'function', `crypto.${name}`, 'a function');
  }
  mustBe(table === undefined || isBytes(table), 'evidence.table', 'a Uint8Array');
  mustBe(certificates === undefined || isListOfBytes(certificates), 'evidence.certificates', BYTES_LIST);
  mustBe(crls === undefined || isListOfBytes(crls), 'evidence.crls', BYTES_LIST);
}

const BYTES_LIST = 'a list of Uint8Array';

/** Of any realm, as a page and its frames have several. */
export const isBytes = (value: unknown): value is Uint8Array =>
  ArrayBuffer.isView(value) && Object.prototype.toString.call(value) === '[object Uint8Array]';

const isListOfBytes = (value: unknown): value is readonly Uint8Array[] =>
  Array.isArray(value) && value.every(isBytes);

/** Errors   OPTION_INVALID unless it holds */
export function mustBe(holds: boolean, where: string, what: string): void {
  if (!holds) {
    throw new InputError('OPTION_INVALID', `must be ${what}`, { where });
  }
}
