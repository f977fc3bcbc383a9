// SPDX-License-Identifier: Apache-2.0
/** What must be accepted, and what is right by itself and wrong together: lines, chips, TCBs, kinds of key. */
import { PRODUCT_LINES, type ProductLine } from '../../abi/product.ts';
import { encodeTcb, type TcbParts, tcbComponents } from '../../abi/tcb-version.ts';
import { writeU32 } from '../../lib/bytes.ts';
import { bigOf, type Cases, littleOf, N, type VectorCase } from './case.ts';
import { ecSpki, type Forge, SIGNINGS } from './forge.ts';

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

export function* pairingCases(
  cases: Cases,
  forges: Readonly<Record<ProductLine, Forge>>,
): Generator<VectorCase> {
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
  for (const other of PRODUCT_LINES.filter((product) => product !== forge.product)) {
    const theirs = forges[other].authority;
    yield cases.case(
      `chain-of-${other.toLowerCase()}`,
      `ASK and ARK of ${other} above the right leaf.`,
      { intermediates: [theirs.ask], roots: [theirs.ark] },
      ['INTERMEDIATE_MISSING', 'ROOT_MISSING'],
      { trust: [theirs.ark] },
    );
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

export function* tcbCases(cases: Cases): Generator<VectorCase> {
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
