// SPDX-License-Identifier: Apache-2.0
/** Certificates signed by the right key in another way than AMD's. */
import type { FindingCode } from '../../verify/findings.ts';
import type { Cases, Material, VectorCase } from './case.ts';
import { SIGNINGS, type Signing } from './signing.ts';

const UNSUPPORTED = 'CERT_SIGNATURE_PARAMS_UNSUPPORTED';

const WAYS: readonly (readonly [title: string, what: string, signing: Signing, code: FindingCode])[] = [
  ['pss-sha256', 'with SHA-256 and no salt', SIGNINGS.pssSha256, UNSUPPORTED],
  ['pss-sha256-salt-32', 'with SHA-256 and 32 bytes of salt', SIGNINGS.pssSha256Salt32, UNSUPPORTED],
  ['pss-no-salt', 'without salt', SIGNINGS.pssNoSalt, UNSUPPORTED],
  ['pss-salt-32', 'with 32 bytes of salt', SIGNINGS.pssSalt32, UNSUPPORTED],
  [
    'pss-salt-32-as-48',
    'with 32 bytes of salt, said to be 48',
    SIGNINGS.pssSalt32As48,
    'CERT_SIGNATURE_MISMATCH',
  ],
  ['pss-mask-sha1', 'and said to be masked with SHA-1', SIGNINGS.pssMaskSha1, UNSUPPORTED],
  ['pss-trailer-2', 'with a trailer field that does not exist', SIGNINGS.pssTrailer2, UNSUPPORTED],
  ['pss-empty', 'with empty parameters, which mean SHA-1', SIGNINGS.pssEmptyParameters, UNSUPPORTED],
  ['pss-none', 'without parameters', SIGNINGS.pssNoParameters, UNSUPPORTED],
  ['pkcs1', 'with PKCS #1 v1.5', SIGNINGS.pkcs1, UNSUPPORTED],
];

export function* signingCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  for (const [title, what, signing, code] of WAYS) {
    const root = forge.ca('ARK', { signing });
    const rows: readonly (readonly [string, Material, Uint8Array])[] = [
      ['leaf', { leaf: { signing } }, forge.authority.ark],
      ['ask', { intermediates: [forge.ca('ASK', { signing })] }, forge.authority.ark],
      ['ark', { roots: [root] }, root],
    ];
    for (const [certificate, material, trusted] of rows) {
      // A root is believed for its bytes: what it says of its signature must be AMD's, the signature is not verified.
      const codes = certificate === 'ark' && code === 'CERT_SIGNATURE_MISMATCH' ? [] : [code];
      yield cases.case(
        `${certificate}-${title}`,
        `The ${certificate.toUpperCase()} is signed ${what}.`,
        material,
        codes,
        {
          trust: [trusted],
        },
      );
    }
  }
}
