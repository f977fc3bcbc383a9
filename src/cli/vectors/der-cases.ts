// SPDX-License-Identifier: Apache-2.0
/** Encodings. */
import { concat, fromHex, utf8 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import { ARC, type Cases, type VectorCase, valued } from './case.ts';
import { int, name, nested, oid, tlv } from './der.ts';
import { ecSpki, type Forge, type LeafChanges } from './forge.ts';

/** What is wrong with the encoding is found before any signature; these are good ones, changed. */
export function* derCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  const leaf = forge.leaf();
  const signer = forge.authorityKey('ASK');
  const malformed: readonly FindingCode[] = ['CERT_MALFORMED', 'LEAF_MISSING'];
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
  for (const levels of [17, 100, 1000, 2000, 10_000]) {
    yield raw(`deep-${levels}`, `${levels} sequences one inside the other.`, nested(levels));
  }
  const unused = leaf.slice();
  // The signature is the last 512 bytes; the one before them says how many bits of its last byte do not count.
  unused[unused.length - 513] = 1;
  unused[unused.length - 1]! &= 0xfe;
  yield raw('signature-bits', 'The signature lacks the last of its bits.', unused);
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
  yield signedRow('name-null', 'The common name is an ASN.1 NULL.', { subject: name(NONE, 0x05) });
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
  yield cases.case(
    'der-name-twice',
    'Two common names: which of them counts?',
    { leaf: { subject: tlv(0x30, name('SEV-VCEK').subarray(2), commonName('SEV-VCEK')) } },
    ['LEAF_MISSING'],
  );
  yield cases.case(
    'der-deep-extension',
    'A thousand sequences one inside the other where structVersion belongs.',
    { leaf: { extensions: valued(`${ARC}.1`, nested(1000)) } },
    ['CERT_EXTENSION_INVALID'],
  );
  yield cases.case(
    'der-extension-trailing',
    'A byte after the INTEGER of snpSPL.',
    { leaf: { extensions: valued(`${ARC}.3.3`, fromHex('02011800')) } },
    ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
  );
  const { ask, ark } = forge.authority;
  const askRow = (title: string, what: string, bytes: Uint8Array): VectorCase =>
    cases.case(`der-ask-${title}`, what, { intermediates: [bytes] }, [
      'CERT_MALFORMED',
      'INTERMEDIATE_MISSING',
    ]);
  yield askRow('trailing', 'A byte after the ASK.', concat(ask, Uint8Array.of(0)));
  yield askRow(
    'indefinite',
    'Indefinite length of the ASK.',
    concat(fromHex('3080'), ask.subarray(4), fromHex('0000')),
  );
  yield askRow(
    'name-bmp',
    'The common name of the ASK is a BMPString.',
    forge.ca('ASK', { subject: name(fromHex('005300450056'), 0x1e) }),
  );
  yield cases.case(
    'der-ark-trailing',
    'A byte after the ARK; the trusted one is found beside it.',
    { roots: [concat(ark, Uint8Array.of(0))] },
    ['CERT_MALFORMED'],
  );
}

const NONE = new Uint8Array(0);

const commonName = (text: string): Uint8Array => tlv(0x31, tlv(0x30, oid('2.5.4.3'), tlv(0x0c, utf8(text))));

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
