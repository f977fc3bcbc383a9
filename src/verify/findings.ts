// SPDX-License-Identifier: Apache-2.0
/**
 * Everything the verifier can have to say, one row a code. Codes are stable: scripts match on them.
 * `docs/reference/findings.md` is made from this table.
 */

import { printable } from '../lib/text.ts';

/** The checks in the order they run and are reported. */
export const VERIFY_STEPS = [
  'decode',
  'product',
  'chain',
  'revocation',
  'leaf-matches-report',
  'signature',
  'policy',
] as const;

export type VerifyStep = (typeof VERIFY_STEPS)[number];

/** error: evidence refused. warning: accepted, but look at it. info: worth knowing. */
export type Severity = 'error' | 'warning' | 'info';

/**
 * What an error means for the caller, and the exit code of the command line:
 * evidence 2, missing 3, revocation 4, policy 5.
 */
export type FindingKind = 'evidence' | 'missing' | 'revocation' | 'policy';

export interface FindingRow {
  readonly step: VerifyStep;
  readonly severity: Severity;
  readonly kind: FindingKind;
  /** What is wrong, in general. */
  readonly meaning: string;
  /** What the person who sees it can do. */
  readonly action: string;
  /** Tag of abi/sources.ts, or a standard, and the place in it. */
  readonly source: string;
}

const REPORT_LAYOUT = '[SNP-ABI] ATTESTATION_REPORT';
const CERT_PROFILE = '[KDS] "VCEK Certificate Format"; [VLEK] "VLEK Certificate Format"';
const CA_PROFILE = '[KDS] "ARK and ASK Certificates"';

const GET_AGAIN = 'Fetch the certificate again from the key service; it was changed or damaged on its way.';
const REPORT_AGAIN = 'Ask the guest for the report again and carry it as the 1184 bytes the firmware made.';

export const FINDINGS = {
  REPORT_LENGTH_MISMATCH: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The report does not have 1184 bytes.',
    action: 'Give the report alone, complete and in binary; `softsnp show report` reads other forms.',
    source: REPORT_LAYOUT,
  },
  REPORT_VERSION_UNSUPPORTED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The report has a version this verifier does not know.',
    action: 'Only versions 2, 3, 4 and 5 have a known layout; look for a newer softsnp.',
    source: `${REPORT_LAYOUT}, VERSION`,
  },
  REPORT_SIGNATURE_ALGO_UNSUPPORTED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'SIGNATURE_ALGO is not 1, ECDSA P-384 with SHA-384.',
    action: REPORT_AGAIN,
    source: `${REPORT_LAYOUT}, SIGNATURE_ALGO`,
  },
  REPORT_RESERVED_NOT_ZERO: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'Bytes that are zero in this version of the report are not.',
    action: REPORT_AGAIN,
    source: REPORT_LAYOUT,
  },
  REPORT_GUEST_POLICY_RESERVED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The guest policy in the report has bit 17 clear or a bit above 25 set.',
    action: 'No firmware launches a guest with such a policy; the report is not what firmware made.',
    source: '[SNP-ABI] "Guest Policy"',
  },
  REPORT_PLATFORM_INFO_UNKNOWN: {
    step: 'decode',
    severity: 'warning',
    kind: 'evidence',
    meaning: 'PLATFORM_INFO has bits that no published version of the ABI names.',
    action: 'The firmware is newer than this verifier; look for a newer softsnp.',
    source: `${REPORT_LAYOUT}, PLATFORM_INFO`,
  },
  REPORT_SIGNING_KEY_UNSUPPORTED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'KEY_INFO names a signing key that does not exist.',
    action: REPORT_AGAIN,
    source: `${REPORT_LAYOUT}, SIGNING_KEY`,
  },
  REPORT_UNSIGNED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The firmware made this report without a signature (SIGNING_KEY 7).',
    action: 'The host masks the chip key: it must load a VLEK or clear MASK_CHIP_KEY in SNP_CONFIG.',
    source: `${REPORT_LAYOUT}, SIGNING_KEY`,
  },
  CERT_TABLE_INVALID: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate table cannot be read.',
    action: 'The host must write the table again (offsets, lengths, zero entry at the end).',
    source: '[GHCB] "SNP Extended Guest Request"',
  },
  CERT_SLOT_MISMATCH: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'A certificate stands in the table under the GUID of another kind.',
    action: 'The host must write the table again with each certificate under its own GUID.',
    source: '[GHCB] "SNP Extended Guest Request"',
  },
  CERT_MALFORMED: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'A certificate is not DER of an X.509 certificate.',
    action: GET_AGAIN,
    source: '[RFC5280] 4.1; [X.690] 10',
  },
  CERT_TOO_MANY: {
    step: 'decode',
    severity: 'error',
    kind: 'evidence',
    meaning: 'More certificates than any honest evidence carries.',
    action: 'Give the leaf, its intermediate and its root, without the rest of the collection.',
    source: 'softsnp limit',
  },
  CERT_NOT_USED: {
    step: 'chain',
    severity: 'info',
    kind: 'evidence',
    meaning: 'This certificate is part of no chain that was judged.',
    action: 'Take it away, or give what it belongs to.',
    source: 'softsnp/verify, verifyCertificates',
  },
  PRODUCT_UNKNOWN: {
    step: 'product',
    severity: 'error',
    kind: 'evidence',
    meaning: 'Which product line the report comes from cannot be told.',
    action: 'Say which it is (option product), if you know it from elsewhere.',
    source: '[KDS] "Product Names"',
  },
  PRODUCT_MISMATCH: {
    step: 'product',
    severity: 'error',
    kind: 'evidence',
    meaning: 'Report, certificate and root do not speak of one product line.',
    action:
      'Leave the option product out, if it was given; fetch certificates for the product line the report names.',
    source: '[KDS] "Product Names"',
  },
  TCB_RESERVED_NOT_ZERO: {
    step: 'product',
    severity: 'error',
    kind: 'evidence',
    meaning: 'A TCB in the report sets bytes that are reserved on this product line.',
    action: 'The TCB has the layout of another product line; the report is not what firmware made.',
    source: '[SNP-ABI] "TCB Version"',
  },
  LEAF_MISSING: {
    step: 'chain',
    severity: 'error',
    kind: 'missing',
    meaning: 'There is no VCEK or VLEK certificate.',
    action:
      'Fetch the VCEK for CHIP_ID and REPORTED_TCB from the key service, or ask the cloud for the VLEK.',
    source: '[KDS] "VCEK"',
  },
  INTERMEDIATE_MISSING: {
    step: 'chain',
    severity: 'error',
    kind: 'missing',
    meaning: 'There is no certificate of the issuer of the leaf.',
    action: 'Fetch cert_chain from the key service: ASK for a VCEK, ASVK for a VLEK.',
    source: '[KDS] "cert_chain"',
  },
  ROOT_MISSING: {
    step: 'chain',
    severity: 'error',
    kind: 'missing',
    meaning: 'There is no root certificate.',
    action: 'Fetch cert_chain from the key service; it counts only if it matches a pinned fingerprint.',
    source: '[KDS] "cert_chain"',
  },
  ROOT_UNTRUSTED: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The chain ends in a root that is not trusted, whatever its name says.',
    action:
      'Compare its fingerprint with those that are trusted; what another root vouches for proves nothing.',
    source: '[KDS] "cert_chain"; fingerprints in src/verify/trust.ts',
  },
  ROOT_IS_TEST: {
    step: 'chain',
    severity: 'info',
    kind: 'evidence',
    meaning: 'TEST ROOT, NOT AMD: the chain ends in a root that proves nothing about hardware.',
    action: 'Fine for tests. Evidence for production must end in a root of AMD.',
    source: 'src/verify/trust.ts',
  },
  CERT_SIGNATURE_MISMATCH: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The key of the issuer did not sign this certificate.',
    action: GET_AGAIN,
    source: '[RFC5280] 6.1.3',
  },
  CERT_SIGNATURE_PARAMS_UNSUPPORTED: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning:
      'The certificate is not signed with RSASSA-PSS, SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.',
    action: 'AMD signs in no other way; the certificate is not from AMD.',
    source: `${CA_PROFILE}; [RFC4055] 3.1`,
  },
  CERT_KEY_UNSUPPORTED: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate holds a key of the wrong type, size or encoding.',
    action: 'AMD issues RSA-4096 for ARK, ASK and ASVK and uncompressed P-384 for VCEK and VLEK.',
    source: CERT_PROFILE,
  },
  CERT_NAME_MISMATCH: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'Subject or issuer is not the name AMD gives a certificate of this kind.',
    action: 'The certificate is not from AMD, or of a kind that has no place in this chain.',
    source: CA_PROFILE,
  },
  CERT_VERSION_UNSUPPORTED: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate is not X.509 version 3.',
    action: GET_AGAIN,
    source: '[RFC5280] 4.1.2.1',
  },
  CERT_CONSTRAINTS_MISMATCH: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'Basic constraints or key usage do not allow the certificate its part in the chain.',
    action: 'The certificate is not from AMD.',
    source: `${CA_PROFILE}; [RFC5280] 4.2.1.3, 4.2.1.9`,
  },
  CERT_EXTENSION_MISSING: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'An extension that certificates of this kind carry is not there.',
    action: 'The certificate is not from AMD, or of another kind.',
    source: CERT_PROFILE,
  },
  CERT_EXTENSION_DUPLICATE: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'An extension stands in the certificate twice; readers differ in which one they believe.',
    action: 'The certificate is not from AMD.',
    source: '[RFC5280] 4.2',
  },
  CERT_EXTENSION_UNKNOWN: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate carries an extension that certificates of this kind do not have.',
    action: 'The certificate is not from AMD, or of a structure version newer than this verifier.',
    source: CERT_PROFILE,
  },
  CERT_EXTENSION_INVALID: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'An extension of the certificate has a value it cannot have.',
    action: 'The certificate is not from AMD.',
    source: CERT_PROFILE,
  },
  CERT_EXPIRED: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The time of verification is after the certificate ended.',
    action: 'Fetch a new one: VLEKs live one year, VCEKs seven. For old evidence give its time with --at.',
    source: '[RFC5280] 4.1.2.5',
  },
  CERT_NOT_YET_VALID: {
    step: 'chain',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The time of verification is before the certificate begins.',
    action: 'Check the clock of this machine, or the time given with --at.',
    source: '[RFC5280] 4.1.2.5',
  },
  CRL_MISSING: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'There is no revocation list of the root.',
    action: 'Fetch it from the key service, or accept the risk with --no-crl.',
    source: '[KDS] "crl"',
  },
  CRL_NOT_CHECKED: {
    step: 'revocation',
    severity: 'warning',
    kind: 'revocation',
    meaning: 'Revocation was not checked.',
    action: 'Give the revocation list of the root; a revoked intermediate is accepted without it.',
    source: '[KDS] "crl"',
  },
  CRL_MALFORMED: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'A revocation list cannot be read.',
    action: 'Fetch the revocation list again from the key service.',
    source: '[RFC5280] 5.1; [X.690] 10',
  },
  CRL_SIGNATURE_MISMATCH: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'The revocation list is not signed by the key of its issuer.',
    action: 'Fetch the revocation list again; this one was changed, or belongs to another root.',
    source: '[RFC5280] 6.3.3',
  },
  CRL_STALE: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'The revocation list should have been replaced by a newer one, or does not say when.',
    action: 'Fetch the current revocation list. For old evidence give its time with --at.',
    source: '[RFC5280] 5.1.2.5',
  },
  CRL_NOT_YET_VALID: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'The revocation list is from after the time of verification.',
    action: 'Check the clock of this machine, or the time given with --at.',
    source: '[RFC5280] 5.1.2.4',
  },
  CRL_ROLLBACK: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'A newer revocation list than this one has been seen before.',
    action: 'Fetch the current revocation list; someone may be hiding a revocation.',
    source: '[RFC5280] 5.2.3',
  },
  CRL_ISSUER_MISMATCH: {
    step: 'revocation',
    severity: 'warning',
    kind: 'revocation',
    meaning: 'A revocation list was issued by no root of this chain, and was left aside.',
    action: 'Give the revocation list of the root in which this chain ends.',
    source: '[KDS] "crl"',
  },
  CERT_REVOKED: {
    step: 'revocation',
    severity: 'error',
    kind: 'revocation',
    meaning: 'A certificate of the chain has been revoked.',
    action: 'Fetch cert_chain again: AMD has replaced the certificate.',
    source: '[RFC5280] 6.3.3',
  },
  CERT_KIND_MISMATCH: {
    step: 'leaf-matches-report',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The report was signed by one kind of key and the certificate is of the other.',
    action: 'Give the VCEK certificate for SIGNING_KEY 0, the VLEK certificate for SIGNING_KEY 1.',
    source: `${REPORT_LAYOUT}, SIGNING_KEY`,
  },
  TCB_MISMATCH: {
    step: 'leaf-matches-report',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate is for another TCB than the REPORTED_TCB of the report.',
    action: 'Fetch the certificate for REPORTED_TCB, not for the current, committed or launch TCB.',
    source: '[KDS] "VCEK Certificate Format", SPL extensions',
  },
  CHIP_ID_MISMATCH: {
    step: 'leaf-matches-report',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The certificate is for another chip than the CHIP_ID of the report.',
    action: 'Fetch the VCEK for the CHIP_ID of the report.',
    source: '[KDS] "VCEK Certificate Format", hwID',
  },
  CHIP_ID_MASKED: {
    step: 'leaf-matches-report',
    severity: 'warning',
    kind: 'evidence',
    meaning: 'The host masks CHIP_ID, so the chip is known from the certificate alone.',
    action: 'The signature still binds report and certificate. Policy can forbid it: masked_chip_id.',
    source: '[SNP-ABI] SNP_CONFIG, MASK_CHIP_ID',
  },
  SIGNATURE_PADDING_NOT_ZERO: {
    step: 'signature',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The bytes above the 48 of R or S are not zero.',
    action: 'These bytes are not signed: someone has changed them after the firmware made the report.',
    source: `${REPORT_LAYOUT}, SIGNATURE`,
  },
  SIGNATURE_OUT_OF_RANGE: {
    step: 'signature',
    severity: 'error',
    kind: 'evidence',
    meaning: 'R or S is zero or not below the order of P-384.',
    action: REPORT_AGAIN,
    source: '[FIPS 186-5] 6.4.2',
  },
  SIGNATURE_MISMATCH: {
    step: 'signature',
    severity: 'error',
    kind: 'evidence',
    meaning: 'The key in the certificate did not sign this report.',
    action: 'Look for a certificate of another TCB or chip, or changed bytes: docs/howto/did-not-verify.md.',
    source: `${REPORT_LAYOUT}, SIGNATURE`,
  },
  RUNTIME_DATA_MISMATCH: {
    step: 'signature',
    severity: 'error',
    kind: 'evidence',
    meaning: 'REPORT_DATA does not begin with the hash of what came beside the report.',
    action:
      'The runtime data of the HCL report is not what the report was made for: believe none of its keys.',
    source: 'HCL report, as az-cvm-vtpm of kinvolk/azure-cvm-tooling reads it',
  },
  RUNTIME_DATA_NOT_CHECKED: {
    step: 'signature',
    severity: 'error',
    kind: 'evidence',
    meaning:
      'What came beside the report says that it is hashed with something else than SHA-256, which cannot be checked.',
    action:
      'Do not use what the HCL report says beside the report, above all its keys: nothing vouches for it.',
    source: 'HCL report, as az-cvm-vtpm of kinvolk/azure-cvm-tooling reads it',
  },
  TCB_RELATION: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The TCBs of the report are not in the order firmware keeps them in.',
    action: 'REPORTED is at most COMMITTED, COMMITTED and LAUNCH at most CURRENT; ask for a new report.',
    source: '[SNP-ABI] "TCB Version"',
  },
  FIRMWARE_RELATION: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The committed firmware is newer than the current one.',
    action: 'Firmware below the committed one is never loaded: the report is not what firmware made.',
    source: '[SNP-ABI] "SNP_COMMIT"',
  },
  POLICY_MISMATCH: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'A field of the report does not have a value the policy allows.',
    action: 'Find out which of the two is as intended: the guest that ran, or the policy.',
    source: 'docs/reference/policy.md',
  },
  POLICY_TCB_BELOW_MINIMUM: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'A component of a TCB is below the minimum of the policy.',
    action: 'The host must update its firmware and commit it.',
    source: 'docs/reference/policy.md',
  },
  POLICY_FIRMWARE_BELOW_MINIMUM: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The firmware version or build is below the minimum of the policy.',
    action: 'The host must update its firmware and commit it.',
    source: 'docs/reference/policy.md',
  },
  POLICY_BIT_FORBIDDEN: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'Something is on that the policy forbids.',
    action: 'Launch the guest without it, or write "any" for it in the policy.',
    source: 'docs/reference/policy.md',
  },
  POLICY_BIT_REQUIRED: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'Something is off that the policy requires.',
    action: 'Launch the guest with it on a host that has it, or write "any" for it in the policy.',
    source: 'docs/reference/policy.md',
  },
  POLICY_PROVISIONAL_FIRMWARE: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The current firmware is not committed, so the host can still go back to an older one.',
    action: 'The host must run SNP_COMMIT, or the policy must allow provisional firmware.',
    source: 'docs/reference/policy.md',
  },
  POLICY_CHIP_NOT_ALLOWED: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The chip is not on the list of allowed chips.',
    action: 'Add the chip to allowed_chips, or move the guest.',
    source: 'docs/reference/policy.md',
  },
  POLICY_DISTRUSTED: {
    step: 'policy',
    severity: 'error',
    kind: 'policy',
    meaning: 'The policy distrusts this chip, product line or certificate.',
    action: 'Move the guest to another host.',
    source: 'docs/reference/policy.md',
  },
} as const satisfies Record<string, FindingRow>;

export type FindingCode = keyof typeof FINDINGS;

/** One thing the verifier has to say about the evidence. */
export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly step: VerifyStep;
  /** Structure and offset, certificate and field, or JSON path. */
  readonly where: string;
  /** Texts for people; null where the message says all. */
  readonly expected: string | null;
  readonly actual: string | null;
  readonly source: string;
  readonly action: string;
  /** One sentence about this very case. */
  readonly message: string;
}

export interface FindingDetail {
  readonly where: string;
  readonly expected?: string;
  readonly actual?: string;
  /** Left out: the meaning of the code. */
  readonly message?: string;
  /** Left out: the one of the table. */
  readonly severity?: Severity;
}

/** Makes a finding from the row of its code; what the evidence has put into the texts can be shown. */
export function finding(
  code: FindingCode,
  { where, expected, actual, message, severity }: FindingDetail,
): Finding {
  const row = FINDINGS[code];
  return {
    code,
    severity: severity ?? row.severity,
    step: row.step,
    where: printable(where),
    expected: expected === undefined ? null : printable(expected),
    actual: actual === undefined ? null : printable(actual),
    source: row.source,
    action: row.action,
    message: message === undefined ? row.meaning : printable(message),
  };
}

export const isError = (f: Finding): boolean => f.severity === 'error';
