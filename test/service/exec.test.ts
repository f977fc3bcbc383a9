// SPDX-License-Identifier: Apache-2.0
/** softsnp exec where something is in its way, and what a command finds inside. */
import { execFileSync, spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { bin, identities, isRoot, ORDINARY } from './softsnp.ts';

beforeAll(() => {
  // Builds once, as somebody who may write to dist/.
  execFileSync(process.execPath, [bin, '--version']);
}, 60_000);

const AS_ORDINARY = `setpriv --reuid=${ORDINARY.uid} --regid=${ORDINARY.gid} --clear-groups`;

describe.skipIf(!isRoot || spawnSync('setpriv', ['--version']).status !== 0)('without /dev/fuse', () => {
  /** Runs exec in a mount namespace whose /dev has nothing but what the line before makes. */
  const exec = (make: string, as = '') => {
    const script = `mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && ${make} && ${as} ${process.execPath} ${bin} exec -- true`;
    return spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' });
  };

  it('softsnp exec says what to do about the device, and does not blame namespaces', () => {
    const { status, stderr } = exec('true');
    expect(status).toBe(3);
    expect(stderr).toContain('softsnp: /dev/fuse cannot be opened: ENOENT [FUSE_UNAVAILABLE]\n');
    expect(stderr).toContain('modprobe fuse');
    expect(stderr).not.toContain('user namespaces');
  });

  it.skipIf(identities.at(-1)!.obstacle !== null)('softsnp exec says so to those who may not open it', () => {
    const { status, stderr } = exec('mknod -m 600 /dev/fuse c 10 229', AS_ORDINARY);
    expect({ status, stderr }).toMatchObject({ status: 3, stderr: /EACCES \[FUSE_UNAVAILABLE\]/ });
  });
});
