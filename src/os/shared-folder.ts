// SPDX-License-Identifier: Apache-2.0
/**
 * A folder that several processes fill at the same time and none of them owns. Files are put in place
 * whole: whoever reads one finds the old content or the new, and so does a crash.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from './errno.ts';
import { syncFolder, writeSynced } from './synced-file.ts';

/** A file written aside takes milliseconds to be moved; one this old is what a crash left. */
const LEFTOVER_MS = 3_600_000;
const TEMPORARY = /^\..*\.new$/;

/** What filesystems without hard links say; there two that are first at the same instant are not told apart. */
const WITHOUT_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

/** Puts a file in place of what has the name. */
export function putFile(folder: string, name: string, content: Uint8Array, mode = 0o600): void {
  place(folder, name, content, mode, renameSync);
}

/**
 * Puts a file where none has the name.
 *
 * Returns  false when another process, or an earlier start, was first; its file stays
 */
export function putFirstFile(folder: string, name: string, content: Uint8Array, mode = 0o600): boolean {
  try {
    place(folder, name, content, mode, linkSync);
    return true;
  } catch (error) {
    const code = errnoCode(error);
    if (code === 'EEXIST') {
      return false;
    }
    if (!WITHOUT_LINKS.has(code)) {
      throw error;
    }
  }
  if (existsSync(join(folder, name))) {
    return false;
  }
  putFile(folder, name, content, mode);
  return true;
}

/** Removes what processes that are gone left between writing aside and moving into place. */
export function clearLeftovers(folder: string, nowMs: number): void {
  for (const name of readdirSync(folder).filter((entry) => TEMPORARY.test(entry))) {
    const path = join(folder, name);
    const writtenMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? nowMs;
    if (nowMs - writtenMs > LEFTOVER_MS) {
      rmSync(path, { force: true });
    }
  }
}

function place(
  folder: string,
  name: string,
  content: Uint8Array,
  mode: number,
  move: (from: string, to: string) => void,
): void {
  // A name of its own for every writer: two that share one would mix their bytes.
  const aside = join(folder, `.${name}.${randomBytes(6).toString('hex')}.new`);
  try {
    writeSynced(aside, content, mode, 'wx');
    move(aside, join(folder, name));
  } finally {
    // After a rename there is nothing left to remove; after a link, or a failure, there is.
    rmSync(aside, { force: true });
  }
  syncFolder(folder);
}
