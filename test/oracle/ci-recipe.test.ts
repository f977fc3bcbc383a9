// SPDX-License-Identifier: Apache-2.0
/** docs/howto/ci.md does what it says: its commands are run as they stand there. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bin, folderOf, identities, mountsBelow, removeFolder } from '../service/softsnp.ts';
import { root, run, tool } from './tools.ts';

const snpguest = tool('cargo/bin/snpguest', 'the CI recipe');
const page = readFileSync(join(root, 'docs', 'howto', 'ci.md'), 'utf8');
const [first = '', second = ''] = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1]!);

/** The steps of the page's workflow that run something. */
const yaml = /^```yaml\n(jobs:.*?)^```$/ms.exec(page)![1]!;
const steps = [...yaml.matchAll(/^ +(?:- )?run: (?:\|\n((?: {10}.*\n)+)|(.*)\n)/gm)].map(
  ([, lines, line]) => lines ?? line!,
);

/**
 * Runs commands of the page with `npx softsnp` and snpguest on the path, and the page's files in place.
 *
 * `told` are programs that a runner has and this machine need not: what they are asked for is written down.
 */
function runPage(commands: string, identity: (typeof identities)[number], told: readonly string[] = []) {
  const folder = folderOf(identity);
  const tools = join(folder, 'tools');
  const files = join(folder, 'docs', 'howto', 'ci');
  mkdirSync(tools);
  mkdirSync(files, { recursive: true });
  copyFileSync(snpguest!, join(tools, 'snpguest'));
  copyFileSync(join(root, 'docs', 'howto', 'ci', 'attestation-test.sh'), join(files, 'attestation-test.sh'));
  writeFileSync(join(tools, 'npx'), `#!/bin/sh\nshift\nexec ${process.execPath} ${bin} "$@"\n`);
  for (const name of told) {
    writeFileSync(join(tools, name), `#!/bin/sh\necho "${name} $*" >> asked\n`);
  }
  for (const name of ['npx', ...told]) {
    chmodSync(join(tools, name), 0o755);
  }
  const { uid, gid } = identity.options;
  const asUser = uid === undefined ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
  const command = [
    ...asUser,
    'env',
    `HOME=${folder}`,
    `PATH=${tools}:${process.env['PATH']}`,
    'sh',
    '-e',
    '-c',
  ];
  const ran = run(command[0]!, [...command.slice(1), `cd ${folder}\n${commands}`]);
  return { ...ran, folder };
}

describe.each(identities)('the CI recipe as $who', (identity) => {
  it.skipIf(snpguest === null || identity.obstacle !== null)('runs an attestation test unchanged', () => {
    const { folder, status, stderr } = runPage(first, identity);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(existsSync(join(folder, 'second.key'))).toBe(true);
    removeFolder(folder);
  });
});

describe.skipIf(snpguest === null || identities.at(-1)!.obstacle !== null)(
  'the workflow of the CI recipe',
  () => {
    it('runs step by step as a user who may become root by sudo', () => {
      const { folder, status, stderr } = runPage(steps.join('\n'), identities.at(-1)!, ['sudo', 'cargo']);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(readFileSync(join(folder, 'asked'), 'utf8').split('\n')).toEqual([
        'cargo install --locked snpguest',
        'sudo chmod 0666 /dev/fuse',
        'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
        '',
      ]);
      expect(existsSync(join(folder, 'second.key'))).toBe(true);
      removeFolder(folder);
    });

    it('names the setting that softsnp exec tells of', () => {
      const source = readFileSync(join(root, 'src', 'os', 'namespaces.ts'), 'utf8');
      const setting = /sysctl -w (\S+)=/.exec(yaml)![1]!;
      expect(source).toContain(`/proc/sys/${setting.replaceAll('.', '/')}`);
    });
  },
);

describe.skipIf(snpguest === null || identities[0]!.obstacle !== null)(
  'the CI recipe with a host that changes',
  () => {
    it('shows the change in the next report', async () => {
      const { folder, status, stderr } = runPage(second, identities[0]!);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      const [before, after] = ['before.bin', 'after.bin'].map((name) => readFileSync(join(folder, name)));
      expect(before!.readBigUInt64LE(0x180)).toBe(0xdb18000000000004n);
      expect(after!.readBigUInt64LE(0x180)).toBe(0xdc19000000000005n);
      await expect.poll(() => mountsBelow(folder)).toEqual([]);
      removeFolder(folder);
    });
  },
);
