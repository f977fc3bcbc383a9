// SPDX-License-Identifier: Apache-2.0
/** A host with guests of a file, as programs outside meet it: devices, key service, control socket. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ASK_GUID, VCEK_GUID, VLEK_GUID } from '../../src/abi/cert-table.ts';
import { decodeCertificateTable } from '../../src/certs/table.ts';
import type { HostStatus } from '../../src/service/host-control.ts';
import { folderOf, identities, isRoot, LONG, ORDINARY, Process, removeFolder, softsnp } from './softsnp.ts';

const GUESTS = [
  { name: 'a', key: 'vcek', smp: 2 },
  { name: 'b', key: 'vlek', 'host-data': 'c0ffee' },
];

describe.skipIf(!LONG || !isRoot || identities[0]!.obstacle !== null)('softsnp up --guests FILE', () => {
  let folder: string;
  let running: Process;
  beforeAll(async () => {
    folder = folderOf(identities[0]!);
    writeFileSync(join(folder, 'guests.json'), JSON.stringify(GUESTS));
    const options = ['--state', 'state', '--devices', 'devices', '--guests', 'guests.json'];
    running = new Process(['up', ...options], folder);
    await running.says('softsnp ready');
  }, 60_000);
  afterAll(async () => {
    running.child.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    removeFolder(folder);
  });

  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await softsnp(args, folder);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const ctl = (...args: string[]): Promise<string> => run('ctl', ...args, '--state', 'state', '--json');

  it('launches the guests that the file describes', async () => {
    const { guests, signing_key } = JSON.parse(await ctl('status')) as HostStatus;
    expect(signing_key).toBe('VLEK');
    expect(guests.map(({ name, key, vcpus, certs_for }) => [name, key, vcpus, certs_for])).toEqual([
      ['a', 'vcek', 2, 'VCEK'],
      ['b', 'vlek', 1, 'VLEK'],
    ]);
    expect(guests[0]!.measurement).not.toBe(guests[1]!.measurement);
  });

  /** Evidence of a guest by its device, which softsnp verify accepts; the kinds of its certificates. */
  const attested = async (name: string, key: string): Promise<readonly string[]> => {
    const evidence = join(folder, `${name}-evidence`);
    mkdirSync(evidence, { recursive: true });
    const device = join(folder, 'devices', 'guests', name, 'dev', 'sev-guest');
    const [report, table] = ['report.bin', 'certs.bin'].map((file) => join(evidence, file));
    const files = ['--out', report!, '--certs', table!];
    await run('guest', 'ext-report', '--device', device, '--key', key, '--random', ...files);
    const options = ['--certs', table!, '--no-crl', '--trust', 'softsnp'];
    expect(await run('verify', 'report', report!, ...options)).toMatch(/^ACCEPTED/m);
    return decodeCertificateTable(readFileSync(table!)).map(({ guid }) => guid);
  };

  it('gives each guest evidence by its own key, before and after the key changes', async () => {
    for (const change of [
      [],
      ['commit'],
      ['config', 'set', '--reported-tcb', '3,0,23,200'],
      ['vlek', 'load'],
    ]) {
      if (change.length > 0) {
        await ctl(...change);
      }
      const [vcek, vlek] = [await attested('a', 'vcek'), await attested('b', 'vlek')];
      expect(vcek).toContain(VCEK_GUID);
      expect(vcek).toContain(ASK_GUID);
      expect(vlek).toContain(VLEK_GUID);
      expect(vlek).not.toContain(VCEK_GUID);
      expect(await attested('b', 'any')).toEqual(vlek);
    }
  });

  it('lets a command be one of them, with its key service and the faults of the host', async () => {
    const script = `
      $SOFTSNP guest report --key vcek --out report.bin > report.txt
      for i in 1 2 3; do
        $SOFTSNP kds fetch crl --product Milan --kds https://kdsintf.amd.com --trust softsnp --deadline 5 --cache none > /dev/null 2>&1
        echo $?
      done`;
    const exec = ['exec', '--state', 'state', '--guest', 'a', '--kds-intercept', '--', 'sh', '-c', script];
    expect(await run(...exec)).toBe('0\n0\n0\n');
    await ctl('fault', 'add', 'crl=404*1');
    expect(await run(...exec)).toBe('3\n0\n0\n');
    expect(await ctl('fault', 'list')).toBe('[]\n');
    expect(existsSync(join(folder, 'report.bin'))).toBe(true);
  });

  it('is nobody else’s to ask', async () => {
    const { code, stderr } = await softsnp(
      ['ctl', 'status', '--state', join(folder, 'state')],
      '/',
      ORDINARY,
    );
    expect({ code, stderr }).toEqual({ code: 3, stderr: expect.stringContaining('[CONTROL_DENIED]') });
  });
});
