// SPDX-License-Identifier: Apache-2.0
/** Reports that are wrong in one respect, and signed; signatures that are wrong in theirs. */
import type { AttestationReportV5 } from '../../abi/attestation-report.ts';
import { PRODUCT_LINES, type ProductLine } from '../../abi/product.ts';
import { encodeTcb } from '../../abi/tcb-version.ts';
import { concat, reversed, writeU32, writeU64 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import { bigOf, type Cases, littleOf, N, P, type VectorCase } from './case.ts';
import { CPUID_OF } from './forge.ts';

const reserved = (offset: number) => (bytes: Uint8Array) => {
  bytes[offset] = 1;
};

/** What else shows when a TCB is read in the layout of another line. */
function foreignLayout(own: ProductLine, other: ProductLine): readonly FindingCode[] {
  return (own === 'Turin') === (other === 'Turin') ? [] : ['TCB_RESERVED_NOT_ZERO', 'TCB_MISMATCH'];
}

export function* reportCases(cases: Cases): Generator<VectorCase> {
  const { product } = cases.forge;
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
    ['REPORT_UNSIGNED', 'CERT_KIND_MISMATCH', 'SIGNATURE_OUT_OF_RANGE', 'SIGNATURE_MISMATCH'],
  );
  yield cases.case(
    'report-signing-key-7',
    'SIGNING_KEY 7, no key, over a good signature.',
    { report: { before: (bytes) => writeU32(bytes, 0x48, 7 << 2) } },
    ['REPORT_UNSIGNED', 'CERT_KIND_MISMATCH'],
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
    { report: { version: 2, before: (bytes) => bytes.set(CPUID_OF[product], 0x188) } },
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
    { product },
  );
  yield cases.case(
    'report-policy-bit-17',
    'Reserved-one bit 17 of the guest policy is clear.',
    { report: { before: (bytes) => writeU64(bytes, 8, 0x10000n) } },
    ['REPORT_GUEST_POLICY_RESERVED'],
  );
  for (const bit of [26, 31, 32, 47, 63]) {
    yield cases.case(
      `report-policy-bit-${bit}`,
      `Guest policy bit ${bit}, which has no meaning, is set.`,
      { report: { before: (bytes) => writeU64(bytes, 8, 0x30000n | (1n << BigInt(bit))) } },
      ['REPORT_GUEST_POLICY_RESERVED'],
    );
  }
  for (const bit of [8, 63]) {
    yield cases.case(
      `report-platform-info-bit-${bit}`,
      `PLATFORM_INFO bit ${bit}, which no firmware has set yet: not refused, but said.`,
      {
        report: { before: (bytes) => writeU64(bytes, 0x40, 1n << BigInt(bit)) },
        warnings: ['REPORT_PLATFORM_INFO_UNKNOWN'],
      },
      [],
    );
  }
  for (const [family, model] of [
    [0x17, 0x31],
    [0x19, 0x21],
    [0x1a, 0x50],
    [0xff, 0xff],
  ] as const) {
    yield cases.case(
      `report-cpu-${family.toString(16)}-${model.toString(16)}`,
      `CPUID family 0x${family.toString(16)}, model 0x${model.toString(16)}: a part of no known line.`,
      { report: { before: (bytes) => bytes.set([family, model, 0], 0x188) } },
      ['PRODUCT_UNKNOWN'],
    );
  }
  for (const other of PRODUCT_LINES.filter((line) => line !== product)) {
    yield cases.case(
      `report-cpu-of-${other.toLowerCase()}`,
      `CPUID bytes of ${other} in a report of ${product}.`,
      { report: { before: (bytes) => bytes.set(CPUID_OF[other], 0x188) } },
      ['PRODUCT_MISMATCH', ...foreignLayout(product, other)],
    );
    for (const version of [2, 3] as const) {
      yield cases.case(
        `report-v${version}-told-${other.toLowerCase()}`,
        `The caller says that the version ${version} report is of ${other}.`,
        { report: { version } },
        ['PRODUCT_MISMATCH', ...(version === 2 ? foreignLayout(product, other) : [])],
        { product: other },
      );
    }
  }
  yield cases.case(
    'report-debug',
    'The guest may be debugged by its host.',
    { report: { before: (bytes) => writeU64(bytes, 8, 0xb0000n) } },
    ['POLICY_BIT_FORBIDDEN'],
  );
  const higher = encodeTcb({ ...cases.forge.tcb, microcode: 220 }, product);
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
  yield cases.case(
    'report-committed-version-above-current',
    'Committed firmware of a higher build than the current one.',
    { report: { fields: { committed_build: 255 } } },
    ['FIRMWARE_RELATION'],
  );
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

export function* signatureCases(cases: Cases): Generator<VectorCase> {
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
        ['SIGNATURE_OUT_OF_RANGE', 'SIGNATURE_MISMATCH'],
      );
    }
    yield cases.case(
      `signature-${part}-plus-n`,
      `${part} + n in the 72 bytes there are: the same residue in another form.`,
      { report: changed(at, littleOf(own + N)) },
      [own + N >= 1n << 384n ? 'SIGNATURE_PADDING_NOT_ZERO' : 'SIGNATURE_OUT_OF_RANGE', 'SIGNATURE_MISMATCH'],
    );
    yield cases.case(
      `signature-${part}-padding`,
      `A bit above the 48 bytes of ${part}.`,
      { report: changed(at + 0x47, Uint8Array.of(0x80)) },
      ['SIGNATURE_PADDING_NOT_ZERO'],
    );
  }
  for (const [label, value] of [
    ['0', 0n],
    ['n', N],
  ] as const) {
    yield cases.case(
      `signature-both-${label}`,
      `r and s = ${label}.`,
      { report: changed(0x2a0, concat(littleOf(value), littleOf(value))) },
      ['SIGNATURE_OUT_OF_RANGE', 'SIGNATURE_MISMATCH'],
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
