// SPDX-License-Identifier: Apache-2.0
/**
 * The negative set: evidence under softsnp's test roots that a verifier must refuse, and the little that
 * it must accept although it looks odd. Each case is wrong in one respect; all else about it is right.
 */
import type { AttestationReportV5 } from '../abi/attestation-report.ts';
import { ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { encodeTcb, type TcbParts, tcbComponents } from '../abi/tcb-version.ts';
import { encodeCertificateTable } from '../certs/table.ts';
import { CA_ROWS, caName } from '../kds/ca-certificate.ts';
import { concat, fromHex, reversed, toHex, utf8, writeU32, writeU64 } from '../lib/bytes.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import type { Evidence } from '../verify/evidence.ts';
import type { FindingCode } from '../verify/findings.ts';
import type { VerifyOptions } from '../verify/verify.ts';
import {
  ecSpki,
  Forge,
  int,
  type LeafChanges,
  name,
  oid,
  type RawExtension,
  type ReportChanges,
  rsa2048,
  SIGNINGS,
  spkiOf,
  tlv,
  VECTOR_TIME_MS,
  validity,
} from './vector-forge.ts';

export interface VectorCase {
  readonly name: string;
  /** What is wrong, or why it is not. */
  readonly what: string;
  readonly evidence: Evidence;
  readonly options: Pick<VerifyOptions, 'atMs' | 'crl' | 'crlMinimumNumber' | 'product'> & {
    readonly trust: readonly Uint8Array[];
  };
  /** Codes of errors that must be among the findings; empty: accepted. */
  readonly expected: readonly FindingCode[];
}

const DAY_MS = 86_400_000;
const N = 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;
const P = 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffffn;

const bigOf = (littleEndian: Uint8Array): bigint => BigInt(`0x${toHex(reversed(littleEndian))}`);
const littleOf = (value: bigint, size = 72): Uint8Array =>
  reversed(fromHex(value.toString(16).padStart(2 * size, '0')));

const ARC = '1.3.6.1.4.1.3704.1';

const replaced =
  (type: string, change: (extension: RawExtension) => readonly RawExtension[]) =>
  (extensions: readonly RawExtension[]): readonly RawExtension[] =>
    extensions.flatMap((extension) => (extension.oid === type ? change(extension) : [extension]));
const without = (type: string) => replaced(type, () => []);
const twice = (type: string) => replaced(type, (extension) => [extension, extension]);
const valued = (type: string, value: Uint8Array) => replaced(type, (extension) => [{ ...extension, value }]);
const plus =
  (extra: RawExtension) =>
  (extensions: readonly RawExtension[]): readonly RawExtension[] => [...extensions, extra];

interface Material {
  readonly report?: ReportChanges | Uint8Array;
  readonly leaf?: LeafChanges | Uint8Array;
  readonly kind?: 'VCEK' | 'VLEK';
  /** Kind of the certificate, where it is to differ from that of the report. */
  readonly leafKind?: 'VCEK' | 'VLEK';
  readonly intermediates?: readonly Uint8Array[];
  readonly roots?: readonly Uint8Array[];
  readonly crls?: readonly Uint8Array[];
  readonly table?: Uint8Array;
  readonly noLeaf?: boolean;
}

/** Builds cases around one platform. */
class Cases {
  readonly forge: Forge;
  readonly #prefix: string;
  readonly #leaves = new Map<string, Uint8Array>();

  constructor(forge: Forge) {
    this.forge = forge;
    this.#prefix = forge.product.toLowerCase();
  }

  #leafOf(kind: 'VCEK' | 'VLEK', leaf: Material['leaf']): Uint8Array {
    if (leaf !== undefined) {
      return leaf instanceof Uint8Array ? leaf : this.forge.leaf(kind, leaf);
    }
    // The certificate the key service would issue, signed once.
    const issued = this.#leaves.get(kind) ?? this.forge.leaf(kind);
    this.#leaves.set(kind, issued);
    return issued;
  }

  case(
    title: string,
    what: string,
    material: Material,
    expected: readonly FindingCode[],
    options: Partial<VectorCase['options']> = {},
  ): VectorCase {
    const { forge } = this;
    const kind = material.kind ?? 'VCEK';
    const leafKind = material.leafKind ?? kind;
    const report =
      material.report instanceof Uint8Array ? material.report : forge.report({ kind, ...material.report });
    const leaf = this.#leafOf(leafKind, material.leaf);
    const [intermediate, root] = forge.chain(leafKind);
    const certificates = [
      ...(material.noLeaf === true ? [] : [leaf]),
      ...(material.intermediates ?? [intermediate!]),
      ...(material.roots ?? [root!]),
    ];
    return {
      name: `${this.#prefix}/${title}`,
      what,
      evidence: {
        report,
        ...(material.table === undefined ? { certificates } : { table: material.table }),
        ...(material.crls === undefined ? {} : { crls: material.crls }),
      },
      options: { atMs: VECTOR_TIME_MS, crl: 'skip', trust: [forge.authority.ark], ...options },
      expected,
    };
  }
}

/** All cases; the same seed gives the same bytes. */
export function* vectorCases(crypto: MachineCrypto, random: Random): Generator<VectorCase> {
  const forges = Object.fromEntries(
    PRODUCT_LINES.map((product) => [product, new Forge(product, crypto, random)]),
  ) as Record<ProductLine, Forge>;
  for (const product of PRODUCT_LINES) {
    const cases = new Cases(forges[product]);
    yield* acceptedCases(cases);
    yield* pairingCases(cases, forges);
    yield* tcbCases(cases);
  }
  const milan = new Cases(forges.Milan);
  yield* reportCases(milan);
  yield* signatureCases(milan);
  yield* authorityCases(milan, forges);
  yield* leafCases(milan);
  yield* derCases(milan);
  yield* revocationCases(milan, forges);
  yield* tableCases(milan);
  yield* turinCases(new Cases(forges.Turin));
}

function* acceptedCases(cases: Cases): Generator<VectorCase> {
  for (const version of [2, 3, 4, 5] as const) {
    yield cases.case(
      `good-v${version}`,
      `A version ${version} report as firmware makes it.`,
      { report: { version } },
      [],
    );
  }
  yield cases.case('good-vlek', 'Signed by a VLEK; CHIP_ID is zero.', { kind: 'VLEK' }, []);
  yield cases.case(
    'good-explicit-trailer',
    'The leaf encodes the default trailerField, as AMD did until 2023.',
    { leaf: { signing: SIGNINGS.amdExplicitTrailer } },
    [],
  );
  yield cases.case(
    'good-masked-chip-id',
    'CHIP_ID is masked; the signature binds report and certificate all the same.',
    { report: { fields: { chip_id: new Uint8Array(64) } } },
    [],
  );
  yield cases.case(
    'good-negated-s',
    '(r, n - s) is as valid a signature as (r, s); the report is the same report.',
    { report: { after: (bytes) => bytes.set(littleOf(N - bigOf(bytes.subarray(0x2e8, 0x318))), 0x2e8) } },
    [],
  );
}

function* pairingCases(cases: Cases, forges: Readonly<Record<ProductLine, Forge>>): Generator<VectorCase> {
  const { forge } = cases;
  for (const other of PRODUCT_LINES.filter((product) => product !== forge.product)) {
    const theirs = forges[other];
    yield cases.case(
      `leaf-of-${other.toLowerCase()}`,
      `Leaf and chain of ${other} beside a report of ${forge.product}.`,
      { leaf: theirs.leaf(), intermediates: [theirs.authority.ask], roots: [theirs.authority.ark] },
      ['PRODUCT_MISMATCH', 'SIGNATURE_MISMATCH'],
      { trust: [theirs.authority.ark] },
    );
    yield cases.case(
      `ask-of-${other.toLowerCase()}`,
      `The ASK of ${other} in place of the leaf's issuer.`,
      { intermediates: [theirs.authority.ask] },
      ['INTERMEDIATE_MISSING'],
    );
    yield cases.case(
      `ark-of-${other.toLowerCase()}`,
      `The ARK of ${other} in place of the root.`,
      { roots: [theirs.authority.ark] },
      ['ROOT_MISSING'],
      { trust: [theirs.authority.ark] },
    );
  }
  yield cases.case(
    'vlek-for-vcek-report',
    'The report was signed by a VCEK, the certificate is a VLEK.',
    { leafKind: 'VLEK' },
    ['CERT_KIND_MISMATCH', 'SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'vcek-for-vlek-report',
    'The report was signed by a VLEK, the certificate is a VCEK.',
    { kind: 'VLEK', leafKind: 'VCEK' },
    ['CERT_KIND_MISMATCH', 'SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'vlek-claimed-as-vcek',
    'A VLEK signed a report that says a VCEK did.',
    {
      kind: 'VLEK',
      report: { before: (bytes) => writeU32(bytes, 0x48, 0) },
      leafKind: 'VLEK',
    },
    ['CERT_KIND_MISMATCH'],
  );
  yield cases.case(
    'chip-of-another',
    'The certificate is for another chip.',
    { leaf: { hwId: forge.bytes(forge.product === 'Turin' ? 8 : 64) } },
    ['CHIP_ID_MISMATCH'],
  );
  yield cases.case(
    'root-not-trusted',
    'Softsnp roots where another root is trusted.',
    {},
    ['ROOT_UNTRUSTED'],
    {
      trust: [forges[forge.product === 'Milan' ? 'Genoa' : 'Milan'].authority.ark],
    },
  );
}

function* tcbCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  for (const component of tcbComponents(forge.product)) {
    for (const step of [-1, 1]) {
      const tcb: TcbParts = { ...forge.tcb, [component]: forge.tcb[component] + step };
      yield cases.case(
        `tcb-${component.replace('_', '-')}-${step < 0 ? 'below' : 'above'}`,
        `The certificate is for a ${component} one ${step < 0 ? 'below' : 'above'} that of REPORTED_TCB.`,
        // The report's own key, so that nothing but the extension tells.
        { leaf: { tcb, spki: ecSpki(forge.key().publicPoint) } },
        ['TCB_MISMATCH'],
      );
    }
  }
  const other: ProductLine = forge.product === 'Turin' ? 'Milan' : 'Turin';
  const word = encodeTcb(forge.tcb, other);
  yield cases.case(
    'tcb-layout-of-another-line',
    `The four TCBs are laid out as on ${other}.`,
    { report: { fields: { current_tcb: word, reported_tcb: word, committed_tcb: word, launch_tcb: word } } },
    ['TCB_RESERVED_NOT_ZERO', 'TCB_MISMATCH'],
  );
}

const reserved = (offset: number) => (bytes: Uint8Array) => {
  bytes[offset] = 1;
};

function* reportCases(cases: Cases): Generator<VectorCase> {
  for (const version of [0, 1, 6, 7, 0xffffffff]) {
    yield cases.case(
      `report-version-${version}`,
      `VERSION is ${version}, properly signed.`,
      { report: { before: (bytes) => writeU32(bytes, 0, version) } },
      ['REPORT_VERSION_UNSUPPORTED'],
    );
  }
  for (const algorithm of [0, 2, 0xffffffff]) {
    yield cases.case(
      `report-signature-algo-${algorithm}`,
      `SIGNATURE_ALGO is ${algorithm} over a good ECDSA signature.`,
      { report: { before: (bytes) => writeU32(bytes, 0x34, algorithm) } },
      ['REPORT_SIGNATURE_ALGO_UNSUPPORTED'],
    );
  }
  for (const key of [2, 3, 4, 5, 6]) {
    yield cases.case(
      `report-signing-key-${key}`,
      `SIGNING_KEY is the reserved ${key}.`,
      { report: { before: (bytes) => writeU32(bytes, 0x48, key << 2) } },
      ['REPORT_SIGNING_KEY_UNSUPPORTED', 'CERT_KIND_MISMATCH'],
    );
  }
  yield cases.case(
    'report-unsigned',
    'SIGNING_KEY 7 and signature bytes of zero: what a host with MASK_CHIP_KEY gives.',
    {
      report: {
        before: (bytes) => writeU32(bytes, 0x48, (7 << 2) | 2),
        after: (bytes) => bytes.fill(0, 0x2a0),
      },
    },
    ['REPORT_UNSIGNED', 'SIGNATURE_OUT_OF_RANGE'],
  );
  for (const offset of [0x4c, 0x4f, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x1f8, 0x200, 0x208, 0x29f]) {
    yield cases.case(
      `report-reserved-${offset.toString(16)}`,
      `Reserved byte 0x${offset.toString(16)} of a version 3 report is 1, and signed.`,
      { report: { before: reserved(offset) } },
      ['REPORT_RESERVED_NOT_ZERO'],
    );
  }
  yield cases.case(
    'report-key-info-reserved',
    'A reserved bit of KEY_INFO is set, and signed.',
    { report: { before: (bytes) => writeU32(bytes, 0x48, 0x20) } },
    ['REPORT_RESERVED_NOT_ZERO'],
  );
  yield cases.case(
    'report-reserved-tail',
    'A byte after the signature is not zero.',
    { report: { after: reserved(0x330) } },
    ['REPORT_RESERVED_NOT_ZERO'],
  );
  yield cases.case(
    'report-v2-with-cpuid',
    'A version 2 report with CPUID bytes, which came with version 3.',
    { report: { version: 2, before: (bytes) => bytes.set([0x19, 0x01, 0x01], 0x188) } },
    ['REPORT_RESERVED_NOT_ZERO'],
  );
  yield cases.case(
    'report-v3-without-cpuid',
    'A version 3 report without CPUID bytes: its product line is unknown.',
    { report: { before: (bytes) => bytes.fill(0, 0x188, 0x18b) } },
    ['PRODUCT_UNKNOWN'],
  );
  yield cases.case(
    'report-v3-without-cpuid-told',
    'The same where the caller says which product line it is.',
    { report: { before: (bytes) => bytes.fill(0, 0x188, 0x18b) } },
    [],
    { product: 'Milan' },
  );
  yield cases.case(
    'report-policy-bit-17',
    'Reserved-one bit 17 of the guest policy is clear.',
    { report: { before: (bytes) => writeU64(bytes, 8, 0x10000n) } },
    ['REPORT_GUEST_POLICY_RESERVED'],
  );
  yield cases.case(
    'report-policy-bit-26',
    'Guest policy bit 26, which has no meaning, is set.',
    { report: { before: (bytes) => writeU64(bytes, 8, 0x4030000n) } },
    ['REPORT_GUEST_POLICY_RESERVED'],
  );
  yield cases.case(
    'report-debug',
    'The guest may be debugged by its host.',
    { report: { before: (bytes) => writeU64(bytes, 8, 0xb0000n) } },
    ['POLICY_BIT_FORBIDDEN'],
  );
  const higher = encodeTcb({ ...cases.forge.tcb, microcode: 220 }, 'Milan');
  for (const [field, what] of [
    ['launch_tcb', 'LAUNCH_TCB above CURRENT_TCB.'],
    ['committed_tcb', 'COMMITTED_TCB above CURRENT_TCB.'],
  ] as const satisfies readonly (readonly [keyof AttestationReportV5, string])[]) {
    yield cases.case(
      `report-${field.replace('_', '-')}-above-current`,
      what,
      { report: { fields: { [field]: higher } } },
      ['TCB_RELATION'],
    );
  }
  const good = cases.forge.report();
  yield cases.case('report-truncated', 'The last byte is missing.', { report: good.subarray(0, 1183) }, [
    'REPORT_LENGTH_MISMATCH',
  ]);
  yield cases.case('report-empty', 'No bytes at all.', { report: new Uint8Array(0) }, [
    'REPORT_LENGTH_MISMATCH',
  ]);
  for (const extra of [1, 16, 4096]) {
    yield cases.case(
      `report-trailing-${extra}`,
      `${extra} bytes after the report.`,
      { report: concat(good, new Uint8Array(extra)) },
      ['REPORT_LENGTH_MISMATCH'],
    );
  }
}

function* signatureCases(cases: Cases): Generator<VectorCase> {
  const good = cases.forge.report();
  const r = bigOf(good.subarray(0x2a0, 0x2d0));
  const s = bigOf(good.subarray(0x2e8, 0x318));
  const changed = (at: number, value: Uint8Array): Uint8Array => {
    const bytes = good.slice();
    bytes.set(value, at);
    return bytes;
  };
  for (const [part, at, own] of [
    ['r', 0x2a0, r],
    ['s', 0x2e8, s],
  ] as const) {
    for (const [label, value] of [
      ['0', 0n],
      ['n', N],
      ['n-plus-1', N + 1n],
      ['p', P],
      ['2-384-minus-1', (1n << 384n) - 1n],
    ] as const) {
      yield cases.case(
        `signature-${part}-${label}`,
        `${part} = ${label}.`,
        { report: changed(at, littleOf(value)) },
        ['SIGNATURE_OUT_OF_RANGE'],
      );
    }
    yield cases.case(
      `signature-${part}-plus-n`,
      `${part} + n in the 72 bytes there are: the same residue in another form.`,
      { report: changed(at, littleOf(own + N)) },
      own + N >= 1n << 384n ? ['SIGNATURE_PADDING_NOT_ZERO'] : ['SIGNATURE_OUT_OF_RANGE'],
    );
    yield cases.case(
      `signature-${part}-padding`,
      `A bit above the 48 bytes of ${part}.`,
      { report: changed(at + 0x47, Uint8Array.of(0x80)) },
      ['SIGNATURE_PADDING_NOT_ZERO'],
    );
  }
  yield cases.case(
    'signature-swapped',
    'r and s change places.',
    { report: changed(0x2a0, concat(littleOf(s), littleOf(r))) },
    ['SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'signature-big-endian',
    'r and s in the byte order of every other format.',
    {
      report: changed(
        0x2a0,
        concat(reversed(littleOf(r, 48)), new Uint8Array(24), reversed(littleOf(s, 48)), new Uint8Array(24)),
      ),
    },
    ['SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'signature-of-another-tcb',
    'Signed by the key of an older TCB than the one reported.',
    { report: { keyTcb: { ...cases.forge.tcb, snp: 23 } } },
    ['SIGNATURE_MISMATCH'],
  );
}

function* authorityCases(cases: Cases, forges: Readonly<Record<ProductLine, Forge>>): Generator<VectorCase> {
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
      'ask-name-constraints',
      'A critical extension of the ASK that nobody knows.',
      ask({ extensions: plus({ oid: '2.5.29.30', critical: true, value: fromHex('3000') }) }),
      ['CERT_EXTENSION_UNKNOWN'],
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
}

/** A point with the right form that is not on the curve. */
function offCurve(point: Uint8Array): Uint8Array {
  const wrong = point.slice();
  wrong[96]! ^= 1;
  return wrong;
}

function* leafCases(cases: Cases): Generator<VectorCase> {
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

/** What is wrong with the encoding is found before any signature; these are good ones, changed. */
function* derCases(cases: Cases): Generator<VectorCase> {
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

function* revocationCases(cases: Cases, forges: Readonly<Record<ProductLine, Forge>>): Generator<VectorCase> {
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
  );
  yield row(
    'leaf-revoked',
    'A list signed by the ASK, which has no right to, names the serial number of the leaf.',
    [good, forge.crl({ issuer: caName('Milan', 'ASK'), signer: forge.authorityKey('ASK'), revoked: [0] })],
    ['CERT_REVOKED'],
  );
  yield row(
    'ask-revoked-soft',
    'The ASK is revoked; lists are only wished for.',
    [forge.crl({ revoked: [askSerial] })],
    ['CERT_REVOKED'],
    { crl: 'if-present' },
  );
  yield row('missing-soft', 'No list; lists are only wished for.', [], [], { crl: 'if-present' });
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

function* tableCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  const { ask, ark } = forge.authority;
  const leaf = forge.leaf();
  const entries = [
    { guid: VCEK_GUID, data: leaf },
    { guid: ASK_GUID, data: ask },
    { guid: ARK_GUID, data: ark },
  ];
  const good = encodeCertificateTable(entries);
  const edited = (change: (table: Uint8Array) => void): Uint8Array => {
    const table = good.slice();
    change(table);
    return table;
  };
  const row = (
    title: string,
    what: string,
    table: Uint8Array,
    expected: readonly FindingCode[],
  ): VectorCase => cases.case(`table-${title}`, what, { table }, expected);
  yield row('good', 'VCEK, ASK and ARK.', good, []);
  yield row(
    'padded',
    'The same, padded to whole pages.',
    concat(good, new Uint8Array(-good.length & 0xfff)),
    [],
  );
  const invalid: readonly FindingCode[] = ['CERT_TABLE_INVALID'];
  yield row(
    'offset-wraps',
    'Offset 0xFFFFFFFE and length 3.',
    edited((t) => {
      writeU32(t, 16, 0xfffffffe);
      writeU32(t, 20, 3);
    }),
    invalid,
  );
  yield row(
    'offset-max',
    'Offset 0xFFFFFFFF and length 1.',
    edited((t) => {
      writeU32(t, 16, 0xffffffff);
      writeU32(t, 20, 1);
    }),
    invalid,
  );
  yield row(
    'offset-half',
    'Offset and length 0x80000000: their sum is 0 in 32 bits.',
    edited((t) => {
      writeU32(t, 16, 0x80000000);
      writeU32(t, 20, 0x80000000);
    }),
    invalid,
  );
  yield row(
    'into-header',
    'An entry that points into the header.',
    edited((t) => writeU32(t, 16, 24)),
    invalid,
  );
  yield row(
    'overlap',
    'Two entries with the same contents.',
    edited((t) => t.copyWithin(40, 16, 24)),
    invalid,
  );
  yield row('no-terminator', 'Cut off before the zero entry.', good.subarray(0, 72), invalid);
  yield row('empty', 'Only the zero entry.', new Uint8Array(24), ['LEAF_MISSING', 'INTERMEDIATE_MISSING']);
  yield row('no-bytes', 'No bytes.', new Uint8Array(0), ['LEAF_MISSING']);
  yield row('all-ff', 'Bytes of FF.', new Uint8Array(16384).fill(0xff), invalid);
  yield row(
    'guid-little-endian',
    'The GUIDs in EFI byte order: nothing is recognised.',
    edited((t) => {
      for (let i = 0; i < 72; i += 24) {
        t.subarray(i, i + 4).reverse();
        t.subarray(i + 4, i + 6).reverse();
        t.subarray(i + 6, i + 8).reverse();
      }
    }),
    ['LEAF_MISSING'],
  );
  yield row(
    'vcek-twice',
    'Two different certificates under the GUID of the VCEK.',
    rawTable([...entries, { guid: VCEK_GUID, data: forge.leaf('VCEK', { productName: 'Milan-B1' }) }]),
    invalid,
  );
  yield row(
    'vlek-in-vcek-slot',
    'A VLEK under the GUID of the VCEK.',
    encodeCertificateTable([
      { guid: VCEK_GUID, data: forge.leaf('VLEK') },
      { guid: ASK_GUID, data: forge.authority.asvk },
      { guid: ARK_GUID, data: ark },
    ]),
    ['CERT_SLOT_MISMATCH', 'CERT_KIND_MISMATCH'],
  );
  yield row(
    'ask-in-ark-slot',
    'ASK and ARK have changed places.',
    encodeCertificateTable([
      { guid: VCEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ark },
      { guid: ARK_GUID, data: ask },
    ]),
    ['CERT_SLOT_MISMATCH'],
  );
  yield row(
    'vcek-in-vlek-slot',
    'A VCEK under the GUID of the VLEK.',
    encodeCertificateTable([
      { guid: VLEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ask },
      { guid: ARK_GUID, data: ark },
    ]),
    ['CERT_SLOT_MISMATCH'],
  );
  yield row(
    'garbage-leaf',
    'Something that is no certificate under the GUID of the VCEK.',
    rawTable([{ guid: VCEK_GUID, data: utf8('not a certificate') }, ...entries.slice(1)]),
    ['CERT_MALFORMED', 'LEAF_MISSING'],
  );
  yield row('many-entries', 'A hundred thousand entries.', manyEntries(100_000), invalid);
}

/** A table of whatever entries, without the checks of an honest writer. */
function rawTable(entries: readonly { readonly guid: string; readonly data: Uint8Array }[]): Uint8Array {
  const header = new Uint8Array(24 * (entries.length + 1));
  let offset = header.length;
  entries.forEach(({ guid, data }, i) => {
    header.set(fromHex(guid.replaceAll('-', '')), 24 * i);
    writeU32(header, 24 * i + 16, offset);
    writeU32(header, 24 * i + 20, data.length);
    offset += data.length;
  });
  return concat(header, ...entries.map(({ data }) => data));
}

function manyEntries(count: number): Uint8Array {
  const table = new Uint8Array(24 * count + 24 + 1);
  const guid = fromHex(VCEK_GUID.replaceAll('-', ''));
  for (let i = 0; i < count; i++) {
    table.set(guid, 24 * i);
    writeU32(table, 24 * i + 16, table.length - 1);
    writeU32(table, 24 * i + 20, 1);
  }
  return table;
}

function* turinCases(cases: Cases): Generator<VectorCase> {
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
