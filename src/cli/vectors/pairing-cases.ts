// SPDX-License-Identifier: Apache-2.0
/** What must be accepted, and what is right by itself and wrong together: lines, chips, TCBs, kinds of key. */
import { PRODUCT_LINES, type ProductLine } from '../../abi/product.ts';
import { encodeTcb, type TcbParts, tcbComponents } from '../../abi/tcb-version.ts';
import { writeU32 } from '../../lib/bytes.ts';
import { bigOf, type Cases, littleOf, N, type VectorCase } from './case.ts';
import { ecSpki, type Forge } from './forge.ts';
import { SIGNINGS } from './signing.ts';

export function* acceptedCases(cases: Cases): Generator<VectorCase> {
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
    { report: { fields: { chip_id: new Uint8Array(64) } }, warnings: ['CHIP_ID_MASKED'] },
    [],
  );
  yield cases.case(
    'good-negated-s',
    '(r, n - s) is as valid a signature as (r, s); the report is the same report.',
    { report: { after: (bytes) => bytes.set(littleOf(N - bigOf(bytes.subarray(0x2e8, 0x318))), 0x2e8) } },
    [],
  );
}

export function* pairingCases(
  cases: Cases,
  forges: Readonly<Record<ProductLine, Forge>>,
): Generator<VectorCase> {
  const { forge } = cases;
  for (const kind of ['VCEK', 'VLEK'] as const) {
    yield* lineCases(cases, forges, kind);
  }
  yield cases.case(
    'asvk-for-ask',
    'The ASVK in place of the ASK of a VCEK.',
    { intermediates: [forge.authority.asvk] },
    ['INTERMEDIATE_MISSING'],
  );
  yield cases.case(
    'ask-for-asvk',
    'The ASK in place of the ASVK of a VLEK.',
    { kind: 'VLEK', intermediates: [forge.authority.ask] },
    ['INTERMEDIATE_MISSING'],
  );
  yield cases.case(
    'vlek-for-vcek-report',
    'The report was signed by a VCEK, the certificate is a VLEK.',
    { leafKind: 'VLEK' },
    ['CERT_KIND_MISMATCH', 'SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'vcek-for-vlek-report',
    'The report was signed by a VLEK, the certificate is a VCEK.',
    { kind: 'VLEK', leafKind: 'VCEK', warnings: ['CHIP_ID_MASKED'] },
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
    'vcek-claimed-as-vlek',
    'A VCEK signed a report that says a VLEK did.',
    { report: { before: (bytes) => writeU32(bytes, 0x48, 1 << 2) } },
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

/** Every mixture of the three lines in report, leaf, intermediate and root. */
function* lineCases(
  cases: Cases,
  forges: Readonly<Record<ProductLine, Forge>>,
  kind: 'VCEK' | 'VLEK',
): Generator<VectorCase> {
  const { forge } = cases;
  const isVcek = kind === 'VCEK';
  const prefix = isVcek ? '' : 'vlek-';
  const issuer = isVcek ? 'ASK' : 'ASVK';
  const others = PRODUCT_LINES.filter((product) => product !== forge.product);
  const intermediateOf = (product: ProductLine): Uint8Array => {
    const { ask, asvk } = forges[product].authority;
    return isVcek ? ask : asvk;
  };
  const rootOf = (product: ProductLine): Uint8Array => forges[product].authority.ark;
  const trust = PRODUCT_LINES.map(rootOf);
  for (const other of others) {
    const named = other.toLowerCase();
    yield cases.case(
      `${prefix}leaf-of-${named}`,
      `Leaf and chain of ${other} beside a report of ${forge.product}.`,
      {
        kind,
        leaf: forges[other].leaf(kind),
        intermediates: [intermediateOf(other)],
        roots: [rootOf(other)],
      },
      [
        'PRODUCT_MISMATCH',
        // Of the lines only Turin has a first component, and no chip is named beside a VLEK.
        ...(forge.product === 'Turin' ? (['TCB_MISMATCH'] as const) : []),
        ...(isVcek ? (['CHIP_ID_MISMATCH'] as const) : []),
        'SIGNATURE_MISMATCH',
      ],
      { trust },
    );
    yield cases.case(
      `${prefix}${issuer.toLowerCase()}-of-${named}`,
      `The ${issuer} of ${other} in place of the leaf's issuer.`,
      { kind, intermediates: [intermediateOf(other)] },
      ['INTERMEDIATE_MISSING'],
      { trust },
    );
    yield cases.case(
      `${prefix}ark-of-${named}`,
      `The ARK of ${other} in place of the root.`,
      { kind, roots: [rootOf(other)] },
      ['ROOT_MISSING'],
      { trust: [rootOf(other)] },
    );
    yield cases.case(
      `${prefix}ark-of-${named}-in-evidence`,
      `The ARK of ${other} came with the evidence, the right one is trusted and therefore found.`,
      { kind, roots: [rootOf(other)] },
      [],
    );
    yield cases.case(
      `${prefix}chain-of-${named}`,
      `${issuer} and ARK of ${other} above the right leaf.`,
      { kind, intermediates: [intermediateOf(other)], roots: [rootOf(other)] },
      ['INTERMEDIATE_MISSING', 'ROOT_MISSING'],
      { trust: [rootOf(other)] },
    );
    const third = others.find((product) => product !== other)!;
    yield cases.case(
      `${prefix}${issuer.toLowerCase()}-of-${named}-ark-of-${third.toLowerCase()}`,
      `Leaf of ${forge.product}, ${issuer} of ${other}, ARK of ${third}: three lines in one chain.`,
      { kind, intermediates: [intermediateOf(other)], roots: [rootOf(third)] },
      ['INTERMEDIATE_MISSING', 'ROOT_MISSING'],
      { trust: [rootOf(third)] },
    );
  }
}

export function* tcbCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  for (const kind of ['VCEK', 'VLEK'] as const) {
    for (const component of tcbComponents(forge.product)) {
      for (const step of [-1, 1]) {
        const tcb: TcbParts = { ...forge.tcb, [component]: forge.tcb[component] + step };
        yield cases.case(
          `${kind === 'VCEK' ? '' : 'vlek-'}tcb-${component.replace('_', '-')}-${step < 0 ? 'below' : 'above'}`,
          `The ${kind} is for a ${component} one ${step < 0 ? 'below' : 'above'} that of REPORTED_TCB.`,
          // The report's own key, so that nothing but the extension tells.
          { kind, leaf: { tcb, spki: ecSpki(forge.key(kind).publicPoint) } },
          ['TCB_MISMATCH'],
        );
      }
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
