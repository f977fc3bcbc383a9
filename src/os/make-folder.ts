// SPDX-License-Identifier: Apache-2.0
/** Making a folder with those above it, one by one. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoCode } from './errno.ts';

/**
 * Makes a folder and those above it; one that is there already will do.
 *
 * Returns  those that were made, the topmost first
 * Errors   the system's own, untranslated
 * Differs  mkdirSync with `recursive` asks without end where the kernel says ENOENT of a folder whose parent is
 *          there, as it does below /proc
 */
export function makeFolder(path: string, mode = 0o777): readonly string[] {
  try {
    return makeOne(path, mode);
  } catch (error) {
    const above = dirname(path);
    if (errnoCode(error) !== 'ENOENT' || isThere(above)) {
      throw error;
    }
    return [...makeFolder(above, mode), ...makeOne(path, mode)];
  }
}

/** Another process may be making it at the same time. */
function makeOne(path: string, mode: number): readonly string[] {
  try {
    mkdirSync(path, { mode });
    return [path];
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST' || !statSync(path).isDirectory()) {
      throw error;
    }
    return [];
  }
}

function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}
