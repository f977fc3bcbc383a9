// SPDX-License-Identifier: Apache-2.0
/**
 * Folders that are in memory and seen by this mount namespace alone: what is in them is gone when the last
 * process of the namespace is, however that ends. Only in a mount namespace of one's own: see
 * os/namespaces.ts.
 */
import { lstatSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errnoName } from '../abi/errno.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { Libc, mountNow } from './libc.ts';

/** Shown by mount(8) and df(1). */
const SOURCE = 'softsnp';

/** Mounts an empty tmpfs on an existing folder. Errors: MOUNT_REFUSED */
export function mountTmpfs(folder: string): void {
  const result = mountNow(SOURCE, folder, 'tmpfs', Libc.MS_NOSUID | Libc.MS_NODEV, 'mode=755');
  if (result < 0) {
    throw new EnvironmentError('MOUNT_REFUSED', `tmpfs: mount(2) answered ${errnoName(result)}`, {
      where: folder,
    });
  }
}

/**
 * An empty folder of that kind.
 *
 * It is mounted on one that stays: always the same one of this user below TMPDIR, as each namespace has its
 * own mounts.
 *
 * Errors   TMPDIR_UNWRITABLE, MOUNT_REFUSED, FFI_UNAVAILABLE
 */
export function privateFolder(): string {
  const base = tmpdir();
  try {
    const place = mountPoint(base);
    mountTmpfs(place);
    return place;
  } catch (error) {
    if (error instanceof EnvironmentError) {
      throw error;
    }
    throw new EnvironmentError('TMPDIR_UNWRITABLE', `cannot be written to: ${errnoCode(error)}`, {
      where: base,
      cause: error,
    });
  }
}

function mountPoint(base: string): string {
  const usual = join(base, `softsnp-${outerUserId()}`);
  if (isMounted(usual)) {
    // Of a softsnp exec around this one, whose files are still in use.
    return mkdtempSync(join(usual, 'inner-'));
  }
  try {
    mkdirSync(usual, { mode: 0o700 });
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') {
      throw error;
    }
    const stat = lstatSync(usual);
    if (!stat.isDirectory() || stat.uid !== process.geteuid!()) {
      // Somebody else has taken the name.
      return mkdtempSync(join(base, 'softsnp-'));
    }
  }
  return usual;
}

/** Who we are outside of our user namespace: inside, everybody is root. */
function outerUserId(): number {
  const [inner = 0, outer = 0, count = 0] = readFileSync('/proc/self/uid_map', 'latin1')
    .trim()
    .split(/\s+/)
    .map(Number);
  const id = process.geteuid!() - inner;
  return id >= 0 && id < count ? outer + id : process.geteuid!();
}

function isMounted(place: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === place && line.includes(` - tmpfs ${SOURCE} `));
}
