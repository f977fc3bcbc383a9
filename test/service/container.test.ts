// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp exec where Docker would have it: capabilities, devices and a /proc as its defaults and the options of
 * docs/howto/ci.md make them. A seccomp filter is not part of it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bin, folderOf, identities, isRoot, LONG, removeFolder, root } from './softsnp.ts';

/** Of Docker 28. */
const CAPABILITIES = [
  ...['chown', 'dac_override', 'fsetid', 'fowner', 'mknod', 'net_raw', 'setgid', 'setuid', 'setfcap'],
  ...['setpcap', 'net_bind_service', 'sys_chroot', 'kill', 'audit_write'],
];
const SCRIPT = `
mount -t proc proc /proc
mount -t tmpfs none /dev
for node in 'null 3' 'zero 5' 'full 7' 'random 8' 'urandom 9'; do mknod -m 666 /dev/$(echo $node | sed 's/ / c 1 /'); done
ln -s /proc/self/fd /dev/fd; mkdir /dev/shm /dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts; ln -s pts/ptmx /dev/ptmx
eval "$DEVICES"
for path in /proc/acpi /proc/scsi /sys/firmware; do [ ! -d $path ] || mount -t tmpfs -o ro none $path; done
for path in /proc/kcore /proc/keys /proc/timer_list; do [ ! -e $path ] || mount --bind /dev/null $path; done
for path in /proc/bus /proc/fs /proc/irq /proc/sys; do mount --bind $path $path; mount -o remount,bind,ro $path; done
mount -o remount,bind,ro /sys
exec setpriv --bounding-set=-all,$CAPABILITIES --inh-caps=-all "$@"`;

const recipe = /^ +options: (.*)$/m.exec(readFileSync(join(root, 'docs', 'howto', 'ci.md'), 'utf8'))![1]!;
const optionOf = (name: string): string[] =>
  [...recipe.matchAll(new RegExp(`--${name} (\\S+)`, 'g'))].map((match) => match[1]!);

describe.skipIf(!LONG || !isRoot || identities[0]!.obstacle !== null)('in a container, softsnp exec', () => {
  let folder: string;
  beforeAll(() => {
    folder = folderOf(identities[0]!);
    // Builds once, where that is possible.
    execFileSync(process.execPath, [bin, '--version']);
  }, 60_000);
  afterAll(() => removeFolder(folder));

  const run = (devices: readonly string[], more: readonly string[], ...args: string[]) => {
    const capabilities = [...CAPABILITIES, ...more.map((name) => name.toLowerCase())];
    const { status, stdout, stderr } = spawnSync(
      'unshare',
      ['-m', '-p', '-f', '-u', '-i', 'sh', '-ec', SCRIPT, 'sh', process.execPath, bin, 'exec', ...args],
      {
        ...{ cwd: folder, encoding: 'utf8', timeout: 20_000 },
        env: {
          ...{ PATH: process.env['PATH'], HOME: folder, SOFTSNP: `${process.execPath} ${bin}` },
          CAPABILITIES: capabilities.map((name) => `+${name}`).join(','),
          DEVICES: devices.map((path) => `mknod -m 660 ${path} c 10 229`).join('; '),
        },
      },
    );
    return { status, stdout, stderr };
  };
  const command = ['--', 'sh', '-c', '$SOFTSNP guest key > key && wc -c < key && exit 4'];

  it('works with the options of the CI recipe', () => {
    expect([optionOf('device'), optionOf('cap-add')]).toEqual([['/dev/fuse'], ['SYS_ADMIN']]);
    for (const args of [command, ['--kds-intercept', ...command]]) {
      const ended = run(optionOf('device'), optionOf('cap-add'), ...args);
      expect(ended).toEqual({ status: 4, stdout: '65\n', stderr: '' });
    }
  });

  it('says which of them is missing', () => {
    const { status, stderr } = run([], optionOf('cap-add'), ...command);
    expect({ status, stderr }).toEqual({ status: 3, stderr: expect.stringContaining('[FUSE_UNAVAILABLE]') });
    expect(stderr).toContain('for a container, --device /dev/fuse');
  });
});
