// SPDX-License-Identifier: Apache-2.0
/** Bundled and run in a process of its own: what one table costs the verifier in memory at its worst. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { VerifyCache, verifyEvidence } from '../../src/verify/index.ts';

const [folder, blob, atMs] = process.argv.slice(2) as [string, string, string];
const read = (name: string): Uint8Array => readFileSync(join(folder, name));
const report = read('report');
const certificates = ['leaf', 'ask', 'ark'].map(read);
const crypto = nodeVerifyCrypto();

function judge(table: Uint8Array) {
  const options = { atMs: Number(atMs), crl: 'if-present', trust: [certificates[2]!], crypto } as const;
  return verifyEvidence({ report, table, certificates }, { ...options, cache: new VerifyCache() });
}

// What is loaded and compiled at first use is no cost of this table.
for (let i = 0; i < 5; i++) {
  judge(read('small'));
}
const table = read(blob);
(globalThis as { gc?: () => void }).gc!();
// The high-water mark of getrusage is that of whoever started this process; the kernel's own can be set back.
writeFileSync('/proc/self/clear_refs', '5');
const before = kilobytesOf('VmRSS');
const { findings } = judge(table);
const extraBytes = (kilobytesOf('VmHWM') - before) * 1024;
const codes = findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);
process.stdout.write(JSON.stringify({ codes, extraBytes }));

function kilobytesOf(field: string): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(status)![1]);
}
