// SPDX-License-Identifier: Apache-2.0
/** The C client of test/devices against a whole host: what it sees there is what Linux shows. */
import { execFile, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeCertificateTable, encodeCertificateTable } from '../../src/certs/table.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import { controlRequest } from '../../src/service/control-client.ts';
import { comparable, SEV_ANSWERS, SEV_GUEST_ANSWERS, tsmAnswers } from '../devices/client-answers.ts';
import { folderOf, identities, isRoot, Process, removeFolder, root } from './softsnp.ts';

const LONG = process.env['SOFTSNP_LONG'] === '1';
const HEADERS = '#include <linux/sev-guest.h>\n#include <linux/psp-sev.h>\n';
const obstacle = !isRoot
  ? 'needs root'
  : spawnSync('cc', ['-xc', '-fsyntax-only', '-'], { input: HEADERS }).status !== 0
    ? 'cc or the kernel headers are missing'
    : identities[0]!.obstacle;
if (obstacle !== null) {
  process.stderr.write(`SKIPPED: the C client against a whole host: ${obstacle}\n`);
}

const GUESTS = [{ name: 'edges' }, { name: 'tsm' }, { name: 'grow' }, { name: 'kept', certs: 'kept.blob' }];
const FILLER_GUID = '736f6674-736e-7020-7061-6464696e6721';

describe.skipIf(obstacle !== null)('a C client of softsnp up', () => {
  let folder: string;
  let running: Process;
  beforeAll(async () => {
    folder = folderOf(identities[0]!);
    const source = join(root, 'test', 'devices', 'client.c');
    expect(spawnSync('cc', ['-O1', '-pthread', '-o', join(folder, 'client'), source]).status).toBe(0);
    writeFileSync(join(folder, 'guests.json'), JSON.stringify(GUESTS));
    writeFileSync(join(folder, 'kept.blob'), encodeCertificateTable([]));
    const options = ['--state', 'state', '--devices', 'devices', '--guests', 'guests.json'];
    running = new Process(['up', ...options], folder);
    await running.says('softsnp ready');
  }, 60_000);
  afterAll(async () => {
    running.child.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    removeFolder(folder);
  });

  const run = async (what: string, guest: string, ...path: string[]): Promise<string[]> => {
    const device = join(folder, 'devices', ...(guest === '' ? ['host'] : ['guests', guest]), ...path);
    const { stdout } = await promisify(execFile)(join(folder, 'client'), [what, device]);
    return stdout.split('\n').slice(0, -1);
  };
  const grow = (guest: string) => run('grow', guest, 'dev', 'sev-guest');
  const spoil = (rule: string, guest: string) =>
    controlRequest(join(folder, 'state', 'control.sock'), 'POST', '/v1/faults', { rule, guest });

  it('meets the edge cases of /dev/sev-guest as on Linux', async () => {
    const lines = await run('sev-guest', 'edges', 'dev', 'sev-guest');
    expect(comparable(lines)).toEqual(SEV_GUEST_ANSWERS);
  });

  it('meets the edge cases of /dev/sev as on Linux', async () => {
    expect(await run('sev', '', 'dev', 'sev')).toEqual(SEV_ANSWERS);
  });

  it('meets the edge cases of configfs-tsm as on Linux', async () => {
    const { size } = statSync(join(folder, 'state', 'blobs', 'tsm.blob'));
    expect(await run('tsm', 'tsm', 'sys', 'kernel', 'config')).toEqual(tsmAnswers(size));
  });

  it('is told each time how much it takes while the table grows under it', async () => {
    await spoil('certs=grow:4096*1', 'grow');
    await spoil('certs=grow:8192*1', 'grow');
    expect(await grow('grow')).toEqual([
      '0x0: 0x3000 needed',
      '0x3000: 0x4000 needed',
      '0x4000: enough, last byte 0x0',
    ]);
  });

  it.skipIf(!LONG)('waits for a program that rewrites the blob of a guest, then gets all of it', async () => {
    const path = join(folder, 'kept.blob');
    expect(await grow('kept')).toEqual(['0x0: 0x1000 needed', '0x1000: enough, last byte 0x0']);
    const data = new Uint8Array(0x2100);
    const table = encodeCertificateTable([
      ...decodeCertificateTable(readFileSync(path)),
      { guid: FILLER_GUID, data },
    ]);
    const fd = openSync(path, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    const asking = grow('kept');
    // The driver has met the lock when this request is under way, and tries again two seconds later.
    await expect
      .poll(async () => {
        const status = (await controlRequest(join(folder, 'state', 'control.sock'), 'GET', '/v1/status')) as {
          guests: { name: string; requests: { waiting: number } }[];
        };
        return status.guests.find(({ name }) => name === 'kept')!.requests.waiting;
      })
      .toBe(1);
    writeSync(fd, table, 0, table.length, 0);
    closeSync(fd);
    expect(await asking).toEqual(['0x0: 0x3000 needed', '0x3000: enough, last byte 0x0']);
  });
});
