// SPDX-License-Identifier: Apache-2.0
/** Encodings. */
import { concat, fromHex, utf8 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import { ARC, type Cases, type VectorCase } from './case.ts';
import { ecSpki, type Forge, int, type LeafChanges, name, oid, tlv } from './forge.ts';

/** What is wrong with the encoding is found before any signature; these are good ones, changed. */
export function* derCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  const leaf = forge.leaf();
  const signer = forge.authorityKey('ASK');
  const malformed: readonly FindingCode[] = ['CERT_MALFORMED'];
  const raw = (title: string, what: string, bytes: Uint8Array): VectorCase =>
    cases.case(`der-${title}`, what, { leaf: bytes }, malformed);
  // A certificate of 256 to 65535 bytes starts 30 82 hh ll.
  const body = leaf.subarray(4);
  const [, , high, low] = leaf;
  yield raw('empty', 'No bytes.', new Uint8Array(0));
  yield raw('trailing', 'A byte after the certificate.', concat(leaf, Uint8Array.of(0)));
  yield raw('truncated', 'The last byte is missing.', leaf.subarray(0, leaf.length - 1));
  yield raw('indefinite', 'Indefinite length.', concat(fromHex('3080'), body, fromHex('0000')));
  yield raw(
    'long-length',
    'A length in three bytes where two are enough.',
    concat(Uint8Array.of(0x30, 0x83, 0, high!, low!), body),
  );
  yield raw('length-4g', 'A length of 2^32 - 1.', concat(fromHex('3084ffffffff'), body));
  yield raw('length-5-bytes', 'A length of five bytes.', concat(fromHex('3085ffffffffff'), body));
  yield raw('huge', 'Ten megabytes.', new Uint8Array(10 << 20).fill(0x30));
  yield raw('deep', 'Ten thousand levels of nesting.', nested(10_000));
  yield raw(
    'html',
    'An error page of the key service saved as a certificate.',
    utf8('<html><body>429 Too Many Requests</body></html>\n'),
  );
  const signedRow = (title: string, what: string, changes: LeafChanges): VectorCase =>
    cases.case(`der-${title}`, what, { leaf: changes }, malformed);
  yield signedRow('name-nul', 'A NUL in the common name.', {
    subject: name(fromHex('5345562d5643454b0078')),
  });
  yield signedRow('name-bmp', 'The common name is a BMPString.', {
    subject: name(fromHex('005300450056002d005600430045004b'), 0x1e),
  });
  yield signedRow('name-latin1', 'The common name is not UTF-8.', { subject: name(fromHex('5345562dff')) });
  yield signedRow('serial-padded', 'A serial number with a leading zero byte.', {
    serial: fromHex('02020000'),
  });
  yield signedRow('serial-empty', 'A serial number without content.', { serial: fromHex('0200') });
  yield signedRow('version-explicit-1', 'Version 1 written out.', { version: fromHex('a003020100') });
  yield signedRow('time-no-seconds', 'A time without seconds.', {
    validity: tlv(0x30, tlv(0x17, utf8('2501010000Z')), tlv(0x17, utf8('320101000000Z'))),
  });
  yield signedRow('time-zone', 'A time with an offset.', {
    validity: tlv(0x30, tlv(0x17, utf8('250101000000+0100')), tlv(0x17, utf8('320101000000Z'))),
  });
  yield signedRow('time-impossible', 'The 31st of February.', {
    validity: tlv(0x30, tlv(0x17, utf8('250231000000Z')), tlv(0x17, utf8('320101000000Z'))),
  });
  yield signedRow('time-generalized', 'GeneralizedTime for a year before 2050.', {
    validity: tlv(0x30, tlv(0x18, utf8('20250101000000Z')), tlv(0x17, utf8('320101000000Z'))),
  });
  const issued = forge.leaf('VCEK', { extensions: () => [] });
  yield raw(
    'critical-false',
    'critical FALSE written out.',
    withExtension(issued, forge, signer, fromHex('010100')),
  );
  yield raw('critical-1', 'BOOLEAN TRUE as 01.', withExtension(issued, forge, signer, fromHex('010101')));
  yield signedRow('no-extension-bytes', 'An empty list of extensions.', {
    spki: concat(ecSpki(forge.key().publicPoint), fromHex('a3023000')),
    extensions: () => [],
  });
}

function nested(levels: number): Uint8Array {
  // Built from the outside: every level is 30 83 and three bytes of length.
  const out = new Uint8Array(5 * levels);
  for (let i = 0; i < levels; i++) {
    const length = 5 * (levels - i - 1);
    out.set([0x30, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff], 5 * i);
  }
  return out;
}

/** The certificate with one extension whose critical field is these bytes, signed again. */
function withExtension(
  certificate: Uint8Array,
  forge: Forge,
  signer: ReturnType<Forge['authorityKey']>,
  critical: Uint8Array,
): Uint8Array {
  const tbsLength = (certificate[6]! << 8) | certificate[7]!;
  const tbs =
    certificate[5] === 0x82
      ? certificate.subarray(8, 8 + tbsLength)
      : certificate.subarray(7, 7 + certificate[6]!);
  const extension = tlv(0x30, oid(`${ARC}.1`), critical, tlv(0x04, int(0)));
  return forge.signed(tlv(0x30, tbs, tlv(0xa3, tlv(0x30, extension))), signer);
}
