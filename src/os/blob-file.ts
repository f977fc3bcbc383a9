// SPDX-License-Identifier: Apache-2.0
/** A certificate blob on disk, reached under the kernel's file-lock contract. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { BlobLock, BlobSource } from '../certs/blob.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { tryLock } from './ofd-lock.ts';
import { replaceFile } from './state-dir.ts';

// A writer that renames a new blob over the old one can slip between our open and our lock; each retry
// needs another such writer, so a few are plenty.
const RENAME_RETRIES = 4;

/** Reads a blob file for the VMM: a fresh open file, hence a lock of its own, for every request. */
export class BlobFile implements BlobSource {
  readonly name: string;
  readonly #path: string;

  /** @param name what traces call the blob; its path unless given */
  constructor(path: string, name = path) {
    this.#path = path;
    this.name = name;
  }

  tryLockShared(): { lock: BlobLock } | { busy: true } | { error: string } {
    for (let attempt = 0; attempt < RENAME_RETRIES; attempt++) {
      let fd: number;
      try {
        fd = openSync(this.#path, 'r');
      } catch (error) {
        return { error: `cannot open ${this.#path}: ${errnoCode(error)}` };
      }
      const answer = tryLock(fd, 'read');
      if (answer !== 'locked') {
        closeSync(fd);
        return answer === 'busy' ? { busy: true } : answer;
      }
      if (stillNamed(this.#path, fd)) {
        return { lock: new OpenBlob(this.#path, fd) };
      }
      closeSync(fd);
    }
    return { busy: true };
  }
}

/** True while the path leads to the very file that is open: a lock on a replaced file protects nothing. */
function stillNamed(path: string, fd: number): boolean {
  const held = fstatSync(fd, { bigint: true });
  const named = statSync(path, { bigint: true, throwIfNoEntry: false });
  return named !== undefined && named.ino === held.ino && named.dev === held.dev;
}

class OpenBlob implements BlobLock {
  readonly #path: string;
  #fd: number | null;

  constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  read(maxBytes: number): { bytes: Uint8Array } | { error: string } {
    if (this.#fd === null) {
      return { error: `${this.#path} is no longer locked` };
    }
    try {
      const stat = fstatSync(this.#fd);
      if (!stat.isFile()) {
        return { error: `${this.#path} is not a regular file` };
      }
      if (stat.size > maxBytes) {
        return { error: `${this.#path} has ${stat.size} bytes, more than ${maxBytes}` };
      }
      const bytes = new Uint8Array(stat.size);
      let at = 0;
      while (at < bytes.length) {
        const count = readSync(this.#fd, bytes, at, bytes.length - at, at);
        if (count === 0) {
          return { error: `${this.#path} shrank while it was read` };
        }
        at += count;
      }
      return { bytes };
    } catch (error) {
      return { error: `cannot read ${this.#path}: ${errnoCode(error)}` };
    }
  }

  release(): void {
    if (this.#fd !== null) {
      closeSync(this.#fd);
      this.#fd = null;
    }
  }
}

/**
 * Replaces a blob while no VMM holds it, together with what must change with it.
 *
 * The exclusive lock on the old file is held from before `change` until the new file has its name; the
 * new file needs none, for nobody can open it earlier.
 *
 * Returns  false when a reader or another writer holds the lock: nothing was changed
 * Errors   LOCK_FAILED; FILE_UNREADABLE
 */
export function replaceBlob(path: string, makeBlob: () => Uint8Array): boolean {
  let fd: number;
  try {
    fd = openSync(path, 'a+', 0o600);
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot open for writing: ${errnoCode(error)}`, {
      where: path,
      cause: error,
    });
  }
  try {
    const answer = tryLock(fd, 'write');
    if (answer === 'busy' || !stillNamed(path, fd)) {
      return false;
    }
    if (answer !== 'locked') {
      throw new EnvironmentError('LOCK_FAILED', answer.error, { where: path });
    }
    replaceFile(dirname(path), basename(path), makeBlob());
    return true;
  } finally {
    closeSync(fd);
  }
}
