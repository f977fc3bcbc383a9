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
import { type Forge, int, name, rsa2048, SIGNINGS, spkiOf, VECTOR_TIME_MS, validity } from './forge.ts';

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
    ['CERT_NAME_MISMATCH', 'INTERMEDIATE_MISSING'],
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
  const rows: readonly (readonly [string, string, Material, readonly FindingCode[]])[] = [
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
      ['CERT_EXTENSION_UNKNOWN'],
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
      ['CERT_KEY_UNSUPPORTED'],
    ],
    [
      'ask-pkcs1',
      'The ASK is signed with PKCS #1 v1.5.',
      ask({ signing: SIGNINGS.pkcs1 }),
      ['CERT_SIGNATURE_PARAMS_UNSUPPORTED'],
    ],
    [
      'ask-version-1',
      'The ASK is an X.509 version 1 certificate.',
      ask({ version: new Uint8Array(0), extensions: () => [] }),
      ['CERT_VERSION_UNSUPPORTED'],
    ],
    [
      'ask-issuer-name',
      'The ASK names another issuer than the ARK.',
      ask({ issuer: name('ARK-Milan-2') }),
      ['CERT_NAME_MISMATCH', 'ROOT_MISSING'],
    ],
    [
      'ask-signed-by-itself',
      'The ASK is signed with its own key.',
      ask({ signer: forge.authorityKey('ASK') }),
      ['CERT_SIGNATURE_MISMATCH'],
    ],
  ];
  for (const [title, what, material, codes] of rows) {
    yield cases.case(title, what, material, codes);
  }
  const roots: readonly (readonly [string, string, Parameters<Forge['ca']>[1], readonly FindingCode[]])[] = [
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
