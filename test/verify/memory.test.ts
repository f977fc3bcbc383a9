// SPDX-License-Identifier: Apache-2.0
/** What a hostile table costs in memory: less than twice its size, whatever is in it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../../src/abi/cert-table.ts';
import { toPem } from '../../src/certs/pem.ts';
import { concat, fromHex, utf8, writeU32 } from '../../src/lib/bytes.ts';
import { AT_MS, forge, LONG, say } from './soft.ts';

const milan = forge('Milan');
const leaf = milan.leaf();
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];

/** A process takes memory in pieces of some megabytes, which hides what is smaller. */
const NOISE_BYTES = 2 << 20;

const UNKNOWN_GUID = '00112233-4455-6677-8899-aabbccddeeff';
const GUIDS = [VCEK_GUID, ASK_GUID, ARK_GUID, VLEK_GUID, CRL_GUID, UNKNOWN_GUID];

/** A table of this size with entries wherever one wants them. */
function tableOf(size: number, rows: readonly (readonly [guid: string, offset: number, length: number])[]) {
  const table = new Uint8Array(size);
  for (const [i, [guid, offset, length]] of rows.entries()) {
    table.set(fromHex(guid.replaceAll('-', '')), 24 * i);
    writeU32(table, 24 * i + 16, offset);
    writeU32(table, 24 * i + 20, length);
  }
  return table;
}

/** One entry that fills the table with this repeated. */
function filled(
  size: number,
  guid: string,
  head: Uint8Array,
  unit: Uint8Array,
  tail: Uint8Array,
): Uint8Array {
  const table = tableOf(size, [[guid, 48, size - 48]]);
  table.set(head, 48);
  for (let at = 48 + head.length; at + unit.length <= size - tail.length; at += unit.length) {
    table.set(unit, at);
  }
  table.set(tail, size - tail.length);
  return table;
}

/** Header of a DER SEQUENCE that reaches to the end of the table. */
const derHead = (size: number): Uint8Array => {
  const length = size - 48 - 5;
  return Uint8Array.of(0x30, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff);
};

const NONE = new Uint8Array(0);
const BEGIN = utf8('-----BEGIN CERTIFICATE-----\n');
const END = utf8('\n-----END CERTIFICATE-----\n');

const SHAPES: readonly (readonly [name: string, blob: (size: number) => Uint8Array])[] = [
  [
    'sixteen entries, each the whole table',
    (size) =>
      tableOf(
        size,
        Array.from({ length: 16 }, (_, i) => [GUIDS[i % 6]!, 17 * 24, size - 17 * 24] as const),
      ),
  ],
  ['one VCEK of zeros', (size) => filled(size, VCEK_GUID, NONE, Uint8Array.of(0), NONE)],
  ['one entry nobody knows', (size) => filled(size, UNKNOWN_GUID, NONE, Uint8Array.of(1), NONE)],
  ['one block of PEM', (size) => filled(size, VCEK_GUID, BEGIN, utf8('AAAA'), END)],
  ['many blocks of PEM', (size) => filled(size, VCEK_GUID, NONE, utf8(toPem(leaf)), NONE)],
  [
    'many small blocks of PEM',
    (size) => filled(size, VCEK_GUID, NONE, concat(BEGIN, utf8('MAAA'), END), NONE),
  ],
  ['one certificate in DER', (size) => filled(size, VCEK_GUID, derHead(size), Uint8Array.of(5, 0), NONE)],
  ['one revocation list in DER', (size) => filled(size, CRL_GUID, derHead(size), Uint8Array.of(5, 0), NONE)],
];

const SIZES = LONG ? [8 << 10, 64 << 10, 1 << 20, 10 << 20] : [10 << 20];

describe.skipIf(!existsSync('/proc/self/clear_refs'))('a hostile table', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-memory-'));
  const probe = join(folder, 'probe.mjs');

  beforeAll(async () => {
    const input = fileURLToPath(new URL('memory-probe.ts', import.meta.url));
    const bundle = await rolldown({ input, platform: 'node' });
    await bundle.write({ file: probe, format: 'es' });
    await bundle.close();
    const small = filled(4096, VCEK_GUID, BEGIN, utf8('AAAA'), END);
    for (const [name, bytes] of Object.entries({ report: milan.report(), leaf, ask, ark, small })) {
      writeFileSync(join(folder, name), bytes);
    }
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  it.each(SIZES.flatMap((size) => SHAPES.map(([name, blob]) => ({ size, name, blob }))))(
    'of $size bytes takes less than twice that: $name',
    ({ size, name, blob }) => {
      writeFileSync(join(folder, 'blob'), blob(size));
      const args = ['--expose-gc', probe, folder, 'blob', String(AT_MS)];
      const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      expect(stderr).toBe('');
      const { codes, extraBytes } = JSON.parse(stdout) as { codes: string[]; extraBytes: number };
      say(`${size} bytes, ${name}: ${extraBytes} bytes more, ${codes.join() || 'accepted'}`);
      expect(extraBytes).toBeLessThan(2 * size + NOISE_BYTES);
    },
  );
});
