// SPDX-License-Identifier: Apache-2.0
/** The commands of docs/howto/locks.md, run as they stand there. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = mkdtempSync(join(tmpdir(), 'softsnp-locks-'));
afterAll(() => rmSync(folder, { recursive: true }));

const havePython = spawnSync('python3', ['--version']).status === 0;
if (!havePython) {
  console.warn('SKIPPED: python3 is not installed');
}

it.skipIf(!havePython)(
  'a guest is refused twice while Python has the lock, and the third try succeeds',
  () => {
    const page = readFileSync(join(root, 'docs/howto/locks.md'), 'utf8');
    const [, script] = /^```sh\n(.*?)^```/ms.exec(page)!;
    const bin = `'${process.execPath}' '${join(root, 'bin', 'softsnp.js')}'`;
    const { status, stdout } = spawnSync('bash', ['-c', script!.replaceAll('npx softsnp', bin)], {
      cwd: folder,
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    const [, told] = stdout.split('locked for 5 seconds\n');
    const steps = [...told!.matchAll(/^ {2}3 req-certs +(.*)$/gm)].map(([, decided]) => decided);
    // A machine that takes two seconds to start softsnp tries once less.
    expect([2, 3]).toContain(steps.length);
    const busy = 'the blob is being changed: try again';
    expect(steps.slice(0, -1)).toEqual(steps.slice(0, -1).map(() => busy));
    expect(steps.at(-1)).toMatch(/^locked, read and written/);
    expect(page).toMatch(/The first two tries,[^.]*are refused; at the third/);
  },
);
