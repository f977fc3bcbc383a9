// SPDX-License-Identifier: Apache-2.0
/** VCEK and VLEK certificates. */
import { caName } from '../../kds/ca-certificate.ts';
import { concat, fromHex, utf8 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import { ARC, type Cases, DAY_MS, plus, replaced, twice, type VectorCase, valued, without } from './case.ts';
import {
  ecSpki,
  int,
  type LeafChanges,
  name,
  oid,
  rsa2048,
  SIGNINGS,
  spkiOf,
  tlv,
  VECTOR_TIME_MS,
  validity,
} from './forge.ts';

/** A point with the right form that is not on the curve. */
function offCurve(point: Uint8Array): Uint8Array {
  const wrong = point.slice();
  wrong[96]! ^= 1;
  return wrong;
}

export function* leafCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  const { publicPoint } = forge.key();
  const compressed = concat(Uint8Array.of(publicPoint[96]! & 1 ? 3 : 2), publicPoint.subarray(1, 49));
  const p256Point = fromHex(
    '046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
  );
  const explicitCurve = tlv(0x30, int(1), tlv(0x30, oid('1.2.840.10045.1.1'), tlv(0x02, utf8('field'))));
  const at = (fromMs: number, toMs: number): LeafChanges => ({ validity: validity(fromMs, toMs) });
  const ext = (change: NonNullable<LeafChanges['extensions']>): LeafChanges => ({ extensions: change });
  const rows: readonly (readonly [string, string, LeafChanges, readonly FindingCode[]])[] = [
    [
      'leaf-at-last-second',
      'The last second of validity belongs to it.',
      at(VECTOR_TIME_MS - DAY_MS, VECTOR_TIME_MS),
      [],
    ],
    [
      'leaf-at-first-second',
      'The first second of validity belongs to it.',
      at(VECTOR_TIME_MS, VECTOR_TIME_MS + DAY_MS),
      [],
    ],
    [
      'leaf-expired',
      'Ended a second ago.',
      at(VECTOR_TIME_MS - DAY_MS, VECTOR_TIME_MS - 1000),
      ['CERT_EXPIRED'],
    ],
    [
      'leaf-not-yet-valid',
      'Begins in a second.',
      at(VECTOR_TIME_MS + 1000, VECTOR_TIME_MS + DAY_MS),
      ['CERT_NOT_YET_VALID'],
    ],
    [
      'leaf-key-p256',
      'A key on P-256.',
      { spki: ecSpki(p256Point, '1.2.840.10045.3.1.7') },
      ['CERT_KEY_UNSUPPORTED'],
    ],
    [
      'leaf-key-compressed',
      'The key as a compressed point.',
      { spki: ecSpki(compressed) },
      ['CERT_KEY_UNSUPPORTED'],
    ],
    [
      'leaf-key-off-curve',
      'A point that is not on the curve.',
      { spki: ecSpki(offCurve(publicPoint)) },
      ['CERT_KEY_UNSUPPORTED'],
    ],
    [
      'leaf-key-explicit-curve',
      'Explicit curve parameters, under which anybody can make a signature.',
      {
        spki: tlv(
          0x30,
          tlv(0x30, oid('1.2.840.10045.2.1'), explicitCurve),
          tlv(0x03, Uint8Array.of(0), publicPoint),
        ),
      },
      ['CERT_KEY_UNSUPPORTED'],
    ],
    ['leaf-key-rsa', 'An RSA key.', { spki: spkiOf(forge.authorityKey('ASK')) }, ['CERT_KEY_UNSUPPORTED']],
    [
      'leaf-pss-sha256',
      'Signed with SHA-256.',
      { signing: SIGNINGS.pssSha256 },
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'leaf-pss-no-salt',
      'Signed without salt.',
      { signing: SIGNINGS.pssNoSalt },
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'leaf-pss-mask-sha1',
      'Said to be masked with SHA-1.',
      { signing: SIGNINGS.pssMaskSha1 },
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'leaf-pss-trailer-2',
      'A trailer field that does not exist.',
      { signing: SIGNINGS.pssTrailer2 },
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'leaf-pkcs1',
      'Signed with PKCS #1 v1.5.',
      { signing: SIGNINGS.pkcs1 },
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'leaf-algorithms-differ',
      'Another algorithm outside than in the signed part.',
      { outerAlgorithm: SIGNINGS.amdExplicitTrailer.algorithm },
      ['CERT_MALFORMED'],
    ],
    [
      'leaf-signed-by-root',
      'Signed with the key of the ARK.',
      { signer: forge.authorityKey('ARK') },
      ['CERT_SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-signed-by-itself',
      'Signed with a key of the attacker.',
      { signer: rsa2048() },
      ['CERT_SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-version-1',
      'An X.509 version 1 certificate.',
      { version: new Uint8Array(0), extensions: () => [] },
      ['CERT_VERSION_UNSUPPORTED', 'CERT_EXTENSION_MISSING', 'TCB_MISMATCH'],
    ],
    [
      'leaf-version-2',
      'An X.509 version 2 certificate.',
      { version: tlv(0xa0, int(1)) },
      ['CERT_VERSION_UNSUPPORTED'],
    ],
    [
      'leaf-subject-extra',
      "The subject has AMD's attributes and one more.",
      { subject: concatName('SEV-VCEK') },
      ['CERT_NAME_MISMATCH'],
    ],
    [
      'leaf-subject-printable',
      'The common name is a PrintableString.',
      { subject: name('SEV-VCEK', 0x13) },
      ['CERT_NAME_MISMATCH'],
    ],
    [
      'leaf-subject-other',
      'Another common name that contains VCEK.',
      { subject: name('SEV-VCEK-2') },
      ['LEAF_MISSING'],
    ],
    [
      'leaf-issuer-other-line',
      'The issuer is named after another product line.',
      { issuer: name(caName('Genoa', 'ASK')) },
      ['PRODUCT_MISMATCH', 'INTERMEDIATE_MISSING'],
    ],
    [
      'leaf-product-other',
      'productName of another product line.',
      { productName: 'Genoa' },
      ['PRODUCT_MISMATCH'],
    ],
    [
      'leaf-product-unknown',
      'productName of no product line.',
      { productName: 'Rome-B0' },
      ['CERT_EXTENSION_INVALID'],
    ],
    [
      'leaf-product-utf8',
      'productName is a UTF8String.',
      ext(valued(`${ARC}.2`, tlv(0x0c, utf8('Milan-B0')))),
      ['CERT_EXTENSION_INVALID'],
    ],
    [
      'leaf-product-stepping',
      'Another stepping: known to differ between CPUID and certificate.',
      { productName: 'Milan-B1' },
      [],
    ],
    [
      'leaf-struct-version-1',
      'The structure version of Turin.',
      { structVersion: 1 },
      ['CERT_EXTENSION_INVALID'],
    ],
    ['leaf-no-struct-version', 'No structVersion.', ext(without(`${ARC}.1`)), ['CERT_EXTENSION_MISSING']],
    ['leaf-no-product', 'No productName.', ext(without(`${ARC}.2`)), ['CERT_EXTENSION_MISSING']],
    [
      'leaf-no-snp-spl',
      'No snpSPL: nothing says for which TCB the key is.',
      ext(without(`${ARC}.3.3`)),
      ['CERT_EXTENSION_MISSING', 'TCB_MISMATCH'],
    ],
    ['leaf-no-spl4', 'No spl4.', ext(without(`${ARC}.3.4`)), ['CERT_EXTENSION_MISSING']],
    [
      'leaf-spl4-set',
      'spl4, a reserved component, is 1.',
      ext(valued(`${ARC}.3.4`, int(1))),
      ['CERT_EXTENSION_INVALID'],
    ],
    ['leaf-snp-spl-twice', 'snpSPL twice.', ext(twice(`${ARC}.3.3`)), ['CERT_EXTENSION_DUPLICATE']],
    [
      'leaf-snp-spl-twice-differing',
      'snpSPL twice with two values.',
      ext(replaced(`${ARC}.3.3`, (extension) => [extension, { ...extension, value: int(99) }])),
      ['CERT_EXTENSION_DUPLICATE'],
    ],
    [
      'leaf-snp-spl-256',
      'snpSPL 256.',
      ext(valued(`${ARC}.3.3`, int(256))),
      ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
    ],
    [
      'leaf-snp-spl-negative',
      'snpSPL -1.',
      ext(valued(`${ARC}.3.3`, fromHex('0201ff'))),
      ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
    ],
    [
      'leaf-snp-spl-padded',
      'snpSPL in two bytes where one is enough.',
      ext(valued(`${ARC}.3.3`, fromHex('02020018'))),
      ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
    ],
    [
      'leaf-snp-spl-raw',
      'snpSPL as a bare byte.',
      ext(valued(`${ARC}.3.3`, fromHex('18'))),
      ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
    ],
    [
      'leaf-fmc-spl',
      'fmcSPL, which only Turin has.',
      ext(plus({ oid: `${ARC}.3.9`, value: int(0) })),
      ['CERT_EXTENSION_UNKNOWN'],
    ],
    [
      'leaf-amd-extension',
      "An extension in AMD's arc that nobody knows.",
      ext(plus({ oid: `${ARC}.6`, value: int(0) })),
      ['CERT_EXTENSION_UNKNOWN'],
    ],
    [
      'leaf-key-usage',
      'A key usage extension.',
      ext(plus({ oid: '2.5.29.15', value: fromHex('03020780') })),
      ['CERT_EXTENSION_UNKNOWN'],
    ],
    [
      'leaf-critical',
      'structVersion is critical.',
      ext(replaced(`${ARC}.1`, (extension) => [{ ...extension, critical: true }])),
      ['CERT_EXTENSION_INVALID'],
    ],
    [
      'leaf-hwid-and-csp',
      'hwID and cspID: a VCEK and a VLEK at once.',
      ext(plus({ oid: `${ARC}.5`, value: tlv(0x16, utf8('CN=cloud.example')) })),
      ['CERT_EXTENSION_UNKNOWN', 'CERT_KIND_MISMATCH'],
    ],
    ['leaf-no-hwid', 'No hwID.', ext(without(`${ARC}.4`)), ['CERT_EXTENSION_MISSING', 'CERT_KIND_MISMATCH']],
  ];
  for (const [title, what, leaf, codes] of rows) {
    yield cases.case(title, what, { leaf }, codes);
  }
  for (const size of [0, 8, 63, 65]) {
    const hwId = concat(forge.chipId, forge.chipId).slice(0, size);
    yield cases.case(`leaf-hwid-${size}`, `hwID of ${size} bytes.`, { leaf: { hwId } }, [
      'CERT_EXTENSION_INVALID',
    ]);
  }
  yield cases.case(
    'leaf-hwid-wrapped',
    'hwID inside an OCTET STRING, 66 bytes; AMD writes it raw.',
    { leaf: { hwId: concat(Uint8Array.of(4, 64), forge.chipId) } },
    ['CERT_EXTENSION_INVALID', 'CHIP_ID_MISMATCH'],
  );
  for (const first of [0x02, 0x04]) {
    const chip = concat(Uint8Array.of(first, 0x3e), forge.chipId.subarray(2));
    yield cases.case(
      `leaf-hwid-starts-0${first}`,
      `A raw hwID whose first bytes look like DER by chance.`,
      { leaf: { hwId: chip }, report: { fields: { chip_id: chip } } },
      [],
    );
  }
  yield cases.case(
    'vlek-with-hwid',
    'A VLEK with a hwID beside its cspID.',
    { kind: 'VLEK', leaf: { extensions: plus({ oid: `${ARC}.4`, value: forge.chipId }) } },
    ['CERT_EXTENSION_UNKNOWN', 'CERT_KIND_MISMATCH'],
  );
  yield cases.case(
    'vlek-no-csp',
    'A VLEK without cspID.',
    { kind: 'VLEK', leaf: { extensions: without(`${ARC}.5`) } },
    ['CERT_EXTENSION_MISSING', 'CERT_KIND_MISMATCH'],
  );
  for (const [suffix, spl, codes] of [
    ['3.1', 'blSPL', ['TCB_MISMATCH']],
    ['3.2', 'teeSPL', ['TCB_MISMATCH']],
    ['3.5', 'spl5', []],
    ['3.6', 'spl6', []],
    ['3.7', 'spl7', []],
    ['3.8', 'ucodeSPL', ['TCB_MISMATCH']],
  ] as const) {
    yield cases.case(
      `leaf-no-${spl.toLowerCase()}`,
      `No ${spl}.`,
      { leaf: { extensions: without(`${ARC}.${suffix}`) } },
      ['CERT_EXTENSION_MISSING', ...codes],
    );
  }
  yield cases.case('vlek-empty-csp', 'A VLEK of nobody.', { kind: 'VLEK', leaf: { csp: '' } }, [
    'CERT_EXTENSION_INVALID',
  ]);
}

/** AMD's name with a serialNumber attribute before the common name, as some test tools write it. */
function concatName(commonName: string): Uint8Array {
  const plain = name(commonName);
  const body = plain.subarray(2);
  const last = tlv(0x31, tlv(0x30, fromHex('0603550403'), tlv(0x0c, utf8(commonName)))).length;
  const serial = tlv(0x31, tlv(0x30, fromHex('0603550405'), tlv(0x13, utf8('1'))));
  return tlv(0x30, body.subarray(0, body.length - last), serial, body.subarray(body.length - last));
}

export function* turinCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  yield cases.case(
    'leaf-hwid-64',
    'hwID of 64 bytes on Turin, which has 8.',
    { leaf: { hwId: forge.chipId } },
    ['CERT_EXTENSION_INVALID'],
  );
  yield cases.case(
    'chip-id-tail',
    'A byte of CHIP_ID behind the eight of Turin is set, and signed.',
    {
      report: {
        before: (bytes) => {
          bytes[0x1a0 + 63] = 1;
        },
      },
    },
    ['CHIP_ID_MISMATCH'],
  );
  yield cases.case('leaf-no-fmc-spl', 'No fmcSPL.', { leaf: { extensions: without(`${ARC}.3.9`) } }, [
    'CERT_EXTENSION_MISSING',
    'TCB_MISMATCH',
  ]);
  yield cases.case(
    'leaf-struct-version-0',
    'The structure version of Milan.',
    { leaf: { structVersion: 0 } },
    ['CERT_EXTENSION_INVALID'],
  );
  yield cases.case(
    'leaf-spl4',
    'spl4, which structure version 1 does not have.',
    { leaf: { extensions: plus({ oid: `${ARC}.3.4`, value: int(0) }) } },
    ['CERT_EXTENSION_UNKNOWN'],
  );
}
