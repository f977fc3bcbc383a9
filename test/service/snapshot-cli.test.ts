// SPDX-License-Identifier: Apache-2.0
/** softsnp ctl snapshot: files, exit codes and what is printed. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ctlCommand } from '../../src/cli/ctl.ts';
import { runCli, type Verb } from '../../src/cli/run.ts';
import { type ControlServer, startControlServer } from '../../src/service/control-server.ts';
import { askExtReport } from './service-host.ts';
import { type SnapshotHost, seen, snapshotHost } from './snapshot-host.ts';

let host: SnapshotHost;
let server: ControlServer;
const at = (name: string): string => join(host.folder, name);

beforeEach(async () => {
  host = snapshotHost();
  await host.launch('a');
  server = await startControlServer({
    control: host.control,
    path: at('control.sock'),
    onFault: (error) => expect.fail(String(error)),
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await server.close();
  await host.close();
});

const root: Verb = { subCommands: { ctl: ctlCommand } };

async function ctl(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ['', ''];
  const take = (text: unknown): true => {
    stdout += String(text);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(take);
  const code = await runCli(root, ['ctl', 'snapshot', ...argv], '0', {
    stdout: take,
    stderr: (text) => {
      stderr += text;
    },
  });
  vi.restoreAllMocks();
  return { code, stdout, stderr };
}

const save = (file: string, ...more: string[]) => ctl('save', at(file), '--state', host.folder, ...more);
const restore = (file: string, ...more: string[]) =>
  ctl('restore', at(file), '--state', host.folder, ...more);

describe('softsnp ctl snapshot', () => {
  it('saves to a file for its owner alone, says so, and restores from it', async () => {
    const answer = await save('x.json', '--json');
    expect(answer).toMatchObject({ code: 0, stderr: '' });
    const { size, mode } = statSync(at('x.json'));
    expect(JSON.parse(answer.stdout)).toEqual({ file: at('x.json'), bytes: size, guests: ['a'] });
    expect(mode & 0o777).toBe(0o600);
    const before = await seen(host);
    await host.control.config({ mask_chip_id: true });
    const restored = await restore('x.json', '--json');
    expect(restored).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(restored.stdout)).toEqual(host.control.status());
    expect(await seen(host)).toEqual(before);
    expect((await restore('x.json')).stdout).toMatch(/^guests\.a\.key auto$/m);
    expect((await save('x.json')).stdout).toBe(`file ${at('x.json')}\nbytes ${size}\nguests a\n`);
  });

  it('replaces an earlier snapshot and an empty file, links followed, and nothing else', async () => {
    writeFileSync(at('empty'), '');
    symlinkSync('empty', at('link'));
    expect((await save('link')).code).toBe(0);
    expect(readFileSync(at('empty'), 'utf8')).toMatch(/^\{\n {2}"softsnp_snapshot": 1,/);
    expect((await save('empty')).code).toBe(0);
    writeFileSync(at('other'), 'precious');
    mkdirSync(at('folder'));
    for (const name of ['other', 'folder', 'control.sock']) {
      const { code, stderr } = await save(name);
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(/no snapshot \[OPTION_INVALID\]/),
      });
    }
    expect(readFileSync(at('other'), 'utf8')).toBe('precious');
    expect(await save('nowhere/x')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/\[FILE_UNWRITABLE\]/),
    });
    expect(readdirSync(host.folder).filter((name) => name.includes('.new'))).toEqual([]);
  });

  it('refuses files that are cut short, too large, damaged or not there, and changes nothing', async () => {
    await save('x.json');
    const before = await seen(host);
    const text = readFileSync(at('x.json'), 'utf8');
    const is = async (expected: RegExp): Promise<void> => {
      const { code, stderr } = await restore('x.json');
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(expected) });
    };
    truncateSync(at('x.json'), 1000);
    await is(/not a whole JSON document \[SNAPSHOT_INVALID\]/);
    writeFileSync(at('x.json'), text.replace('"vmrk": "', '"vmrk": "0'));
    await is(/guests\.0\.context\.vmrk: .*\[SNAPSHOT_INVALID\]/);
    writeFileSync(at('x.json'), text.replace('"requests_served": 0', '"requests_served": 1'));
    await is(/mac: .*\[SNAPSHOT_INVALID\]/);
    writeFileSync(at('x.json'), JSON.stringify({ softsnp_snapshot: 1, more: 'x'.repeat(17 << 20) }));
    await is(/more than 16777216 \[SNAPSHOT_INVALID\]/);
    truncateSync(at('x.json'), 40 << 20);
    await is(/more than 33554432 bytes \[OPTION_INVALID\]/);
    expect((await restore('none')).stderr).toMatch(/\[FILE_UNREADABLE\]/);
    expect(await seen(host)).toEqual(before);
  });

  it('ends with 3 when the host cannot save now, and writes nothing', async () => {
    host.control.addFault({ rule: 'certs=busy*8' });
    const asking = askExtReport(host.guest('a'));
    await new Promise(setImmediate);
    const { code, stderr } = await save('x.json');
    expect({ code, stderr }).toEqual({ code: 3, stderr: expect.stringMatching(/\[SNAPSHOT_UNAVAILABLE\]/) });
    expect(readdirSync(host.folder)).not.toContain('x.json');
    expect((await asking).ret).toBe(0);
  });

  it('explains itself', async () => {
    expect((await ctl('--help')).stdout).toMatch(/save.*\n?.*restore/s);
    expect((await ctl('save', '--help')).stdout).toMatch(/FILE.*--state.*--json/s);
    expect((await ctl('restore', '--help')).stdout).toMatch(/all of it or nothing/);
    expect((await ctl('save')).code).toBe(1);
  });
});
