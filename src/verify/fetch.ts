// SPDX-License-Identifier: Apache-2.0
/** What evidence lacks and can be had from a key service: VCEK, chain and revocation list. */
import type { ProductLine } from '../abi/product.ts';
import { decodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { BugError, InputError } from '../lib/errors.ts';
import type { Evidence } from './evidence.ts';
import { type FindingCode, isError } from './findings.ts';
import { productOfReport, type Report, wantedKind } from './report.ts';
import type { RevocationPolicy } from './revocation.ts';
import type { VerifyResult } from './verify.ts';

/** Intermediate (ASK or ASVK) and root, DER. */
export interface ServedChain {
  readonly intermediate: Uint8Array;
  readonly ark: Uint8Array;
}

/**
 * Where certificates come from: KdsClient of softsnp/kds is one, a cache or a proxy of your own may be another.
 * What it does not have it throws as an Error. Nothing it gives is believed: the verifier judges it like the rest.
 */
export interface EvidenceSource {
  /** DER. `hwid` in hexadecimal: 128 digits, on Turin 16. */
  vcek(product: ProductLine, hwid: string, tcb: TcbParts): Promise<Uint8Array>;
  chain(path: 'vcek' | 'vlek', product: ProductLine): Promise<ServedChain>;
  /** The root's revocation list, DER. */
  crl(path: 'vcek' | 'vlek', product: ProductLine): Promise<Uint8Array>;
}

export interface FetchOptions {
  /** Product line, where the report does not tell. */
  readonly product?: ProductLine;
  /** As for verifyEvidence: a list is fetched only where it is required, the default. */
  readonly crl?: RevocationPolicy['mode'];
}

export interface FetchedEvidence {
  /** The evidence with what came. */
  readonly evidence: Evidence;
  /** What could not be had, and why. */
  readonly failures: readonly string[];
}

interface Needs {
  readonly leaf: boolean;
  readonly chain: boolean;
  readonly crl: boolean;
}

/**
 * Fetches what a first verdict found missing, and nothing else.
 *
 * Shape    `result` is what verifyEvidence said of `evidence`; verify again with what comes back, at a time read
 *          after the call: the key service issues certificates while one waits
 * Errors   OPTION_INVALID when the source cannot be asked at all
 */
export async function fetchEvidence(
  source: EvidenceSource,
  evidence: Evidence,
  result: VerifyResult,
  options: FetchOptions = {},
): Promise<FetchedEvidence> {
  const { report } = result;
  const needs = needsOf(result, options);
  if (report === null || !(needs.leaf || needs.chain || needs.crl)) {
    return { evidence, failures: [] };
  }
  const failures: string[] = [];
  for (const product of linesOf(report, result, needs, options)) {
    const fetched = await fetchLine(source, report, product, needs);
    if (fetched.certificates.length + fetched.crls.length > 0) {
      const certificates = [...(evidence.certificates ?? []), ...fetched.certificates];
      const crls = [...(evidence.crls ?? []), ...fetched.crls];
      return { evidence: { ...evidence, certificates, crls }, failures: fetched.failures };
    }
    failures.push(...fetched.failures);
    if (fetched.isUnavailable) {
      break;
    }
  }
  return { evidence, failures };
}

/** Errors that a certificate for this chip and REPORTED_TCB would not give. */
const OF_ANOTHER_LEAF: readonly FindingCode[] = [
  'TCB_MISMATCH',
  'CHIP_ID_MISMATCH',
  'CERT_KIND_MISMATCH',
  'PRODUCT_MISMATCH',
];

function needsOf({ chain, findings }: VerifyResult, { crl = 'require' }: FetchOptions): Needs {
  const errors = findings.filter(isError);
  const leaf =
    chain.leaf === null ||
    errors.some(
      ({ code, where }) =>
        OF_ANOTHER_LEAF.includes(code) || (code === 'CERT_EXPIRED' && where.startsWith('VCEK')),
    );
  return {
    leaf,
    // A new leaf may be of another issuer than the one at hand.
    chain:
      leaf ||
      chain.intermediate === null ||
      chain.root === null ||
      errors.some(({ code }) => code === 'CERT_SIGNATURE_MISMATCH'),
    crl: crl === 'require' && chain.crl === null,
  };
}

/** The product lines to ask for. */
function linesOf(
  report: Report,
  result: VerifyResult,
  needs: Needs,
  options: FetchOptions,
): readonly ProductLine[] {
  const own = productOfReport(report) ?? options.product ?? (needs.leaf ? null : result.product);
  // A version 2 report names no product line; a chip of the other line is not known there.
  return own === null ? ['Milan', 'Genoa'] : [own];
}

interface FetchedLine {
  readonly certificates: readonly Uint8Array[];
  readonly crls: readonly Uint8Array[];
  readonly failures: readonly string[];
  /** The service does not answer, so that there is no use in asking for more. */
  readonly isUnavailable: boolean;
}

async function fetchLine(
  source: EvidenceSource,
  report: Report,
  product: ProductLine,
  needs: Needs,
): Promise<FetchedLine> {
  const path = wantedKind(report) === 'VLEK' ? 'vlek' : 'vcek';
  const failures: string[] = [];
  let isUnavailable = false;
  const had = async <T>(wanted: () => Promise<T>): Promise<T | null> => {
    if (isUnavailable) {
      return null;
    }
    try {
      return await wanted();
    } catch (error) {
      if (!(error instanceof Error) || error instanceof BugError || isUsage(error)) {
        throw error;
      }
      isUnavailable = 'code' in error && error.code === 'KDS_UNAVAILABLE';
      failures.push(error.message);
      return null;
    }
  };
  const done = (certificates: readonly Uint8Array[], crls: readonly Uint8Array[]): FetchedLine => ({
    certificates,
    crls,
    failures,
    isUnavailable,
  });
  const certificates: Uint8Array[] = [];
  if (needs.leaf && path === 'vlek') {
    failures.push('No key service gives out VLEK certificates: ask the cloud, with an extended report');
  }
  if (needs.leaf && path === 'vcek') {
    const hwid = hwidOf(report, product);
    if (hwid === null) {
      failures.push(`CHIP_ID is masked, or not of a ${product} chip`);
      return done([], []);
    }
    const leaf = await had(() => source.vcek(product, hwid, decodeTcb(report.reported_tcb, product)));
    if (leaf === null) {
      return done([], []);
    }
    certificates.push(leaf);
  }
  const chain = needs.chain ? await had(() => source.chain(path, product)) : null;
  if (chain !== null) {
    certificates.push(chain.intermediate, chain.ark);
  }
  const crl = needs.crl ? await had(() => source.crl(path, product)) : null;
  return done(certificates, crl === null ? [] : [crl]);
}

const isUsage = (error: Error): boolean => error instanceof InputError && error.code === 'OPTION_INVALID';

/** Bytes of CHIP_ID that name a Turin chip; the rest is zero. */
const TURIN_HWID_SIZE = 8;

function hwidOf({ chip_id }: Report, product: ProductLine): string | null {
  if (product !== 'Turin') {
    return isZero(chip_id) ? null : toHex(chip_id);
  }
  const hwid = chip_id.subarray(0, TURIN_HWID_SIZE);
  return isZero(hwid) || !isZero(chip_id.subarray(TURIN_HWID_SIZE)) ? null : toHex(hwid);
}
