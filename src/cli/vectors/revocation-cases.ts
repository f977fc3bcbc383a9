// SPDX-License-Identifier: Apache-2.0
/** Revocation lists. */
import type { ProductLine } from '../../abi/product.ts';
import { CA_ROWS, caName } from '../../kds/ca-certificate.ts';
import { concat } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import { type Cases, DAY_MS, type Material, type VectorCase } from './case.ts';
import { int } from './der.ts';
import { type Forge, VECTOR_TIME_MS } from './forge.ts';
import { SIGNINGS } from './signing.ts';

export function* revocationCases(
  cases: Cases,
  forges: Readonly<Record<ProductLine, Forge>>,
): Generator<VectorCase> {
  const { forge } = cases;
  const askSerial = CA_ROWS.Milan.ASK.serial;
  const good = forge.crl();
  const flipped = good.slice();
  flipped[flipped.length - 1]! ^= 1;
  const genoa = forges.Genoa;
  const require = { crl: 'require' } as const;
  const row = (
    title: string,
    what: string,
    crls: readonly Uint8Array[],
    expected: readonly FindingCode[],
    options: Partial<VectorCase['options']> = {},
    material: Material = {},
  ): VectorCase =>
    cases.case(`crl-${title}`, what, { crls, ...material }, expected, { ...require, ...options });
  yield row('good', 'A current list without entries.', [good], []);
  yield row('good-others', 'The list of another serial number.', [forge.crl({ revoked: [0x010009] })], []);
  yield row('missing', 'No list.', [], ['CRL_MISSING']);
  yield row('of-another-root', 'Only the list of another product line.', [genoa.crl()], ['CRL_MISSING']);
  yield row(
    'signed-by-another',
    'A list in the name of this root, signed by another.',
    [forge.crl({ signer: genoa.authorityKey('ARK') })],
    ['CRL_SIGNATURE_MISMATCH'],
  );
  yield row('bit-flipped', 'A bit of the signature flipped.', [flipped], ['CRL_SIGNATURE_MISMATCH']);
  yield row(
    'pkcs1',
    'Signed with PKCS #1 v1.5.',
    [forge.crl({ signing: SIGNINGS.pkcs1 })],
    ['CRL_SIGNATURE_MISMATCH'],
  );
  yield row(
    'stale',
    'nextUpdate was a second ago.',
    [forge.crl({ nextUpdateMs: VECTOR_TIME_MS - 1000 })],
    ['CRL_STALE'],
  );
  yield row('last-second', 'nextUpdate is now.', [forge.crl({ nextUpdateMs: VECTOR_TIME_MS })], []);
  yield row(
    'within-last-second',
    'nextUpdate was 999 ms ago: it names a whole second.',
    [forge.crl({ nextUpdateMs: VECTOR_TIME_MS })],
    [],
    { atMs: VECTOR_TIME_MS + 999 },
  );
  yield row('first-second', 'thisUpdate is now.', [forge.crl({ thisUpdateMs: VECTOR_TIME_MS })], []);
  yield row('no-next-update', 'No nextUpdate.', [forge.crl({ nextUpdateMs: null })], ['CRL_STALE']);
  yield row(
    'future',
    'thisUpdate is in a second.',
    [forge.crl({ thisUpdateMs: VECTOR_TIME_MS + 1000 })],
    ['CRL_NOT_YET_VALID'],
  );
  yield row('rollback', 'Number 7, where 8 has been seen.', [good], ['CRL_ROLLBACK'], {
    crlMinimumNumber: 8n,
  });
  yield row(
    'no-number',
    'No number, where one has been seen.',
    [forge.crl({ number: null })],
    ['CRL_ROLLBACK'],
    { crlMinimumNumber: 1n },
  );
  yield row('truncated', 'The last byte is missing.', [good.subarray(0, good.length - 1)], ['CRL_MALFORMED']);
  yield row('trailing', 'A byte after the list.', [concat(good, Uint8Array.of(0))], ['CRL_MALFORMED']);
  for (const [way, signing, what] of [
    ['pss-sha256', SIGNINGS.pssSha256, 'with SHA-256'],
    ['pss-no-salt', SIGNINGS.pssNoSalt, 'without salt'],
    ['pss-salt-32', SIGNINGS.pssSalt32, 'with 32 bytes of salt'],
    ['pss-salt-32-as-48', SIGNINGS.pssSalt32As48, 'with 32 bytes of salt, said to be 48'],
  ] as const) {
    yield row(way, `Signed ${what}.`, [forge.crl({ signing })], ['CRL_SIGNATURE_MISMATCH']);
  }
  yield row(
    '2700-entries',
    'As many entries as fit into the 64 KiB that are read.',
    [forge.crl({ entries: 2700 })],
    [],
  );
  yield row(
    '100000-entries',
    'A hundred thousand entries, and the root has signed them.',
    [forge.crl({ entries: 100_000 })],
    ['CRL_MALFORMED'],
  );
  yield row(
    'of-the-ask-alone',
    'Only a list signed by the ASK, which has no right to.',
    [forge.crl({ issuer: caName('Milan', 'ASK'), signer: forge.authorityKey('ASK') })],
    ['CRL_MISSING'],
    {},
    { warnings: ['CRL_ISSUER_MISMATCH'] },
  );
  yield row(
    'nine',
    'Nine lists, of which the ninth revokes the ASK: one more than are looked at.',
    [...Array.from({ length: 8 }, (_, i) => forge.crl({ number: i })), forge.crl({ revoked: [askSerial] })],
    ['CERT_TOO_MANY'],
    { crl: 'if-present' },
  );
  yield row('huge', 'Ten megabytes.', [new Uint8Array(10 << 20)], ['CRL_MALFORMED']);
  yield row(
    'delta',
    'A delta list: critical deltaCRLIndicator.',
    [forge.crl({ extensions: [{ oid: '2.5.29.27', critical: true, value: int(1) }] })],
    ['CRL_MALFORMED'],
  );
  yield row('ask-revoked', 'The ASK is revoked.', [forge.crl({ revoked: [askSerial] })], ['CERT_REVOKED']);
  yield row(
    'ark-revoked',
    'The ARK lists itself.',
    [forge.crl({ revoked: [CA_ROWS.Milan.ARK.serial] })],
    ['CERT_REVOKED'],
  );
  yield row(
    'asvk-revoked',
    'The ASVK is revoked.',
    [forge.crl({ revoked: [CA_ROWS.Milan.ASVK.serial] })],
    ['CERT_REVOKED'],
    {},
    { kind: 'VLEK' },
  );
  yield row(
    'revoked-in-stale',
    'Revoked in an old list, a newer one is silent.',
    [forge.crl({ revoked: [askSerial], number: 3, nextUpdateMs: VECTOR_TIME_MS - DAY_MS }), good],
    ['CERT_REVOKED'],
    {},
    { warnings: ['CRL_STALE'] },
  );
  yield row(
    'leaf-revoked',
    'A list signed by the ASK, which has no right to, names the serial number of the leaf.',
    [good, forge.crl({ issuer: caName('Milan', 'ASK'), signer: forge.authorityKey('ASK'), revoked: [0] })],
    ['CERT_REVOKED'],
    {},
    { warnings: ['CRL_ISSUER_MISMATCH'] },
  );
  yield row(
    'ask-revoked-soft',
    'The ASK is revoked; lists are only wished for.',
    [forge.crl({ revoked: [askSerial] })],
    ['CERT_REVOKED'],
    { crl: 'if-present' },
  );
  yield row(
    'missing-soft',
    'No list; lists are only wished for.',
    [],
    [],
    { crl: 'if-present' },
    {
      warnings: ['CRL_NOT_CHECKED'],
    },
  );
  yield row(
    'stale-soft',
    'An old list; lists are only wished for.',
    [forge.crl({ nextUpdateMs: VECTOR_TIME_MS - 1000 })],
    [],
    { crl: 'if-present' },
    { warnings: ['CRL_STALE', 'CRL_NOT_CHECKED'] },
  );
  const renewed = forge.ca('ASK', { serial: int(0x010007) });
  yield row(
    'renewed-intermediate',
    'The ASK is revoked, one of the same key with another serial number is not.',
    [forge.crl({ revoked: [askSerial] })],
    [],
    {},
    { intermediates: [forge.authority.ask, renewed] },
  );
}
