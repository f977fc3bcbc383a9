// SPDX-License-Identifier: Apache-2.0
/** The verbs of softsnp ctl against a host, and what they leave there. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ctlCommand } from '../../src/cli/ctl.ts';
import { runCli } from '../../src/cli/run.ts';
import { type ControlServer, startControlServer } from '../../src/service/control-server.ts';
import type { LoggedEvent } from '../../src/service/event-log.ts';
import { askExtReport, judge } from './service-host.ts';
import { type SnapshotHost, snapshotHost } from './snapshot-host.ts';

let host: SnapshotHost;
let server: ControlServer;

beforeEach(async () => {
  host = snapshotHost();
  await host.launch('a');
  server = await startControlServer({
    control: host.control,
    path: join(host.folder, 'control.sock'),
    onFault: (error) => expect.fail(String(error)),
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await server.close();
  await host.close();
});

async function ctl(...argv: string[]): Promise<string> {
  let stdout = '';
  let stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text);
    return true;
  });
  const code = await runCli(ctlCommand, [...argv, '--state', host.folder], '0', {
    stdout: () => undefined,
    stderr: (text) => {
      stderr += text;
    },
  });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout;
}

const json = async (...argv: string[]): Promise<unknown> => JSON.parse(await ctl(...argv, '--json'));
const reportOf = async (name: string) => judge(await askExtReport(host.guest(name)));

describe('softsnp ctl', () => {
  it('config set changes what the next report says, and config reset takes it back', async () => {
    expect(await ctl('config', 'set', '--reported-tcb', '3,0,23,200', '--mask-chip-id', 'on')).toBe(
      'current 4,0,24,219\ncommitted 4,0,24,219\nreported 3,0,23,200\n',
    );
    expect((await reportOf('a'))!.tcb).toBe(0xc817000000000003n);
    expect(await json('status')).toMatchObject({ mask_chip_id: true, tcb: { reported: '3,0,23,200' } });
    expect(await json('config', 'reset')).toMatchObject({ reported: '4,0,24,219' });
    expect((await reportOf('a'))!.tcb).toBe(0xdb18000000000004n);
  });

  it('tcb --set and commit install other firmware', async () => {
    await ctl('tcb', '--set', '5,0,25,220', '--firmware', '1.55.40');
    expect(await json('tcb')).toMatchObject({ current: '5,0,25,220', committed: '4,0,24,219' });
    expect(await json('commit')).toMatchObject({ committed: '5,0,25,220', reported: '5,0,25,220' });
    expect((await reportOf('a'))!.tcb).toBe(0xdc19000000000005n);
  });

  it('vlek load takes the provider’s hash stick or one in a file, and vlek remove takes it away', async () => {
    expect(await ctl('vlek', 'load')).toBe('signing_key VLEK\n');
    expect((await reportOf('a'))!.key).toBe('VLEK');
    expect(await ctl('vlek', 'remove')).toBe('signing_key VCEK\n');
    const { keys, reportedTcb } = host.service.host;
    const file = join(host.folder, 'stick.bin');
    writeFileSync(file, keys.wrappedHashstick(reportedTcb));
    expect(await json('vlek', 'load', '--file', file)).toEqual({ signing_key: 'VLEK' });
  });

  it('fault add spoils what it names until fault clear', async () => {
    await ctl('fault', 'add', 'vcek=500*2');
    expect(await ctl('fault', 'add', 'certs=grow:4096', '--guest', 'a')).toBe(
      'vcek=500*2\ncerts=grow:4096 --guest a\n',
    );
    expect((await askExtReport(host.guest('a'), 0, 0x2000)).exitinfo2).toBe(0x1_0000_0000n);
    expect(await json('fault', 'list')).toHaveLength(2);
    expect(await ctl('fault', 'clear')).toBe('no faults\n');
    expect((await askExtReport(host.guest('a'), 0, 0x2000)).ret).toBe(0);
  });

  it('guest add launches one, and guest remove ends it', async () => {
    const text = await ctl('guest', 'add', 'b', '--smp', '2', '--host-data', 'c0', '--key', 'vcek');
    expect(text).toMatch(/^name b\nkey vcek\nvcpus 2\nmeasurement [0-9a-f]{96}\n/);
    expect(host.guest('b').spec.words).toMatchObject({ smp: '2', 'host-data': 'c0' });
    expect(await ctl('guest', 'remove', 'b')).toBe('guest b removed\n');
    expect([...host.service.guests.keys()]).toEqual(['a']);
  });

  it('events prints what was, one document a line', async () => {
    await ctl('commit');
    await ctl('vlek', 'load');
    const events = (await ctl('events'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as LoggedEvent);
    expect(events.map(({ n }) => n)).toEqual(events.map((_, i) => i + 1));
    expect(events.at(-1)).toMatchObject({ type: 'platform', command: 'SNP_VLEK_LOAD', key: 'VLEK' });
  });
});
