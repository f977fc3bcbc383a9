// SPDX-License-Identifier: Apache-2.0
/** VCEK and VLEK certificates. */
import { caName } from '../../kds/ca-certificate.ts';
import { concat, fromHex, utf8 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import {
  ARC,
  type Cases,
  DAY_MS,
  littleOf,
  N,
  P,
  plus,
  replaced,
  type VectorCase,
  valued,
  without,
} from './case.ts';
import { int, name, oid, tlv, validity } from './der.ts';
import { hwIdCases, splCases } from './extension-cases.ts';
import { ecSpki, type LeafChanges, rsa2048, spkiOf, VECTOR_TIME_MS } from './forge.ts';
import { SIGNINGS } from './signing.ts';

/** A point with the right form that is not on the curve. */
function offCurve(point: Uint8Array): Uint8Array {
  const wrong = point.slice();
  wrong[96]! ^= 1;
  return wrong;
}

type LeafRow = readonly [title: string, what: string, leaf: LeafChanges, codes: readonly FindingCode[]];

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
  const rows: readonly LeafRow[] = [
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
    ...keyRows(publicPoint),
    [
      'leaf-key-p256',
      'A key on P-256.',
      { spki: ecSpki(p256Point, '1.2.840.10045.3.1.7') },
      ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-key-compressed',
      'The key as a compressed point.',
      { spki: ecSpki(compressed) },
      ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-key-off-curve',
      'A point that is not on the curve.',
      { spki: ecSpki(offCurve(publicPoint)) },
      ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
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
      ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-key-rsa',
      'An RSA key.',
      { spki: spkiOf(forge.authorityKey('ASK')) },
      ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
    ],
    [
      'leaf-algorithms-differ',
      'Another algorithm outside than in the signed part.',
      { outerAlgorithm: SIGNINGS.amdExplicitTrailer.algorithm },
      ['CERT_MALFORMED', 'LEAF_MISSING'],
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
      ['CERT_VERSION_UNSUPPORTED', 'CERT_EXTENSION_MISSING', 'CERT_KIND_MISMATCH', 'TCB_MISMATCH'],
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
      ['PRODUCT_MISMATCH', 'INTERMEDIATE_MISSING', 'ROOT_MISSING'],
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
      ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
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
    [
      'leaf-snp-spl-twice-differing',
      'snpSPL twice with two values.',
      ext(replaced(`${ARC}.3.3`, (extension) => [extension, { ...extension, value: int(99) }])),
      ['CERT_EXTENSION_DUPLICATE'],
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
      ext(plus({ oid: `${ARC}.5`, value: CSP })),
      ['CERT_EXTENSION_UNKNOWN', 'CERT_KIND_MISMATCH'],
    ],
    ['leaf-no-hwid', 'No hwID.', ext(without(`${ARC}.4`)), ['CERT_EXTENSION_MISSING', 'CERT_KIND_MISMATCH']],
  ];
  for (const [title, what, leaf, codes] of rows) {
    yield cases.case(title, what, { leaf }, codes);
  }
  yield* timeCases(cases);
  yield* splCases(cases);
  yield* hwIdCases(cases, [0, 8, 63, 65, 66]);
  yield cases.case(
    'leaf-hwid-0-masked',
    'hwID without a byte beside a masked CHIP_ID.',
    {
      leaf: { hwId: NONE },
      report: { fields: { chip_id: new Uint8Array(64) } },
      warnings: ['CHIP_ID_MASKED'],
    },
    ['CERT_EXTENSION_INVALID'],
  );
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
    'leaf-csp-for-hwid',
    'A VCEK with cspID in place of its hwID.',
    { leaf: { extensions: replaced(`${ARC}.4`, () => [{ oid: `${ARC}.5`, value: CSP }]) } },
    ['CERT_EXTENSION_MISSING', 'CERT_EXTENSION_UNKNOWN', 'CERT_KIND_MISMATCH'],
  );
  yield cases.case(
    'vlek-hwid-for-csp',
    'A VLEK with hwID in place of its cspID.',
    {
      kind: 'VLEK',
      leaf: { extensions: replaced(`${ARC}.5`, () => [{ oid: `${ARC}.4`, value: forge.chipId }]) },
    },
    ['CERT_EXTENSION_MISSING', 'CERT_EXTENSION_UNKNOWN', 'CERT_KIND_MISMATCH'],
  );
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

const NONE = new Uint8Array(0);
const CSP = tlv(0x16, utf8('CN=cloud.example'));

/** Keys that are no uncompressed point on the named curve. */
function keyRows(point: Uint8Array): readonly LeafRow[] {
  const spki = (parameters: Uint8Array, key: Uint8Array): Uint8Array =>
    tlv(0x30, tlv(0x30, oid('1.2.840.10045.2.1'), parameters), tlv(0x03, Uint8Array.of(0), key));
  const fixed = (value: bigint): Uint8Array => littleOf(value, 48).reverse();
  const integer = (value: bigint): Uint8Array => tlv(0x02, Uint8Array.of(0), fixed(value));
  const generator = fromHex(
    '04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab73617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f',
  );
  const b = fromHex(
    'b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef',
  );
  const trueParameters = tlv(
    0x30,
    int(1),
    tlv(0x30, oid('1.2.840.10045.1.1'), integer(P)),
    tlv(0x30, tlv(0x04, fixed(P - 3n)), tlv(0x04, b)),
    tlv(0x04, generator),
    integer(N),
    int(1),
  );
  const hybrid = concat(Uint8Array.of(6 + (point[96]! & 1)), point.subarray(1));
  const rows: readonly (readonly [string, string, Uint8Array])[] = [
    [
      'explicit-p384',
      'The parameters of P-384 written out instead of its name.',
      spki(trueParameters, point),
    ],
    ['null-curve', 'NULL where the curve is named.', spki(fromHex('0500'), point)],
    ['no-curve', 'No curve.', spki(NONE, point)],
    ['hybrid', 'The key as a hybrid point.', ecSpki(hybrid)],
    ['infinity', 'The point at infinity.', ecSpki(Uint8Array.of(0))],
    ['zero', 'x = y = 0.', ecSpki(concat(Uint8Array.of(4), new Uint8Array(96)))],
    [
      'x-is-p',
      'x = p, which is no element of the field.',
      ecSpki(concat(Uint8Array.of(4), fixed(P), point.subarray(49))),
    ],
  ];
  return rows.map(([title, what, der]) => [
    `leaf-key-${title}`,
    what,
    { spki: der },
    ['CERT_KEY_UNSUPPORTED', 'SIGNATURE_MISMATCH'],
  ]);
}

/** The boundaries of validity, to the millisecond. */
function* timeCases(cases: Cases): Generator<VectorCase> {
  const now = VECTOR_TIME_MS;
  const rows: readonly (readonly [string, string, number, number, number, readonly FindingCode[]])[] = [
    ['at-last-second', 'The last second of validity belongs to it', now - DAY_MS, now, now, []],
    ['within-last-second', 'The last second of validity lasts 999 ms more', now - DAY_MS, now, now + 999, []],
    ['after-last-second', 'Ended a second ago', now - DAY_MS, now, now + 1000, ['CERT_EXPIRED']],
    ['at-first-second', 'The first second of validity belongs to it', now, now + DAY_MS, now, []],
    ['before-first-second', 'Begins in a millisecond', now, now + DAY_MS, now - 1, ['CERT_NOT_YET_VALID']],
  ];
  for (const kind of ['VCEK', 'VLEK'] as const) {
    for (const [title, what, from, to, atMs, codes] of rows) {
      yield cases.case(
        `${kind === 'VCEK' ? 'leaf' : 'vlek'}-${title}`,
        `${what}: ${kind}.`,
        { kind, leaf: { validity: validity(from, to) } },
        codes,
        { atMs },
      );
    }
  }
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
  yield* splCases(cases);
  yield* hwIdCases(cases, [0, 7, 9, 16, 63, 64, 65, 66]);
  for (const first of [0x02, 0x04, 0x30]) {
    const chip = concat(Uint8Array.of(first, 6), forge.chipId.subarray(2));
    yield cases.case(
      `leaf-hwid-starts-${first.toString(16).padStart(2, '0')}`,
      'A raw hwID whose first bytes look like DER by chance.',
      { leaf: { hwId: chip.slice(0, 8) }, report: { fields: { chip_id: chip } } },
      [],
    );
  }
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
    ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
  );
  yield cases.case(
    'leaf-spl4',
    'spl4, which structure version 1 does not have.',
    { leaf: { extensions: plus({ oid: `${ARC}.3.4`, value: int(0) }) } },
    ['CERT_EXTENSION_UNKNOWN'],
  );
}
