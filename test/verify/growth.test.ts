// SPDX-License-Identifier: Apache-2.0
/**
 * Four times as much hostile input takes about four times as long, never sixteen times: every parser of the verifier on
 * the shapes that have made parsers quadratic. Times are the least of several, and the margin is wide; SOFTSNP_LONG=1
 * runs it, because a machine that is busy enough would fail it all the same.
 */
import { describe, expect, it } from 'vitest';
import { CRL_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { fromPem, toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable, readCertificateTable, validateBlob } from '../../src/certs/table.ts';
import { nested, tlv } from '../../src/cli/vectors/der.ts';
import { concat, fromBase64, fromHex, toHex, utf8 } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import { decodeDer } from '../../src/verify/der.ts';
import {
  explain,
  parsePolicy,
  readCertificateInput,
  readReportInput,
  VerifyCache,
} from '../../src/verify/index.ts';
import { decodeRevocationList } from '../../src/verify/x509.ts';
import { crypto, forge, judge, LONG, say } from './soft.ts';

const milan = forge('Milan');
const report = milan.report();
const leaf = milan.leaf();
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const trust = [ark];

/** Linear growth is 4, quadratic 16. */
const MOST = 12;
const RUNS = 5;
/** On a shared machine one round may be somebody else's; the least of all counts. */
const MAX_ROUNDS = 8;

/** Least processor time of several runs, in milliseconds; whatever comes of the input. */
function leastMs(work: () => unknown): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < RUNS; i++) {
    const before = process.cpuUsage();
    try {
      work();
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
    }
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

interface Shape {
  readonly name: string;
  /** The smaller size; in bytes where nothing else is said. */
  readonly size: number;
  readonly work: (size: number) => () => unknown;
}

const KIB = 1 << 10;
const MIB = 1 << 20;

const text = (name: string, make: (size: number) => string, size = 128 * KIB): Shape[] => [
  { name: `report input, ${name}`, size, work: (n) => on(utf8(make(n)), readReportInput) },
  { name: `certificate input, ${name}`, size, work: (n) => on(utf8(make(n)), readCertificateInput) },
];

function on<T>(input: T, work: (input: T) => unknown): () => unknown {
  return () => work(input);
}

const BEGIN = '-----BEGIN CERTIFICATE-----';
const END = '-----END CERTIFICATE-----';
const repeated = (unit: string, size: number): string => unit.repeat(Math.floor(size / unit.length));

const inputs: readonly Shape[] = [
  ...text('hexadecimal', (n) => '0'.repeat(n)),
  ...text('hexadecimal with a wrong end', (n) => `${'0'.repeat(n - 1)}g`),
  ...text('hexadecimal in lines', (n) => repeated('00\n', n)),
  ...text('base64', (n) => 'A'.repeat(n)),
  ...text('base64 with a wrong end', (n) => `${'A'.repeat(n - 1)}!`),
  ...text('base64 in lines of one', (n) => repeated('A\n', n)),
  ...text('base64 of padding', (n) => `A${'='.repeat(n - 1)}`),
  ...text('spaces', (n) => `${' '.repeat(n - 1)}x`),
  ...text('JSON, one long outblob', (n) => JSON.stringify({ outblob: 'A'.repeat(n) })),
  ...text('JSON, nested lists', (n) => `{"outblob":${'['.repeat(n)}`),
  ...text('JSON, many fields', (n) => `{${repeated('"a":1,', n)}"b":1}`),
  ...text('base64 of base64', (n) => Buffer.from('A'.repeat(n)).toString('base64')),
  ...text('PEM, one block', (n) => `${BEGIN}${'A'.repeat(n)}${END}`),
  ...text('PEM, many blocks', (n) => repeated(`${BEGIN}AAAA${END}`, n)),
  ...text('PEM, blocks without an end', (n) => repeated(BEGIN, n)),
  ...text('PEM, ends without a block', (n) => BEGIN + repeated(END, n)),
  ...text('PEM, dashes', (n) => '-'.repeat(n)),
  {
    name: 'fromPem, many blocks',
    size: 128 * KIB,
    work: (n) => on(repeated(`${BEGIN}AAAA${END}`, n), (t) => fromPem(t)),
  },
  { name: 'fromPem, begins', size: MIB, work: (n) => on(repeated(BEGIN, n), (t) => fromPem(t)) },
  {
    name: 'fromPem, wanted of another kind',
    size: MIB,
    work: (n) => on(repeated(BEGIN, n), (t) => fromPem(t, 'X509 CRL')),
  },
  { name: 'fromBase64', size: MIB, work: (n) => on('A'.repeat(n), fromBase64) },
  { name: 'fromHex', size: MIB, work: (n) => on('0'.repeat(n), (t) => fromHex(t)) },
];

const inTable = (data: Uint8Array, guid = VCEK_GUID): Uint8Array => encodeCertificateTable([{ guid, data }]);

const tables: readonly Shape[] = (
  [
    ['zeros', (n) => new Uint8Array(n)],
    ['bytes of FF', (n) => new Uint8Array(n).fill(0xff)],
    ['one entry of zeros', (n) => inTable(new Uint8Array(n))],
    ['one entry of dashes', (n) => inTable(new Uint8Array(n).fill(0x2d))],
    ['one entry of PEM', (n) => inTable(utf8(`${BEGIN}${'A'.repeat(n)}${END}`))],
    ['many blocks in one entry', (n) => inTable(utf8(repeated(toPem(leaf), n)))],
    ['one list', (n) => inTable(tlv(0x30, new Uint8Array(n).fill(5)), CRL_GUID)],
  ] as const satisfies readonly (readonly [string, (size: number) => Uint8Array])[]
).flatMap(([name, make]) => [
  { name: `table, ${name}`, size: MIB, work: (n) => on(make(n), readCertificateTable) },
  { name: `blob, ${name}`, size: MIB, work: (n) => on(make(n), validateBlob) },
  {
    name: `table as evidence, ${name}`,
    size: MIB,
    work: (n) => on(make(n), (table) => judge({ report, table }, { trust, cache: new VerifyCache() })),
  },
]);

const limits = { what: 'document', maxBytes: 1 << 28, maxNodes: 1 << 28 };
const filledWith = (unit: Uint8Array, size: number): Uint8Array => {
  const out = new Uint8Array(Math.floor(size / unit.length) * unit.length);
  for (let at = 0; at < out.length; at += unit.length) {
    out.set(unit, at);
  }
  return out;
};

const der: readonly Shape[] = (
  [
    ['empty sequences', (n) => tlv(0x30, filledWith(fromHex('3000'), n))],
    ['deep sequences', (n) => tlv(0x30, filledWith(nested(15), n))],
    ['a set of equal elements', (n) => tlv(0x31, filledWith(tlv(0x04, new Uint8Array(100)), n))],
    ['sets of sets', (n) => tlv(0x31, filledWith(tlv(0x31, filledWith(fromHex('0500'), 64)), n))],
    ['one long string', (n) => tlv(0x0c, new Uint8Array(n).fill(0x61))],
    [
      'one long PrintableString with a wrong end',
      (n) => tlv(0x13, concat(new Uint8Array(n).fill(0x61), utf8('@'))),
    ],
    ['one long INTEGER', (n) => tlv(0x02, new Uint8Array(n).fill(1))],
    ['one long OBJECT IDENTIFIER', (n) => tlv(0x06, new Uint8Array(n).fill(1))],
    ['many times', (n) => tlv(0x30, filledWith(tlv(0x17, utf8('260101000000Z')), n))],
  ] as const satisfies readonly (readonly [string, (size: number) => Uint8Array])[]
).map(([name, make]) => ({
  name: `DER, ${name}`,
  // Four times this is the largest document that is read.
  size: 16 * KIB,
  work: (n) => on(make(n), (bytes) => decodeDer(bytes, limits)),
}));

const evidence: readonly Shape[] = [
  {
    name: 'revocation list, entries',
    size: 670,
    work: (n) => on(milan.crl({ entries: n }), decodeRevocationList),
  },
  {
    name: 'revocation list as evidence, entries',
    size: 670,
    work: (n) =>
      on(milan.crl({ entries: n }), (crl) =>
        judge(
          { report, certificates: [leaf, ask, ark], crls: [crl] },
          { trust, crl: 'require', cache: new VerifyCache() },
        ),
      ),
  },
  {
    name: 'certificate as evidence, extensions',
    size: 25,
    work: (n) => {
      const extra = Array.from({ length: n }, (_, i) => ({ oid: `1.2.3.${i}`, value: new Uint8Array(2) }));
      const many = milan.leaf('VCEK', { extensions: (own) => [...own, ...extra] });
      return () => judge({ report, certificates: [many, ask, ark] }, { trust, cache: new VerifyCache() });
    },
  },
  {
    name: 'certificates as evidence, number',
    size: 5000,
    work: (n) => {
      const certificates = Array.from({ length: n }, (_, i) => Uint8Array.of(i >> 8, i));
      return () => judge({ report, certificates }, { trust, cache: new VerifyCache() });
    },
  },
  {
    name: 'report as evidence',
    size: MIB,
    work: (n) =>
      on(new Uint8Array(n), (bytes) => judge({ report: bytes, certificates: [leaf, ask, ark] }, { trust })),
  },
  {
    name: 'causes of a long report',
    size: 256 * KIB,
    work: (n) => {
      const given = { report: utf8('A'.repeat(n)), table: new Uint8Array(n).fill(0xff) };
      const result = judge(given, { trust });
      return () => explain(given, result, crypto);
    },
  },
];

const chip = (i: number): string => toHex(Uint8Array.of(i >> 24, i >> 16, i >> 8, i)).padStart(128, '0');
const distinct = (n: number): string[] => Array.from({ length: n }, (_, i) => chip(i));

const policies: readonly Shape[] = (
  [
    ['a list within the limit', 1000, (n) => ({ allowed_chips: distinct(n) })],
    ['a list beyond the limit', 20_000, (n) => ({ allowed_chips: distinct(n) })],
    ['a list with a wrong end', 20_000, (n) => ({ allowed_chips: [...distinct(n), 'x'] })],
    ['unknown fields', 20_000, (n) => Object.fromEntries(Array.from({ length: n }, (_, i) => [`f${i}`, 1]))],
    ['fields that are lists', 20_000, (n) => ({ measurement: Array.from({ length: n }, () => []) })],
    ['lists in lists', 1000, (n) => ({ measurement: JSON.parse('['.repeat(n) + ']'.repeat(n)) as unknown })],
    ['long digits', MIB, (n) => ({ measurement: '0'.repeat(n) })],
    ['a long word', MIB, (n) => ({ launch_mit_vector: `0x${'0'.repeat(n)}` })],
    ['a long version', MIB, (n) => ({ minimum_firmware: { version: '1'.repeat(n) } })],
    ['a long wish', MIB, (n) => ({ id_block: 'a'.repeat(n) })],
    ['a long name', MIB, (n) => ({ allowed_csps: 'a'.repeat(n) })],
  ] as const satisfies readonly (readonly [string, number, (size: number) => unknown])[]
).map(([name, size, make]) => ({ name: `policy, ${name}`, size, work: (n) => on(make(n), parsePolicy) }));

const judgedPolicy: Shape = {
  name: 'policy, judged with a list within the limit',
  size: 1000,
  work: (n) => {
    const policy = parsePolicy({ allowed_chips: distinct(n), distrust: { chips: distinct(n) } });
    const cache = new VerifyCache();
    return () => judge({ report, certificates: [leaf, ask, ark] }, { trust, policy, cache });
  },
};

describe.skipIf(!LONG)('time does not grow faster than the input', () => {
  it.each([...inputs, ...tables, ...der, ...evidence, ...policies, judgedPolicy])(
    '$name',
    ({ name, size, work }) => {
      const [small, large] = [work(size), work(4 * size)] as const;
      let [smallMs, largeMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      // What takes no time at all may vary by any factor.
      const isTooMuch = (): boolean => largeMs > MOST * Math.max(smallMs, 0.2);
      for (let round = 0; round < 2 || (round < MAX_ROUNDS && isTooMuch()); round++) {
        smallMs = Math.min(smallMs, leastMs(small));
        largeMs = Math.min(largeMs, leastMs(large));
      }
      say(`${name}: ${smallMs.toFixed(3)} ms, four times as much ${largeMs.toFixed(3)} ms`);
      expect(isTooMuch(), `${smallMs} and ${largeMs} ms`).toBe(false);
    },
  );
});
