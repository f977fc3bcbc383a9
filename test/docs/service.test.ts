// SPDX-License-Identifier: Apache-2.0
/** docs/howto/service.md: its unit is one that systemd takes, its guests and places are those of softsnp. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { guestSpecOf, guestsOption } from '../../src/cli/guest-specs.ts';
import { checkedArguments } from '../../src/cli/run.ts';
import { upCommand } from '../../src/cli/up.ts';
import { nodeCrypto } from '../../src/os/node-crypto.ts';
import { serviceHost } from '../service/service-host.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const page = readFileSync(join(root, 'docs', 'howto', 'service.md'), 'utf8');
const block = (language: string): string =>
  new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'ms').exec(page)![1]!;
const unit = block('ini');

const folder = mkdtempSync(join(tmpdir(), 'softsnp-unit-'));
afterAll(() => rmSync(folder, { recursive: true }));

const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0;
if (!hasSystemd) {
  process.stderr.write('SKIPPED: the unit of docs/howto/service.md: systemd-analyze is missing\n');
}

describe('the page on softsnp as a service', () => {
  it.skipIf(!hasSystemd)('has a unit that systemd takes', () => {
    const path = join(folder, 'softsnp.service');
    writeFileSync(path, unit.replace('/usr/bin/softsnp', process.execPath));
    const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', path], {
      encoding: 'utf8',
    });
    expect({ status, said: `${stdout}${stderr}`.split('\n').filter((line) => line.includes(path)) }).toEqual({
      ...{ status: 0, said: [] },
    });
  });

  it('starts softsnp with options that it has', () => {
    const [program, verb, ...options] = /^ExecStart=(.*)$/m.exec(unit)![1]!.split(' ');
    expect([program, verb]).toEqual(['/usr/bin/softsnp', 'up']);
    expect(() => checkedArguments(upCommand.args as never, options, 'up', { operands: false })).not.toThrow();
  });

  it('has guests that can be launched', () => {
    const path = join(folder, 'guests.json');
    writeFileSync(path, block('json'));
    const crypto = nodeCrypto({ deterministic: false });
    const specs = guestsOption(path).map((guest) => guestSpecOf(crypto, guest, {}));
    expect(specs.map(({ name, key }) => [name, key])).toEqual([
      ['web', 'auto'],
      ['db', 'vlek'],
    ]);
  });

  it('names every place that host and guest have', async () => {
    const host = serviceHost();
    const { door } = await host.add('a');
    const places = [...Object.keys(host.service.hostPlaces), ...Object.keys(door.places)];
    await host.close();
    expect(places.filter((place) => !page.includes(`\`${place}\``))).toEqual([]);
  });
});
