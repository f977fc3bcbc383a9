// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ARK_GUID,
  ASK_GUID,
  CertTableEntry,
  guidBytes,
  VCEK_GUID,
  VLEK_GUID,
  ZERO_GUID,
} from '../abi/cert-table.ts';
import { concat, isZero } from '../lib/bytes.ts';
import {
  type CertTableFault,
  decodeCertificateTable,
  encodeCertificateTable,
  readCertificateTable,
  tableNpages,
  tableSize,
  toPem,
  validateBlob,
} from './index.ts';

const UNKNOWN_GUID = '00112233-4455-6677-8899-aabbccddeeff';
const ENTRY = 24;

/** SEQUENCE of a given content length, filled with one byte. */
function der(length: number, fill = 0): Uint8Array {
  const head = length < 128 ? [0x30, length] : [0x30, 0x82, length >> 8, length & 0xff];
  return concat(Uint8Array.from(head), new Uint8Array(length).fill(fill));
}

interface Row {
  readonly guid: string;
  readonly offset: number;
  readonly length: number;
}

/** A table with whatever header one likes. */
function rawTable(rows: readonly Row[], size: number, terminated = true): Uint8Array {
  const table = new Uint8Array(Math.max(size, (rows.length + (terminated ? 1 : 0)) * ENTRY)).fill(0xa5);
  rows.forEach(({ guid, offset, length }, i) => {
    table.set(CertTableEntry.encode({ guid: guidBytes(guid), offset, length }), i * ENTRY);
  });
  if (terminated) {
    table.fill(0, rows.length * ENTRY, (rows.length + 1) * ENTRY);
  }
  return table;
}

function faultOf(table: Uint8Array): CertTableFault | null {
  const reading = readCertificateTable(table);
  return 'fault' in reading ? reading.fault : null;
}

const vcek = (offset: number, length: number): Row => ({ guid: VCEK_GUID, offset, length });
const ask = (offset: number, length: number): Row => ({ guid: ASK_GUID, offset, length });

describe('a certificate table', () => {
  it('has entries, a zero entry and then the contents, packed', () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: der(1356) }]);
    expect(table.length).toBe(0x30 + 1360);
    expect([...table.subarray(0, 24)]).toEqual([
      0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd, 0x30, 0,
      0, 0, 0x50, 0x05, 0, 0,
    ]);
    expect(isZero(table.subarray(24, 48))).toBe(true);
    expect(table[0x30]).toBe(0x30);
    expect(tableNpages(table)).toBe(1);
  });

  it('of a VCEK, an ASK and an ARK needs two pages', () => {
    const table = encodeCertificateTable([
      { guid: VCEK_GUID, data: der(1356) },
      { guid: ASK_GUID, data: der(1673) },
      { guid: ARK_GUID, data: der(1635) },
    ]);
    expect(tableSize(table)).toBe(4772);
    expect(tableNpages(table)).toBe(2);
  });

  it('of no entries is 24 zero bytes and needs one page', () => {
    expect(encodeCertificateTable([])).toEqual(new Uint8Array(24));
    expect(decodeCertificateTable(new Uint8Array(24))).toEqual([]);
    expect(tableNpages(new Uint8Array(24))).toBe(1);
  });

  it('needs no page for the padding after its last contents', () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: der(100) }]);
    const padded = new Uint8Array(4 * 4096);
    padded.set(table);
    expect(tableSize(padded)).toBe(table.length);
    expect(tableNpages(padded)).toBe(1);
  });

  it('comes back from its bytes, entries with unknown GUIDs included', () => {
    const contents = fc.uint8Array({ minLength: 1, maxLength: 200 });
    const guids = fc.shuffledSubarray([VCEK_GUID, VLEK_GUID, ASK_GUID, ARK_GUID, UNKNOWN_GUID]);
    fc.assert(
      fc.property(guids, fc.array(contents, { minLength: 5, maxLength: 5 }), (some, data) => {
        const entries = some.map((guid, i) => ({ guid, data: data[i]! }));
        const decoded = decodeCertificateTable(encodeCertificateTable(entries));
        expect(decoded.map(({ guid, data }) => ({ guid, data }))).toEqual(entries);
      }),
    );
  });

  it('gives contents that do not change when the buffer they came from does', () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: Uint8Array.of(1, 2, 3) }]);
    const [entry] = decodeCertificateTable(table);
    table.fill(0xff);
    expect(entry!.data).toEqual(Uint8Array.of(1, 2, 3));
  });

  it('may repeat a known GUID with the same contents, and an unknown one with any', () => {
    const same = { guid: VCEK_GUID, data: der(3) };
    expect(faultOf(encodeCertificateTable([same, same]))).toBeNull();
    const unknown = [1, 2].map((byte) => ({ guid: UNKNOWN_GUID, data: Uint8Array.of(byte) }));
    expect(faultOf(encodeCertificateTable(unknown))).toBeNull();
  });

  it('keeps a GUID in little-endian order as an unknown one', () => {
    const swapped = '8d75da63-64e6-6445-adc5-f4b93be8accd';
    const [entry] = decodeCertificateTable(encodeCertificateTable([{ guid: swapped, data: der(3) }]));
    expect(entry!.guid).toBe(swapped);
  });
});

describe('a hostile certificate table is refused', () => {
  const cases: readonly [string, CertTableFault, Uint8Array][] = [
    ['offset + length wraps, 0xFFFFFFFE + 3', 'TABLE_RANGE', rawTable([vcek(0xfffffffe, 3)], 4096)],
    ['offset + length wraps, 0xFFFFFFFF + 1', 'TABLE_RANGE', rawTable([vcek(0xffffffff, 1)], 4096)],
    [
      'offset + length wraps, 0x80000000 twice',
      'TABLE_RANGE',
      rawTable([vcek(0x80000000, 0x80000000)], 4096),
    ],
    ['contents end one byte after the table', 'TABLE_RANGE', rawTable([vcek(48, 4096 - 48 + 1)], 4096)],
    ['contents start at the end of the table', 'TABLE_RANGE', rawTable([vcek(4096, 1)], 4096)],
    ['contents of no length', 'TABLE_RANGE', rawTable([vcek(48, 0)], 4096)],
    ['contents in the first entry', 'TABLE_OVERLAP', rawTable([vcek(0, 100)], 4096)],
    ['contents in the zero entry', 'TABLE_OVERLAP', rawTable([vcek(47, 100)], 4096)],
    ['contents that overlap by a byte', 'TABLE_OVERLAP', rawTable([vcek(172, 100), ask(73, 100)], 4096)],
    ['contents inside other contents', 'TABLE_OVERLAP', rawTable([vcek(72, 1000), ask(500, 10)], 4096)],
    [
      'every entry the whole of 10 MiB',
      'TABLE_OVERLAP',
      rawTable(
        Array.from({ length: 16 }, () => vcek(17 * ENTRY, 10 * 2 ** 20 - 17 * ENTRY)),
        10 * 2 ** 20,
      ),
    ],
    [
      '17 entries',
      'TABLE_ENTRIES',
      rawTable(
        Array.from({ length: 17 }, (_, i) => vcek(18 * ENTRY + i, 1)),
        4096,
      ),
    ],
    ['10^5 entries', 'TABLE_ENTRIES', rawTable(Array<Row>(100_000).fill(vcek(48, 1)), 0)],
    ['no terminator', 'TABLE_UNTERMINATED', rawTable([vcek(24, 1)], 25, false)],
    ['a zero GUID with an offset', 'TABLE_TERMINATOR', rawTable([{ ...vcek(48, 9), guid: ZERO_GUID }], 99)],
    ['all ones', 'TABLE_ENTRIES', new Uint8Array(16384).fill(0xff)],
    ['0 bytes', 'TABLE_UNTERMINATED', new Uint8Array(0)],
    ['23 bytes', 'TABLE_UNTERMINATED', new Uint8Array(23)],
  ];

  it.each(cases)('with %s: %s', (_, expected, table) => {
    expect(faultOf(table)).toBe(expected);
    expect(() => decodeCertificateTable(table)).toThrow(expected);
    expect(validateBlob(table)).toMatch(expected);
  });

  it('with different contents under one known GUID: TABLE_DUPLICATE', () => {
    const entries = [1, 2].map((fill) => ({ guid: VCEK_GUID, data: der(9, fill) }));
    expect(() => encodeCertificateTable(entries)).toThrow('TABLE_DUPLICATE: two different entries for VCEK');
  });

  it('and 24 zero bytes with another byte after them are an empty one', () => {
    expect(decodeCertificateTable(Uint8Array.from([...new Array(24).fill(0), 1]))).toEqual([]);
  });

  it('or read, without an exception and within its own bytes, whatever the bytes are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const reading = readCertificateTable(bytes);
        if ('entries' in reading) {
          const taken = reading.entries.reduce((sum, { data }) => sum + data.length, 0);
          expect(taken).toBeLessThanOrEqual(bytes.length);
        }
        validateBlob(bytes);
      }),
      { numRuns: 500 },
    );
  });

  it('or read the same, after any mutation of a good one', () => {
    const good = encodeCertificateTable([
      { guid: VCEK_GUID, data: der(40) },
      { guid: ASK_GUID, data: new TextEncoder().encode(toPem(der(50))) },
    ]);
    const values = fc.constantFrom(0, 1, 0x30, 0x48, 0x7f, 0x80, 0xff);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), values), { maxLength: 8 }), (changes) => {
        const table = good.slice();
        for (const [at, value] of changes) {
          table[at] = value;
        }
        const reading = readCertificateTable(table);
        for (const { offset, length, data } of 'entries' in reading ? reading.entries : []) {
          expect(data).toEqual(table.slice(offset, offset + length));
        }
        validateBlob(table);
      }),
      { numRuns: 500 },
    );
  });

  it('in time that does not grow faster than its size', () => {
    const hostile = [
      new TextEncoder().encode('-----BEGIN CERTIFICATE-----'.repeat(40_000)),
      new TextEncoder().encode('-----BEGIN CERTIFICATE----------END CERTIFICATE-----'.repeat(20_000)),
      new TextEncoder().encode(`-----BEGIN CERTIFICATE-----${'A'.repeat(2 ** 24)}-----END CERTIFICATE-----`),
      new Uint8Array(2 ** 20).fill(0x30),
    ];
    for (const data of hostile) {
      const table = encodeCertificateTable([{ guid: VCEK_GUID, data }]);
      const start = performance.now();
      expect(validateBlob(table)).not.toBeNull();
      expect(performance.now() - start).toBeLessThan(250);
    }
  });
});

describe('a certificate blob', () => {
  const blob = (data: Uint8Array, guid = VCEK_GUID): Uint8Array => encodeCertificateTable([{ guid, data }]);

  it('may hold its certificates in DER or in PEM', () => {
    expect(validateBlob(blob(der(1000)))).toBeNull();
    expect(validateBlob(blob(new TextEncoder().encode(toPem(der(1000)))))).toBeNull();
  });

  it('is malformed when a certificate is cut short or padded', () => {
    expect(validateBlob(blob(der(1000).subarray(0, 900)))).toContain('entry 0 (VCEK)');
    expect(validateBlob(blob(concat(der(1000), Uint8Array.of(0))))).toContain('neither one DER structure');
    const pem = new TextEncoder().encode(toPem(der(1000)));
    expect(validateBlob(blob(pem.subarray(0, 900)))).toContain('has no end');
  });

  it('may hold anything under a GUID it does not know', () => {
    expect(validateBlob(blob(Uint8Array.of(1, 2, 3), UNKNOWN_GUID))).toBeNull();
  });
});

describe('an encoder refuses', () => {
  it.each(['', VCEK_GUID.toUpperCase(), `${VCEK_GUID}0`, VCEK_GUID.replaceAll('-', '')])(
    'the GUID %j',
    (guid) => {
      expect(() => encodeCertificateTable([{ guid, data: der(3) }])).toThrow('no lower-case GUID');
    },
  );

  it('the zero GUID, contents of no length, and more than 16 entries', () => {
    expect(() => encodeCertificateTable([{ guid: ZERO_GUID, data: der(3) }])).toThrow('TABLE_TERMINATOR');
    expect(() => encodeCertificateTable([{ guid: VCEK_GUID, data: new Uint8Array(0) }])).toThrow(
      'TABLE_RANGE',
    );
    const many = Array.from({ length: 17 }, () => ({ guid: UNKNOWN_GUID, data: der(3) }));
    expect(() => encodeCertificateTable(many)).toThrow('TABLE_ENTRIES');
  });
});

const vectors = fileURLToPath(new URL('../../../shared/vectors/', import.meta.url));
const haveVectors = existsSync(vectors);
if (!haveVectors) {
  console.warn(`SKIPPED: genuine certificate tables are not at ${vectors}`);
}

describe.skipIf(!haveVectors)('the tables real hosts hand out', () => {
  const file = (name: string): Uint8Array => Uint8Array.from(readFileSync(`${vectors}${name}`));

  it.each(['veraison-services/certtable-8b0cc4a09022.bin', 'veraison-services/certtable-9e37aaf8f7b7.bin'])(
    'hold an ARK, an ASK and a VCEK in PEM: %s',
    (name) => {
      const table = file(name);
      const entries = decodeCertificateTable(table);
      expect(entries.map(({ guid, offset }) => [guid, offset])).toEqual([
        [ARK_GUID, 96],
        [ASK_GUID, 2373],
        [VCEK_GUID, 4698],
      ]);
      expect(encodeCertificateTable(entries)).toEqual(table);
      expect(tableNpages(table)).toBe(2);
      expect(validateBlob(table)).toBeNull();
    },
  );

  it('hold one VLEK in DER at AWS', () => {
    const table = file('computed/aws-certtable-reconstructed.bin');
    const entries = decodeCertificateTable(table);
    expect(entries.map(({ guid, offset, length }) => [guid, offset, length])).toEqual([
      [VLEK_GUID, 0x30, 0x530],
    ]);
    expect(encodeCertificateTable(entries)).toEqual(table);
    expect(validateBlob(table)).toBeNull();
  });
});
