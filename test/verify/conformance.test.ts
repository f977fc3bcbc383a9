// SPDX-License-Identifier: Apache-2.0
/**
 * The SEV cases of Tinfoil's conformance suite for verifiers. They carry no licence and are in no package registry, so
 * they are neither here nor installed by .ci/run: SOFTSNP_TINFOIL_CONFORMANCE names the folder `vectors` of a clone.
 * What they show and where softsnp differs: docs/interop-verifiers.md.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { fromPem } from '../../src/certs/pem.ts';
import { type FindingCode, type PolicyDocument, parsePolicy } from '../../src/verify/index.ts';
import { errorsOf, judge } from './soft.ts';
import { HAVE_VECTORS, vector } from './vectors.ts';

const folder = join(process.env['SOFTSNP_TINFOIL_CONFORMANCE'] ?? '', 'attestation-sev');
const HAVE = HAVE_VECTORS && process.env['SOFTSNP_TINFOIL_CONFORMANCE'] !== undefined && existsSync(folder);
if (!HAVE) {
  console.warn('SKIPPED: tinfoil-conformance; SOFTSNP_TINFOIL_CONFORMANCE names no folder with its vectors');
}

/** What softsnp finds in each case; the made-up chain of the cases from 600 on has faults of its own besides. */
const FINDINGS_OF: Readonly<Record<string, readonly FindingCode[]>> = {
  '200-real-sev-snp-happy': [],
  // Changed after it was signed: a version 2 report has no CPUID bytes.
  '210-wrong-report-version': ['REPORT_RESERVED_NOT_ZERO', 'SIGNATURE_MISMATCH'],
  '211-truncated-report': ['REPORT_LENGTH_MISMATCH'],
  '220-signature-byte-flipped': ['SIGNATURE_MISMATCH'],
  '221-signed-region-measurement-tampered': ['SIGNATURE_MISMATCH'],
  '230-vcek-first-byte-flipped': ['CERT_MALFORMED', 'LEAF_MISSING'],
  '231-vcek-signature-tampered': ['CERT_SIGNATURE_MISMATCH'],
  '240-vcek-expired': ['CERT_EXPIRED'],
  '400-measurement-pin-mismatch': ['POLICY_MISMATCH'],
  '410-host-data-pin-mismatch': ['POLICY_MISMATCH'],
  '420-report-data-pin-mismatch': ['POLICY_MISMATCH'],
  '430-id-key-digest-pin-mismatch': ['POLICY_MISMATCH'],
  '440-author-key-digest-pin-mismatch': ['POLICY_MISMATCH'],
  '450-tcb-bl-spl-below-min': ['POLICY_TCB_BELOW_MINIMUM'],
  '451-tcb-ucode-spl-below-min': ['POLICY_TCB_BELOW_MINIMUM'],
  '460-measurement-pin-match': [],
  '461-all-pins-match': [],
  '600-synth-debug-bit-set': ['POLICY_BIT_FORBIDDEN'],
  '601-synth-reserved-mbo-cleared': ['REPORT_GUEST_POLICY_RESERVED'],
  '602-synth-reserved-mbz-set': ['REPORT_GUEST_POLICY_RESERVED'],
  '603-synth-migrate-ma-set': ['POLICY_BIT_FORBIDDEN'],
  '604-synth-baseline-accept': [],
  '700-vcek-hwid-mismatch': ['CHIP_ID_MISMATCH'],
  '701-vcek-bl-spl-mismatch': ['TCB_MISMATCH'],
  '702-vcek-ucode-spl-mismatch': ['TCB_MISMATCH'],
  '703-vcek-missing-hwid-extension': ['CERT_KIND_MISMATCH'],
};

/** ASK and ARK of the made-up chain have no key usage and no key identifiers, and the ASK no path length. */
const FAULTS_OF_THE_CHAIN: readonly FindingCode[] = ['CERT_EXTENSION_MISSING', 'CERT_CONSTRAINTS_MISMATCH'];

interface Input {
  readonly attestation_doc_b64: string;
  readonly vcek_der_b64: string;
  readonly amd_root_ca_pem?: string;
  readonly ask_pem?: string;
  readonly expiration_check_date_unix: number;
  readonly policy?: Readonly<Record<string, string | number | boolean>>;
}

const PINS = ['measurement', 'host_data', 'report_data', 'id_key_digest', 'author_key_digest'] as const;
const MINIMUMS = { bl: 'boot_loader', tee: 'tee', snp: 'snp', ucode: 'microcode' } as const;

/** Their policy in ours; that a guest may not be migrated is one of their defaults. */
function policyOf(policy: NonNullable<Input['policy']>): PolicyDocument {
  const pins = PINS.flatMap((pin) => {
    const value = policy[`expected_${pin}_hex`];
    return typeof value === 'string' ? [[pin, value] as const] : [];
  });
  const reported = Object.entries(MINIMUMS).flatMap(([theirs, ours]) => {
    const value = policy[`min_tcb_${theirs}_spl`];
    return typeof value === 'number' ? [[ours, value] as const] : [];
  });
  return {
    ...Object.fromEntries(pins),
    ...(reported.length === 0 ? {} : { minimum_tcb: { Genoa: { reported: Object.fromEntries(reported) } } }),
    guest_policy: { migrate_ma: 'forbidden' },
  };
}

describe.skipIf(!HAVE)('tinfoil-conformance', () => {
  const names = HAVE ? readdirSync(folder).filter((name) => /^\d/.test(name)) : [];

  it('has the cases that are known here', () => {
    expect(names).toEqual(Object.keys(FINDINGS_OF));
  });

  it.each(names)('%s', (name) => {
    const input = JSON.parse(readFileSync(join(folder, name, 'input.json'), 'utf8')) as Input;
    const manifest = readFileSync(join(folder, name, 'manifest.yaml'), 'utf8');
    const isAcceptedThere = /exit_code: 0\b/.test(manifest);
    const isMadeUp = input.amd_root_ca_pem !== undefined;
    const ask = isMadeUp ? fromPem(input.ask_pem!)[0]! : vector('virtee-sev/ask-genoa-5464738c1546.der');
    const ark = isMadeUp
      ? fromPem(input.amd_root_ca_pem)[0]!
      : vector('virtee-sev/ark-genoa-4c6598d19c18.der');
    const result = judge(
      {
        report: Uint8Array.from(gunzipSync(Buffer.from(input.attestation_doc_b64, 'base64'))),
        certificates: [Uint8Array.from(Buffer.from(input.vcek_der_b64, 'base64')), ask, ark],
      },
      {
        atMs: input.expiration_check_date_unix * 1000,
        policy: parsePolicy(policyOf(input.policy ?? {})),
        ...(isMadeUp ? { trust: [ark] } : {}),
      },
    );
    expect(new Set(errorsOf(result))).toEqual(
      new Set([...FINDINGS_OF[name]!, ...(isMadeUp ? FAULTS_OF_THE_CHAIN : [])]),
    );
    // The one difference: softsnp takes no authority that is not of AMD's form.
    expect(result.ok).toBe(isAcceptedThere && name !== '604-synth-baseline-accept');
  });
});
