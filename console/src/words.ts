// SPDX-License-Identifier: Apache-2.0
/**
 * What the verifier advises, in the words of this page: it has fields where the command line has options, and it
 * shows no files of the repository.
 */
import {
  CAUSES,
  type CauseCode,
  type Explanation,
  type Finding,
  type FindingCode,
} from '../../src/verify/index.ts';

const AT_ITS_TIME = 'For old evidence set its time, under Verification.';
const CHECK_CLOCK = 'Check the clock of this machine, or the time under Verification.';

/** Findings whose action names something that is elsewhere on this page. */
const ACTIONS: Readonly<Partial<Record<FindingCode, string>>> = {
  REPORT_LENGTH_MISMATCH: 'Give the report alone and complete, in any of the forms named above.',
  PRODUCT_MISMATCH:
    'Set the product line under Verification to what the report says; fetch certificates for the line the report names.',
  PRODUCT_UNKNOWN: 'Choose the product line under Verification, if you know it from elsewhere.',
  ROOT_UNTRUSTED:
    'Compare its fingerprint with those that are trusted. The root of your own softsnp belongs under Another root, for tests.',
  CERT_EXPIRED: `Fetch a new one: VLEKs live one year, VCEKs seven. ${AT_ITS_TIME}`,
  CERT_NOT_YET_VALID: CHECK_CLOCK,
  CRL_MISSING:
    'Fetch it from the key service and drop it here, or accept the risk: Revocation list, if present, under Verification.',
  CRL_STALE: `Fetch the current revocation list. ${AT_ITS_TIME}`,
  CRL_NOT_YET_VALID: CHECK_CLOCK,
  SIGNATURE_MISMATCH: 'Look for a certificate of another TCB or chip, or for changed bytes.',
};

/** Causes whose cure does. */
const CURES: Readonly<Partial<Record<CauseCode, string>>> = {
  REPORT_IS_TEXT: 'Choose Report beside the file; this page decodes it.',
  REPORT_IS_WRAPPED: 'Take the 1184 bytes of the report out of it.',
  CERT_IS_PEM: 'Choose Certificate beside the file; this page decodes it.',
  CERT_IS_TEXT: 'Choose Certificate beside the file; this page decodes it.',
  PRODUCT_OPTION_WRONG: 'Set the product line under Verification to what the report says.',
  AMD_ROOT_NOT_NAMED: 'Take the other root away under Another root, for tests: AMD’s roots are pinned.',
  SOFTSNP_ROOT: 'For tests, bring its root under Another root, for tests. Never do so where it matters.',
  EXPIRED_VLEK:
    'Get the current one from the cloud; for an old report set the time it was made, under Verification.',
};

/** What to do about a finding. */
export const actionOf = ({ code, action }: Pick<Finding, 'code' | 'action'>): string =>
  ACTIONS[code] ?? action;

/** What to do about a cause; a cure that was made for the case stays as it is. */
export const cureOf = ({ code, cure }: Pick<Explanation, 'code' | 'cure'>): string =>
  cure === CAUSES[code].cure ? (CURES[code] ?? cure) : cure;

/** Where it is written; pages of softsnp by their name. */
export const sourceOf = ({ source }: Pick<Finding, 'source'>): string =>
  source
    .replaceAll('src/verify/trust.ts', 'the pins of softsnp')
    .replace(/docs\/reference\/([a-z-]+)\.md/g, 'softsnp reference, "$1"');
