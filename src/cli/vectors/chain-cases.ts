// SPDX-License-Identifier: Apache-2.0
/** Roots and intermediates. */
import type { ProductLine } from '../../abi/product.ts';
import { caName } from '../../kds/ca-certificate.ts';
import { fromHex } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import {
  type Cases,
  DAY_MS,
  type Material,
  plus,
  replaced,
  twice,
  type VectorCase,
  valued,
  without,
} from './case.ts';
import { int, name, tlv, validity } from './der.ts';
import { type Forge, rsa2048, spkiOf, VECTOR_TIME_MS } from './forge.ts';

export function* authorityCases(
  cases: Cases,
  forges: Readonly<Record<ProductLine, Forge>>,
): Generator<VectorCase> {
  const { forge } = cases;
  const genoa = forges.Genoa;
  const impostorKey = genoa.authorityKey('ARK');
  const impostor = forge.ca('ARK', { spki: spkiOf(impostorKey), signer: impostorKey });
  yield cases.case(
    'root-forged',
    'A self-made root with the right names, and a whole chain under it.',
    { roots: [impostor], intermediates: [forge.ca('ASK', { signer: impostorKey })] },
    ['ROOT_UNTRUSTED'],
  );
  yield cases.case(
    'root-forged-beside-genuine',
    'The same with the genuine root beside it.',
    { roots: [impostor, forge.authority.ark], intermediates: [forge.ca('ASK', { signer: impostorKey })] },
    ['ROOT_UNTRUSTED'],
  );
  const forged = { roots: [impostor], intermediates: [forge.ca('ASK', { signer: impostorKey })] };
  const forgedVariants: readonly (readonly [string, string, Material, readonly FindingCode[]])[] = [
    ...([2, 4, 5] as const).map(
      (version) =>
        [
          `v${version}`,
          `The same chain under a version ${version} report.`,
          { report: { version } },
          ['ROOT_UNTRUSTED'],
        ] as const,
    ),
    [
      'no-cpuid',
      'The same under a report that names no product line.',
      { report: { before: (bytes) => bytes.fill(0, 0x188, 0x18b) } },
      ['ROOT_UNTRUSTED', 'PRODUCT_UNKNOWN'],
    ],
    [
      'vlek',
      'The same above a VLEK.',
      { kind: 'VLEK', intermediates: [forge.ca('ASVK', { signer: impostorKey })] },
      ['ROOT_UNTRUSTED'],
    ],
    [
      'cross-signed',
      'The self-made root is signed by the genuine one: that makes it a certificate of it, not a root.',
      { roots: [forge.ca('ARK', { spki: spkiOf(impostorKey) })] },
      ['ROOT_UNTRUSTED'],
    ],
  ];
  for (const [title, what, material, codes] of forgedVariants) {
    yield cases.case(`root-forged-${title}`, what, { ...forged, ...material }, codes);
  }
  for (const version of [2, 3, 5] as const) {
    yield cases.case(
      `root-forged-amd-v${version}`,
      `The same under a version ${version} report, where AMD's own roots are trusted.`,
      { ...forged, report: { version } },
      ['ROOT_UNTRUSTED'],
      { trust: 'amd' },
    );
  }
  yield cases.case(
    'too-many-certificates',
    'Seventeen certificates, one more than are looked at; the right ones are among the first.',
    {
      roots: [forge.authority.ark, ...Array.from({ length: 14 }, (_, i) => genoa.authority.ark.with(-1, i))],
    },
    ['CERT_TOO_MANY'],
  );
  yield cases.case(
    'leaf-under-asvk',
    'A VCEK issued by the ASVK, which may only issue VLEKs.',
    {
      leaf: { issuer: name(caName('Milan', 'ASVK')), signer: forge.authorityKey('ASVK') },
      intermediates: [forge.authority.asvk],
    },
    ['CERT_NAME_MISMATCH'],
  );
  yield cases.case(
    'leaf-under-root',
    'A VCEK issued by the ARK itself.',
    {
      leaf: { issuer: name(caName('Milan', 'ARK')), signer: forge.authorityKey('ARK') },
      intermediates: [],
    },
    ['INTERMEDIATE_MISSING', 'CERT_NAME_MISMATCH'],
  );
  yield cases.case('no-leaf', 'No endorsement certificate.', { noLeaf: true }, ['LEAF_MISSING']);
  yield cases.case('no-intermediate', 'No ASK.', { intermediates: [] }, ['INTERMEDIATE_MISSING']);
  yield cases.case('no-root', 'No ARK.', { roots: [] }, ['ROOT_MISSING'], { trust: [genoa.authority.ark] });
  const twin = forge.ca('ASK', { spki: spkiOf(genoa.authorityKey('ASK')), serial: int(0x010002) });
  for (const order of ['first', 'last']) {
    yield cases.case(
      `twin-intermediate-${order}`,
      `Another ASK of the same name and another key comes ${order}; the right one is there.`,
      { intermediates: order === 'first' ? [twin, forge.authority.ask] : [forge.authority.ask, twin] },
      [],
    );
  }
  yield cases.case(
    'twin-intermediate-alone',
    'Only the ASK of the same name and another key.',
    { intermediates: [twin] },
    ['CERT_SIGNATURE_MISMATCH'],
  );
  const ask = (changes: Parameters<Forge['ca']>[1]): Material => ({
    intermediates: [forge.ca('ASK', changes)],
  });
  const keyUsage = (value: string) => valued('2.5.29.15', fromHex(value));
  const rows: readonly (readonly [
    title: string,
    what: string,
    material: Material,
    codes: readonly FindingCode[],
    trust?: readonly Uint8Array[],
  ])[] = [
    [
      'ask-at-last-second',
      'The last second of validity belongs to the ASK.',
      ask({ validity: validity(0x15d_0000_0000, VECTOR_TIME_MS) }),
      [],
    ],
    [
      'ask-at-first-second',
      'The first second of validity belongs to the ASK.',
      ask({ validity: validity(VECTOR_TIME_MS, VECTOR_TIME_MS + DAY_MS) }),
      [],
    ],
    [
      'ask-expired',
      'The ASK ended a second ago.',
      ask({ validity: validity(0x15d_0000_0000, VECTOR_TIME_MS - 1000) }),
      ['CERT_EXPIRED'],
    ],
    [
      'ask-not-yet-valid',
      'The ASK begins in a second.',
      ask({ validity: validity(VECTOR_TIME_MS + 1000, VECTOR_TIME_MS + DAY_MS) }),
      ['CERT_NOT_YET_VALID'],
    ],
    [
      'ask-not-ca',
      'Basic constraints of the ASK say CA:FALSE.',
      ask({ extensions: valued('2.5.29.19', fromHex('3000')) }),
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-path-length',
      'The ASK may have authorities below it.',
      ask({ extensions: valued('2.5.29.19', fromHex('30030101ff')) }),
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-key-usage-sign',
      'Key usage of the ASK: digitalSignature.',
      ask({ extensions: keyUsage('03020780') }),
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-key-usage-crl',
      'Key usage of the ASK: keyCertSign and cRLSign.',
      ask({ extensions: keyUsage('03020106') }),
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-key-usage-not-critical',
      'Key usage of the ASK is not critical.',
      ask({ extensions: replaced('2.5.29.15', ({ oid: type, value }) => [{ oid: type, value }]) }),
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-no-key-usage',
      'The ASK has no key usage.',
      ask({ extensions: without('2.5.29.15') }),
      ['CERT_EXTENSION_MISSING'],
    ],
    [
      'ask-no-basic-constraints',
      'The ASK has no basic constraints.',
      ask({ extensions: without('2.5.29.19') }),
      ['CERT_EXTENSION_MISSING'],
    ],
    [
      'ask-no-key-identifiers',
      'The ASK has no subject key identifier.',
      ask({ extensions: without('2.5.29.14') }),
      ['CERT_EXTENSION_MISSING'],
    ],
    [
      'ask-no-crl-url',
      'The ASK does not say where its revocation list is.',
      ask({ extensions: without('2.5.29.31') }),
      ['CERT_EXTENSION_MISSING'],
    ],
    [
      'ask-extended-key-usage',
      'An extension of the ASK that AMD does not write, not critical.',
      ask({ extensions: plus({ oid: '2.5.29.37', value: fromHex('300a06082b06010505070301') }) }),
      ['CERT_EXTENSION_UNKNOWN'],
    ],
    [
      'ask-key-usage-twice',
      'Key usage of the ASK twice.',
      ask({ extensions: twice('2.5.29.15') }),
      ['CERT_EXTENSION_DUPLICATE'],
    ],
    [
      'ask-name-constraints',
      'A critical extension of the ASK that nobody knows.',
      ask({ extensions: plus({ oid: '2.5.29.30', critical: true, value: fromHex('3000') }) }),
      ['CERT_EXTENSION_UNKNOWN', 'CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ask-crl-url',
      'The ASK sends readers elsewhere for its revocation list.',
      ask({
        extensions: replaced('2.5.29.31', (extension) => [
          { ...extension, value: extension.value.map((byte, i) => (i === 14 ? byte ^ 1 : byte)) },
        ]),
      }),
      ['CERT_EXTENSION_INVALID'],
    ],
    [
      'ask-rsa-2048',
      'The ASK has a key of 2048 bits.',
      { ...ask({ spki: spkiOf(rsa2048()) }), leaf: { signer: rsa2048() } },
      ['CERT_KEY_UNSUPPORTED', 'CERT_SIGNATURE_MISMATCH'],
    ],
    [
      'ask-exponent-3',
      'The key of the ASK has the exponent 3, with which signatures have been forged.',
      ask({ spki: withExponent3(spkiOf(forge.authorityKey('ASK'))) }),
      ['CERT_KEY_UNSUPPORTED', 'CERT_SIGNATURE_MISMATCH'],
    ],
    [
      'ask-issued-by-another-line',
      'The ASK is issued and signed by the ARK of Genoa, which is trusted.',
      {
        intermediates: [
          forge.ca('ASK', { issuer: name(caName('Genoa', 'ARK')), signer: genoa.authorityKey('ARK') }),
        ],
        roots: [genoa.authority.ark],
      },
      ['CERT_NAME_MISMATCH'],
      [genoa.authority.ark, forge.authority.ark],
    ],
    [
      'ask-version-1',
      'The ASK is an X.509 version 1 certificate.',
      ask({ version: new Uint8Array(0), extensions: () => [] }),
      ['CERT_VERSION_UNSUPPORTED', 'CERT_EXTENSION_MISSING'],
    ],
    [
      'ask-issuer-name',
      'The ASK names another issuer than the ARK.',
      ask({ issuer: name('ARK-Milan-2') }),
      ['ROOT_MISSING', 'CERT_NAME_MISMATCH'],
    ],
    [
      'ask-signed-by-itself',
      'The ASK is signed with its own key.',
      ask({ signer: forge.authorityKey('ASK') }),
      ['CERT_SIGNATURE_MISMATCH'],
    ],
  ];
  for (const [title, what, material, codes, trust] of rows) {
    yield cases.case(title, what, material, codes, trust === undefined ? {} : { trust });
  }
  const roots: readonly (readonly [string, string, Parameters<Forge['ca']>[1], readonly FindingCode[]])[] = [
    [
      'ark-at-last-second',
      'The last second of validity belongs to the ARK.',
      { validity: validity(0x15d_0000_0000, VECTOR_TIME_MS) },
      [],
    ],
    [
      'ark-at-first-second',
      'The first second of validity belongs to the ARK.',
      { validity: validity(VECTOR_TIME_MS, VECTOR_TIME_MS + DAY_MS) },
      [],
    ],
    [
      'ark-signed-by-another',
      'Another key signed the trusted ARK. Nobody asks: it is trusted for its bytes, not for its signature.',
      { signer: genoa.authorityKey('ARK') },
      [],
    ],
    [
      'ark-expired',
      'The trusted ARK ended a second ago.',
      { validity: validity(0x15d_0000_0000, VECTOR_TIME_MS - 1000) },
      ['CERT_EXPIRED'],
    ],
    [
      'ark-not-yet-valid',
      'The trusted ARK begins in a second.',
      { validity: validity(VECTOR_TIME_MS + 1000, VECTOR_TIME_MS + DAY_MS) },
      ['CERT_NOT_YET_VALID'],
    ],
    [
      'ark-not-ca',
      'Basic constraints of the trusted ARK say CA:FALSE.',
      { extensions: valued('2.5.29.19', fromHex('3000')) },
      ['CERT_CONSTRAINTS_MISMATCH'],
    ],
    [
      'ark-no-key-usage',
      'The trusted ARK has no key usage.',
      { extensions: without('2.5.29.15') },
      ['CERT_EXTENSION_MISSING'],
    ],
  ];
  for (const [title, what, changes, codes] of roots) {
    const root = forge.ca('ARK', changes);
    yield cases.case(title, what, { roots: [root] }, codes, { trust: [root] });
  }
}

/** The same modulus with the exponent 3 where 65537 was. */
function withExponent3(spki: Uint8Array): Uint8Array {
  const end = spki.length - 5;
  const modulus = spki.subarray(end - 4 - 513, end);
  return tlv(0x30, spki.subarray(4, 19), tlv(0x03, Uint8Array.of(0), tlv(0x30, modulus, int(3))));
}
