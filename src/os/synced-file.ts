// SPDX-License-Identifier: Apache-2.0
/** Files and names that a power cut does not take away again. */
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';

/**
 * Writes a whole file and sees it onto the disk.
 *
 * Shape    `flags` as node:fs has them: wx where the name must be new, w where it need not
 * Errors   the system's own; the file may then be there in part
 */
export function writeSynced(path: string, content: Uint8Array, mode: number, flags: 'w' | 'wx'): void {
  const fd = openSync(path, flags, mode);
  try {
    let at = 0;
    while (at < content.length) {
      at += writeSync(fd, content, at);
    }
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Sees the names in a folder onto the disk: a file that was moved there may else be back under its old one. */
export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
