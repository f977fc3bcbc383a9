import type { ProductLine } from '../../src/abi/product.ts';
import { InputError } from '../../src/lib/errors.ts';
import {
  type AsyncVerifyCrypto,
  type CertificatesResult,
  type ChainOptions,
  DEFAULT_POLICY,
  type Evidence,
  type Explanation,
  explainAsync,
  explainCertificates,
  type Policy,
  type PolicyDocument,
  parsePolicyText,
  type VerifyCache,
  type VerifyResult,
  verifyCertificatesAsync,
  verifyEvidenceAsync,
} from '../../src/verify/index.ts';
import { MAX_CERTIFICATES } from './evidence.ts';

export interface Settings {
  readonly atMs: number;
  readonly crl: NonNullable<ChainOptions['crl']>;
  readonly product: ProductLine | null;
  /** Roots instead of AMD's; null: AMD's. */
  readonly trust: readonly Uint8Array[] | null;
}

export type PolicyReading = { readonly policy: Policy } | { readonly wrong: string };

/** Reads the policy as it stands in the editor; an empty one demands what the default does. */
export function readPolicy(text: string): PolicyReading {
  if (text.trim() === '') {
    return { policy: DEFAULT_POLICY };
  }
  try {
    return { policy: parsePolicyText(text) };
  } catch (error) {
    if (error instanceof InputError) {
      return { wrong: error.message };
    }
    throw error;
  }
}

/** Adds a demand to a policy: inside objects field by field, so that it takes the place of no other demand. */
export function withDemand(document: PolicyDocument, demand: PolicyDocument): PolicyDocument {
  return merged(document, demand) as PolicyDocument;
}

function merged(old: unknown, added: unknown): unknown {
  return isObject(old) && isObject(added)
    ? Object.fromEntries(
        [...new Set([...Object.keys(old), ...Object.keys(added)])].map((key) => [
          key,
          key in added ? merged(old[key], added[key]) : old[key],
        ]),
      )
    : added;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What came of judging. */
export type Judgement =
  | { readonly of: 'nothing' }
  | {
      readonly of: 'certificates';
      readonly result: CertificatesResult;
      readonly why: readonly Explanation[];
    }
  | {
      readonly of: 'report';
      readonly bytes: Uint8Array;
      readonly result: VerifyResult;
      readonly why: readonly Explanation[];
    };

/** Judges a report with its certificates or, without a report, the certificates alone. */
export async function judge(
  evidence: Partial<Evidence>,
  settings: Settings,
  policy: Policy,
  crypto: AsyncVerifyCrypto,
  cache: VerifyCache,
): Promise<Judgement> {
  const { atMs, crl, product, trust } = settings;
  const common = {
    atMs,
    crl,
    crypto,
    cache,
    maxCertificates: MAX_CERTIFICATES,
    ...(trust === null ? {} : { trust }),
  };
  const { report, ...certificates } = evidence;
  if (report !== undefined) {
    const whole = { ...certificates, report };
    const result = await verifyEvidenceAsync(whole, {
      ...common,
      policy,
      ...(product === null ? {} : { product }),
    });
    const why = result.ok ? [] : await explainAsync(whole, result, crypto);
    return { of: 'report', bytes: report, result, why };
  }
  const { certificates: single = [], crls = [], table } = certificates;
  if (single.length + crls.length === 0 && table === undefined) {
    return { of: 'nothing' };
  }
  const result = await verifyCertificatesAsync(certificates, common);
  const why = result.ok ? [] : explainCertificates(certificates, result);
  return { of: 'certificates', result, why };
}
