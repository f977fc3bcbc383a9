// SPDX-License-Identifier: Apache-2.0
/**
 * The verifier: seven named checks over one report and the certificates that came with it. Each runs
 * whatever the others find, as far as it has what it needs; nothing found hides anything else.
 */
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { decodeTcb, encodeTcb, formatTcb, type TcbParts, tcbComponents } from '../abi/tcb-version.ts';
import type { CertificateEntry } from '../certs/table.ts';
import { copyOf, isZero, startsWith, toHex } from '../lib/bytes.ts';
import { type KnownCertificate, VerifyCache } from './cache.ts';
import { type JudgedPath, judgeChain, poolOf } from './chain.ts';
import {
  type AsyncVerifyCrypto,
  type Judging,
  runAsync,
  runSync,
  sha256Hex,
  type VerifyCrypto,
} from './crypto.ts';
import { type Evidence, readEvidence } from './evidence.ts';
import {
  FINDINGS,
  type Finding,
  type FindingKind,
  finding,
  isError,
  VERIFY_STEPS,
  type VerifyStep,
} from './findings.ts';
import {
  DEFAULT_POLICY,
  isParsedPolicy,
  type Policy,
  policyFindings,
  type ReportTcbs,
  tcbsOf,
} from './policy.ts';
import { decodeReport, productOfReport, type Report, signedBytesOf, wantedKind } from './report.ts';
import type { UsedList } from './revocation.ts';
import type { CertificateRole } from './roles.ts';
import { runtimeDataFindings } from './runtime-data.ts';
import { signatureFindings } from './signature.ts';
import {
  AMD_FINGERPRINTS,
  type ChainOptions,
  chainRules,
  checkCertificates,
  isBytes,
  mustBe,
} from './trust.ts';

export interface VerifyOptions extends ChainOptions {
  /** Left out: only that the guest must not be debugged. */
  readonly policy?: Policy;
  /** Product line, where the report does not tell: version 2, or a CPU without a known line. */
  readonly product?: ProductLine;
  /** Shared among verifications, spares decoding and checking the same certificates again. */
  readonly cache?: VerifyCache;
}

export interface StepResult {
  readonly name: VerifyStep;
  /** The check ran and found no error. */
  readonly ok: boolean;
  /** Why the check could not run, or null. */
  readonly notRun: string | null;
  readonly findings: readonly Finding[];
}

/** The path that was judged. */
export interface VerifiedChain {
  readonly leaf: KnownCertificate | null;
  readonly intermediate: KnownCertificate | null;
  readonly root: KnownCertificate | null;
  /** The root is one of AMD's; if not, the evidence proves nothing about hardware. */
  readonly isAmd: boolean;
  /** The revocation list that was relied on. */
  readonly crl: UsedList | null;
}

export interface VerifyResult {
  /** The one verdict: every check ran and none found an error. */
  readonly ok: boolean;
  readonly steps: readonly StepResult[];
  /** Findings of all steps in order. */
  readonly findings: readonly Finding[];
  /** Null when the bytes are no report of a known version. */
  readonly report: Report | null;
  readonly product: ProductLine | null;
  readonly chain: VerifiedChain;
  /**
   * SHA-256 of the signed bytes, hexadecimal: what names a report. Its signature bytes do not, because
   * (r, n - s) verifies as well as (r, s).
   */
  readonly identity: string | null;
  /**
   * Entries of the certificate table under other GUIDs than those of certificates and lists. The host wrote them and
   * no key vouches for them.
   */
  readonly otherEntries: readonly CertificateEntry[];
}

/**
 * Verifies a report with the certificates that came with it.
 *
 * Returns  a verdict for whatever bytes are given; evidence never makes it throw
 * Errors   CERTIFICATE_INVALID for a root in `trust` that is no certificate; OPTION_INVALID naming an option that does
 *          not exist or is none of its kind
 * Source   [SNP-ABI] ATTESTATION_REPORT; [KDS]; [VLEK]; RFC 5280
 */
export function verifyEvidence(
  evidence: Evidence,
  options: VerifyOptions & { readonly crypto: VerifyCrypto },
): VerifyResult {
  checkCall(evidence, options);
  const isShared = !(evidence.report.buffer instanceof ArrayBuffer);
  return runSync(options.crypto, judgeEvidence(isShared ? withOwnReport(evidence) : evidence, options));
}

/** The same with WebCrypto: the judging is shared, so are the verdicts. */
export async function verifyEvidenceAsync(
  evidence: Evidence,
  options: VerifyOptions & { readonly crypto: AsyncVerifyCrypto },
): Promise<VerifyResult> {
  checkCall(evidence, options);
  return runAsync(options.crypto, judgeEvidence(withOwnReport(evidence), options));
}

/**
 * What is decoded must be what is verified: shared memory changes at any time, and other memory while WebCrypto works.
 * An array over memory that can grow may have another length later; one of a wrong length keeps it.
 */
function withOwnReport(evidence: Evidence): Evidence {
  const { length, buffer, byteOffset } = evidence.report;
  const report =
    length === REPORT_SIZE
      ? copyOf(evidence.report, 0, REPORT_SIZE)
      : new Uint8Array(buffer, byteOffset, length);
  return { ...evidence, report };
}

const OPTION_NAMES: ReadonlySet<string> = new Set(
  Object.keys({
    atMs: true,
    trust: true,
    crl: true,
    crlMinimumNumber: true,
    maxCertificates: true,
    policy: true,
    product: true,
    cache: true,
    crypto: true,
  } satisfies Record<keyof VerifyOptions | 'crypto', true>),
);

/** Programs without types call this, too: an option that is misspelt must not be a demand forgotten. */
function checkCall(
  evidence: Evidence,
  options: VerifyOptions & { readonly crypto: VerifyCrypto | AsyncVerifyCrypto },
): void {
  for (const name in options) {
    mustBe(OPTION_NAMES.has(name), name, `one of ${[...OPTION_NAMES].join(', ')}`);
  }
  const { policy = DEFAULT_POLICY, product, cache } = options;
  mustBe(isParsedPolicy(policy), 'policy', 'what parsePolicy returns');
  mustBe(product === undefined || PRODUCT_LINES.includes(product), 'product', PRODUCT_LINES.join(', '));
  mustBe(cache === undefined || cache instanceof VerifyCache, 'cache', 'a VerifyCache');
  mustBe(isBytes(evidence.report), 'evidence.report', 'a Uint8Array');
  checkCertificates(evidence, options);
}

/** 0 accepted, 2 signature or chain, 3 certificates not had, 4 revoked or no list, 5 policy. */
export type VerdictExitCode = 0 | 2 | 3 | 4 | 5;

const EXIT_OF_KIND = { evidence: 2, missing: 3, revocation: 4, policy: 5 } as const satisfies Record<
  FindingKind,
  VerdictExitCode
>;

/** Exit code of a verdict: that of its gravest error, forged before missing before revoked before unwanted. */
export function exitCodeOf(result: {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}): VerdictExitCode {
  const codes = result.findings.filter(isError).map(({ code }) => EXIT_OF_KIND[FINDINGS[code].kind]);
  return result.ok ? 0 : (codes.sort((a, b) => a - b)[0] ?? 2);
}

interface LeafVerdict {
  readonly path: JudgedPath;
  readonly product: ProductLine | null;
  readonly tcbs: ReportTcbs | null;
  readonly findings: readonly Finding[];
}

function* judgeEvidence(evidence: Evidence, options: VerifyOptions): Judging<VerifyResult> {
  const cache = options.cache ?? new VerifyCache();
  const { rules, roots } = yield* chainRules(cache, options);
  const bytes = evidence.report;
  const { report, findings: reportFindings } = decodeReport(bytes);
  const given = yield* readEvidence(cache, evidence, options.maxCertificates);
  const pool = poolOf(given, roots, rules);

  let verdict: LeafVerdict | null = null;
  for (const leaf of orderedLeaves(given.leaves, report, options)) {
    const path = yield* judgeChain(cache, leaf, leaf?.role ?? expectedRole(report, options), pool, rules);
    const judged = yield* judgeLeaf(bytes, report, path, options);
    verdict ??= judged;
    if (!judged.findings.some(isError)) {
      verdict = judged;
      break;
    }
  }
  const { path, product, tcbs, findings: leafFindings } = verdict!;
  const { leaf, intermediate, root } = path;
  const found = [...reportFindings, ...given.findings, ...leafFindings];
  if (leaf === null) {
    found.push(leafMissing(report, given.strangers));
  }
  if (report !== null && evidence.runtimeData !== undefined) {
    found.push(...(yield* runtimeDataFindings(report, evidence.runtimeData)));
  }
  if (report !== null) {
    const fingerprints = [leaf, intermediate, root].flatMap((known) => known?.fingerprint ?? []);
    const subject = { report, product, tcbs, leaf, fingerprints };
    found.push(...policyFindings(subject, options.policy ?? DEFAULT_POLICY));
  }
  const steps = stepResults(found, report, product, path);
  return {
    ok: steps.every(({ ok }) => ok),
    steps,
    findings: steps.flatMap(({ findings }) => findings),
    report,
    product,
    chain: {
      leaf,
      intermediate,
      root,
      isAmd: root !== null && AMD_FINGERPRINTS.has(root.fingerprint),
      crl: path.list,
    },
    identity: report === null ? null : yield* sha256Hex(signedBytesOf(bytes)),
    otherEntries: given.otherEntries,
  };
}

function stepResults(
  found: readonly Finding[],
  report: Report | null,
  product: ProductLine | null,
  { leaf, root }: JudgedPath,
): StepResult[] {
  const noReport = report === null ? 'The report could not be decoded.' : null;
  const noLeaf = leaf === null ? 'There is no VCEK or VLEK certificate.' : null;
  const notRun: Readonly<Record<VerifyStep, string | null>> = {
    decode: null,
    product: noReport ?? (product === null ? noLeaf : null),
    chain: null,
    revocation: root === null ? 'There is no root certificate.' : null,
    'leaf-matches-report': noReport ?? noLeaf,
    signature: noReport ?? noLeaf,
    policy: noReport,
  };
  return VERIFY_STEPS.map((name) => {
    const findings = found.filter(({ step }) => step === name);
    return { name, ok: notRun[name] === null && !findings.some(isError), notRun: notRun[name], findings };
  });
}

function expectedRole(report: Report | null, options: VerifyOptions): CertificateRole | null {
  const kind = report === null ? null : wantedKind(report);
  const product = (report === null ? null : productOfReport(report)) ?? options.product ?? null;
  return kind === null || product === null ? null : { kind, product };
}

/**
 * The leaves worth trying; [null] when there are none. All that may have signed, of which there are several where the
 * report does not say which it was (a VLEK, a masked chip); or else the one that differs least, to tell in what.
 */
function orderedLeaves(
  leaves: readonly KnownCertificate[],
  report: Report | null,
  options: VerifyOptions,
): readonly (KnownCertificate | null)[] {
  if (leaves.length < 2) {
    return leaves.length === 0 ? [null] : leaves;
  }
  if (report === null) {
    return leaves.slice(0, 1);
  }
  const namesChip = wantedKind(report) === 'VCEK' && !isZero(report.chip_id);
  const likeness = ({ certificate, role, endorsement }: KnownCertificate) => {
    const { tcb, hwId } = endorsement!;
    const isKind = role!.kind === wantedKind(report);
    const isTcb = sameTcb(decodeTcb(report.reported_tcb, role!.product), tcb, role!.product);
    const isChip = hwId !== null && startsWith(report.chip_id, hwId);
    const isTime = options.atMs >= certificate.notBeforeMs && options.atMs <= certificate.notAfterMs;
    return {
      fits: isKind && isTcb && (isChip || !namesChip),
      rank: (isKind ? 8 : 0) + (isTcb ? 4 : 0) + (isChip ? 2 : 0) + (isTime ? 1 : 0),
    };
  };
  const ranked = leaves
    .map((leaf) => ({ leaf, ...likeness(leaf) }))
    .sort((a, b) => Number(b.fits) - Number(a.fits) || b.rank - a.rank);
  return ranked.filter(({ fits }, i) => i === 0 || fits).map(({ leaf }) => leaf);
}

function leafMissing(report: Report | null, strangers: readonly KnownCertificate[]): Finding {
  const kind = report === null ? null : wantedKind(report);
  return finding('LEAF_MISSING', {
    where: kind ?? 'VCEK',
    expected: kind === null ? 'CN=SEV-VCEK or CN=SEV-VLEK' : `CN=SEV-${kind}`,
    actual:
      strangers.length === 0
        ? 'none'
        : strangers.map(({ certificate }) => certificate.subject.text).join('; '),
  });
}

/** Bytes between the components of a TCB_VERSION. */
const TCB_RESERVED = Object.fromEntries(
  PRODUCT_LINES.map((product) => {
    const all = encodeTcb({ fmc: 255, boot_loader: 255, tee: 255, snp: 255, microcode: 255 }, product);
    return [product, BigInt.asUintN(64, ~all)];
  }),
) as Readonly<Record<ProductLine, bigint>>;

function* judgeLeaf(
  bytes: Uint8Array,
  report: Report | null,
  path: JudgedPath,
  options: VerifyOptions,
): Judging<LeafVerdict> {
  const { leaf } = path;
  const findings = [...path.chainFindings, ...path.revocationFindings];
  if (report === null) {
    return { path, product: leaf?.role?.product ?? null, tcbs: null, findings };
  }
  const { product, findings: productFindings } = judgeProduct(report, leaf, options);
  findings.push(...productFindings);
  const tcbs = product === null ? null : tcbsOf(report, product);
  if (leaf !== null) {
    const line = product ?? leaf.role!.product;
    findings.push(
      ...matchFindings(report, leaf, line, tcbs?.reported ?? decodeTcb(report.reported_tcb, line)),
    );
    findings.push(...(yield* signatureFindings(signedBytesOf(bytes), report, leaf.certificate.key)));
  }
  return { path, product, tcbs, findings };
}

function judgeProduct(
  report: Report,
  leaf: KnownCertificate | null,
  options: VerifyOptions,
): { product: ProductLine | null; findings: readonly Finding[] } {
  const found: Finding[] = [];
  const own = productOfReport(report);
  const given = options.product ?? null;
  const certified = leaf?.role?.product ?? null;
  if (own !== null && given !== null && own !== given) {
    found.push(
      finding('PRODUCT_MISMATCH', { where: 'report[0x188].cpuid_fam_id', expected: given, actual: own }),
    );
  }
  // A version 2 report names no product, so that its certificate must; a later one has to name its own.
  const product = own ?? given ?? (report.cpuid_fam_id === undefined ? certified : null);
  if (product === null) {
    if (report.cpuid_fam_id !== undefined) {
      found.push(
        finding('PRODUCT_UNKNOWN', {
          where: 'report[0x188].cpuid_fam_id',
          expected: 'family and model of a Milan, Genoa or Turin part',
          actual: `family 0x${report.cpuid_fam_id.toString(16)}, model 0x${report.cpuid_mod_id!.toString(16)}`,
        }),
      );
    }
    return { product: null, findings: found };
  }
  if (certified !== null && certified !== product) {
    found.push(
      finding('PRODUCT_MISMATCH', {
        where: `${leaf!.role!.kind}.issuer`,
        expected: product,
        actual: certified,
      }),
    );
  }
  for (const field of ['current_tcb', 'reported_tcb', 'committed_tcb', 'launch_tcb'] as const) {
    if ((report[field] & TCB_RESERVED[product]) !== 0n) {
      found.push(
        finding('TCB_RESERVED_NOT_ZERO', {
          where: `report.${field}`,
          expected: `the TCB layout of ${product}`,
          actual: `0x${report[field].toString(16).padStart(16, '0')}`,
        }),
      );
    }
  }
  return { product, findings: found };
}

function sameTcb(reported: TcbParts, certified: TcbParts | null, product: ProductLine): boolean {
  return (
    certified !== null &&
    tcbComponents(product).every((component) => certified[component] === reported[component])
  );
}

function matchFindings(
  report: Report,
  leaf: KnownCertificate,
  product: ProductLine,
  reported: TcbParts,
): Finding[] {
  const found: Finding[] = [];
  const role = leaf.role!;
  const endorsement = leaf.endorsement!;
  const wanted = wantedKind(report);
  const [own, foreign] =
    role.kind === 'VCEK' ? [endorsement.hwId, endorsement.cspId] : [endorsement.cspId, endorsement.hwId];
  if (role.kind !== wanted || own === null || foreign !== null) {
    found.push(
      finding('CERT_KIND_MISMATCH', {
        where: `${role.kind}.subject`,
        expected: wanted ?? 'no certificate: the report is not signed',
        actual: role.kind === wanted ? `${role.kind} by its name, not by its extensions` : role.kind,
      }),
    );
  }
  if (!sameTcb(reported, endorsement.tcb, product)) {
    const expected = formatTcb(reported, product);
    const actual =
      endorsement.tcb === null ? 'a TCB that cannot be read' : formatTcb(endorsement.tcb, product);
    found.push(
      finding('TCB_MISMATCH', {
        where: 'report[0x180].reported_tcb',
        expected,
        actual,
        message: `REPORTED_TCB is ${expected} (${tcbComponents(product).join(',')}), the certificate is for ${actual}.`,
      }),
    );
  }
  if (role.kind === 'VCEK' && endorsement.hwId !== null) {
    found.push(...chipFindings(report.chip_id, endorsement.hwId));
  }
  return found;
}

/** Only for VCEKs: a VLEK is shared by all chips of a cloud, and its reports may name none. */
function chipFindings(chipId: Uint8Array, hwId: Uint8Array): Finding[] {
  const where = 'report[0x1a0].chip_id';
  if (isZero(chipId)) {
    return [finding('CHIP_ID_MASKED', { where, actual: 'zero' })];
  }
  const matches = startsWith(chipId, hwId) && isZero(chipId, hwId.length);
  return matches
    ? []
    : [finding('CHIP_ID_MISMATCH', { where, expected: toHex(chipId), actual: toHex(hwId) })];
}
