// SPDX-License-Identifier: Apache-2.0
/** State folders that are gone when their process is: at its end, or after kill -9 at the next start of another. */
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { tryLock } from './ofd-lock.ts';

const PREFIX = 'softsnp-seeded-';
/** A younger one may be about to be locked. */
const SETTLED_MS = 60_000;

/**
 * A new folder below TMPDIR, to be opened as a state folder and removed by whoever asks for it.
 *
 * Those that nobody has open any more, for a softsnp was killed, are removed first.
 *
 * Errors   TMPDIR_UNWRITABLE
 */
export function ephemeralDirectory(base = tmpdir(), nowMs = Date.now()): string {
  sweep(base, nowMs);
  try {
    return mkdtempSync(join(base, PREFIX));
  } catch (cause) {
    throw new EnvironmentError('TMPDIR_UNWRITABLE', `cannot be written to: ${errnoCode(cause)}`, {
      where: base,
      cause,
    });
  }
}

function sweep(base: string, nowMs: number): void {
  for (const path of listOf(base)) {
    try {
      const { uid, mtimeMs } = lstatSync(path);
      if (uid === process.geteuid?.() && nowMs - mtimeMs > SETTLED_MS) {
        removeAbandoned(path);
      }
    } catch {
      // Another process has swept it meanwhile, or will.
    }
  }
}

function removeAbandoned(path: string): void {
  const lock = join(path, 'lock');
  if (!existsSync(lock)) {
    // Killed before it was opened. Only an empty folder goes this way.
    rmdirSync(path);
    return;
  }
  const fd = openSync(lock, 'r+');
  try {
    if (tryLock(fd, 'write') === 'locked') {
      rmSync(path, { recursive: true, force: true });
    }
  } finally {
    closeSync(fd);
  }
}

function listOf(base: string): readonly string[] {
  try {
    return readdirSync(base)
      .filter((name) => name.startsWith(PREFIX))
      .map((name) => join(base, name));
  } catch {
    // A folder that can be written to need not be readable.
    return [];
  }
}
