// SPDX-License-Identifier: Apache-2.0
/** "-" is standard input wherever a file is read, in processes as a shell starts them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import { forge } from './soft.ts';
import { typed } from './typed.ts';

const bin = fileURLToPath(new URL('../../bin/softsnp.js', import.meta.url));
const milan = forge('Milan');
const report = milan.report();
const folder = mkdtempSync(join(tmpdir(), 'softsnp-stdin-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const file = (name: string, data: Uint8Array | string): string => {
  writeFileSync(join(folder, name), data);
  return join(folder, name);
};
const reportPath = file('report.bin', report);
const pem = [milan.leaf(), ...milan.chain()].map((der) => toPem(der)).join('');

function piped(words: readonly string[], input: Uint8Array | string) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...words], {
    input,
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

describe('"-"', () => {
  it('is the report, and is named as what it is', () => {
    const words = ['verify', 'report', '-', '--no-crl', '--trust', 'softsnp', '--at', '2026-06-30'];
    const { code, out } = piped([...words, '--certs', file('certs.pem', pem)], report);
    expect([code, out]).toEqual([0, expect.stringMatching(/^ACCEPTED\n/)]);
  });

  it('is the certificates, in causes too', () => {
    const words = ['verify', 'report', reportPath, '--no-crl', '--certs', '-'];
    const { code, out } = piped(words, '<html>404</html>');
    expect([code, out]).toEqual([2, expect.stringContaining('standard input is an HTML or XML page')]);
  });

  it('is what measure compares with', () => {
    const digest = 'a'.repeat(96);
    const words = ['measure', 'snp', '--ovmf', 'default', '--vcpus', '1', '--against', '-', '--json'];
    const { code, out } = piped(words, `\ufeff${digest}\n`);
    expect([code, JSON.parse(out)]).toEqual([2, { measurement: digest, as_given: false, fits: [] }]);
  });

  it('is an ID block, and read up to a limit', () => {
    expect(piped(['idblock', 'show', '-'], new Uint8Array(96)).out).toContain('launch_digest');
    const { code, err } = piped(['idblock', 'show', '-'], new Uint8Array(2 ** 16 + 1));
    expect([code, err]).toEqual([1, expect.stringContaining('standard input has more than 65536 bytes')]);
  });

  it('is refused twice in one command', async () => {
    for (const words of [
      ['verify', 'report', '-', '--certs', '-'],
      ['verify', 'report', reportPath, '--certs=-', '--crl', '-'],
    ]) {
      const { code, err } = await typed(words);
      expect([code, err]).toEqual([
        1,
        expect.stringContaining('standard input ("-") can be given once only'),
      ]);
    }
  });
});
