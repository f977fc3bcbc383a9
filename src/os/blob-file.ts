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

/** Exclusive locks on blobs: nobody gets certificates until they are released. */
export interface BlobUpdate {
  /** Gives the blob new contents, whole or not at all. */
  replace(path: string, bytes: Uint8Array): void;
  release(): void;
}

/**
 * Locks blobs for a change, all or none; those that do not exist are made, empty.
 *
 * A replaced file needs no lock of its own: nobody can open it before it has its name, and by then the
 * change it belongs to is made.
 *
 * Returns  null when a reader or another writer holds a lock: nothing was changed
 * Errors   LOCK_FAILED; FILE_UNREADABLE
 */
export function tryLockBlobs(paths: readonly string[]): BlobUpdate | null {
  const fds: number[] = [];
  const release = (): void => {
    for (const fd of fds.splice(0)) {
      closeSync(fd);
    }
  };
  try {
    for (const path of paths) {
      const fd = openForUpdate(path);
      fds.push(fd);
      const answer = tryLock(fd, 'write');
      if (answer === 'busy' || (answer === 'locked' && !stillNamed(path, fd))) {
        release();
        return null;
      }
      if (answer !== 'locked') {
        throw new EnvironmentError('LOCK_FAILED', answer.error, { where: path });
      }
    }
  } catch (error) {
    release();
    throw error;
  }
  return { replace: (path, bytes) => replaceFile(dirname(path), basename(path), bytes), release };
}

function openForUpdate(path: string): number {
  try {
    return openSync(path, 'a+', 0o600);
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot open for writing: ${errnoCode(error)}`, {
      where: path,
      cause: error,
    });
  }
}

/**
 * Replaces a blob while no VMM holds it, together with what must change with it.
 *
 * Returns  false when a reader or another writer holds the lock: nothing was changed
 * Errors   LOCK_FAILED; FILE_UNREADABLE
 */
export function replaceBlob(path: string, makeBlob: () => Uint8Array): boolean {
  const update = tryLockBlobs([path]);
  try {
    update?.replace(path, makeBlob());
    return update !== null;
  } finally {
    update?.release();
  }
}
