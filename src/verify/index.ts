// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp/verify: is this report genuine, and is it what I wanted? For Node, browsers and workers; the
 * caller hands in the cryptography: node:crypto through softsnp/verify/node, webVerifyCrypto here, or JavaScript alone
 * through softsnp/verify/js.
 */
export { type KnownCertificate, VerifyCache } from './cache.ts';
export { CAUSES, type CauseCode } from './causes.ts';
export {
  type CertificatesResult,
  type ChainVerdict,
  verifyCertificates,
  verifyCertificatesAsync,
} from './certificates.ts';
export type { AsyncVerifyCrypto, VerifyCrypto } from './crypto.ts';
export type { Evidence, EvidenceLabels } from './evidence.ts';
export {
  type EvidenceSource,
  type FetchedEvidence,
  type FetchOptions,
  fetchEvidence,
  type ServedChain,
} from './fetch.ts';
export {
  FINDINGS,
  type Finding,
  type FindingCode,
  type FindingKind,
  type Severity,
  VERIFY_STEPS,
  type VerifyStep,
} from './findings.ts';
export {
  type CertificateInput,
  type ReportInput,
  readCertificateInput,
  readReportInput,
  readTableInput,
} from './inputs.ts';
export { type AnswerJudge, type KdsJudgeOptions, kdsJudge } from './kds-judge.ts';
export {
  DEFAULT_POLICY,
  type Policy,
  type PolicyDocument,
  PolicySchema,
  parsePolicy,
  parsePolicyText,
} from './policy.ts';
export type { Report } from './report.ts';
export type { RuntimeData } from './runtime-data.ts';
export { AMD_ROOTS, type ChainOptions, type RootPin } from './trust.ts';
export {
  exitCodeOf,
  type StepResult,
  type VerdictExitCode,
  type VerifiedChain,
  type VerifyOptions,
  type VerifyResult,
  verifyEvidence,
  verifyEvidenceAsync,
} from './verify.ts';
export { type SubtleVerify, webVerifyCrypto } from './webcrypto.ts';
export { type Explanation, explain, explainAsync, explainCertificates, vcekUrl } from './why.ts';
