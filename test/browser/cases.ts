// SPDX-License-Identifier: Apache-2.0
/**
 * Evidence in a form that can be handed to a page, and what is compared of a verdict. Runs on both sides:
 * in Node under node:crypto, in the page under WebCrypto.
 */
import {
  type Evidence,
  type Explanation,
  exitCodeOf,
  parsePolicy,
  type VerifyOptions,
  type VerifyResult,
} from '../../src/verify/index.ts';

/** One piece of evidence; files by their names in a Pool. */
export interface Case {
  readonly name: string;
  readonly report: string;
  readonly table?: string;
  readonly certificates?: readonly string[];
  readonly crls?: readonly string[];
  readonly trust?: readonly string[];
  readonly atMs: number;
  readonly crl: 'require' | 'if-present' | 'skip';
  readonly crlMinimumNumber?: string;
  readonly product?: NonNullable<VerifyOptions['product']>;
  /** Four genuine reports are of debug guests. */
  readonly allowsDebug?: boolean;
}

/** Bytes by name, in base64: what goes into a page goes as text. */
export type Pool = Readonly<Record<string, string>>;

export interface Verdict {
  readonly ok: boolean;
  readonly exitCode: number;
  readonly identity: string | null;
  readonly product: string | null;
  readonly isAmd: boolean;
  readonly steps: VerifyResult['steps'];
  readonly why: readonly Explanation[];
}

const POLICIES = [parsePolicy({}), parsePolicy({ guest_policy: { debug: 'any' } })] as const;

const decoded = new Map<string, Uint8Array>();

function bytesOf(pool: Pool, name: string): Uint8Array {
  let bytes = decoded.get(name);
  if (bytes === undefined) {
    bytes = Uint8Array.from(atob(pool[name]!), (char) => char.charCodeAt(0));
    decoded.set(name, bytes);
  }
  return bytes;
}

export function evidenceOf(pool: Pool, { report, table, certificates, crls }: Case): Evidence {
  const all = (names: readonly string[]): Uint8Array[] => names.map((name) => bytesOf(pool, name));
  return {
    report: bytesOf(pool, report),
    ...(table === undefined ? {} : { table: bytesOf(pool, table) }),
    ...(certificates === undefined ? {} : { certificates: all(certificates) }),
    ...(crls === undefined ? {} : { crls: all(crls) }),
  };
}

export function optionsOf(pool: Pool, given: Case): VerifyOptions {
  const { trust, crlMinimumNumber, product, atMs, crl, allowsDebug } = given;
  return {
    atMs,
    crl,
    policy: POLICIES[allowsDebug === true ? 1 : 0],
    ...(trust === undefined ? {} : { trust: trust.map((name) => bytesOf(pool, name)) }),
    ...(crlMinimumNumber === undefined ? {} : { crlMinimumNumber: BigInt(crlMinimumNumber) }),
    ...(product === undefined ? {} : { product }),
  };
}

export const verdictOf = (result: VerifyResult, why: readonly Explanation[]): Verdict => ({
  ok: result.ok,
  exitCode: exitCodeOf(result),
  identity: result.identity,
  product: result.product,
  isAmd: result.chain.isAmd,
  steps: result.steps,
  why,
});
