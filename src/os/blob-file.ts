// SPDX-License-Identifier: Apache-2.0
/** A certificate blob on disk, reached under the kernel's file-lock contract. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { BlobLock, BlobSource } from '../certs/blob.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { environmentErrorOf, errnoCode } from './errno.ts';
import { tryLock, unlock } from './ofd-lock.ts';
import { orUnwritable, prepareStateFile } from './state-dir.ts';

// A writer that renames a new blob over the old one can slip between our open and our lock; each retry
// needs another such writer, so a few are plenty.
const RENAME_RETRIES = 4;

type BlobAttempt = ReturnType<BlobSource['tryLockShared']>;

/**
 * Reads a blob file for the VMM. Each request has an open file, hence a lock, of its own; the descriptor of
 * the last one is kept for the next.
 */
export class BlobFile implements BlobSource {
  readonly name: string;
  readonly #path: string;
  #idle: OpenFile | null = null;

  /** @param name what traces call the blob; its path unless given */
  constructor(path: string, name = path) {
    this.#path = path;
    this.name = name;
  }

  tryLockShared(): BlobAttempt {
    for (let attempt = 0; attempt < RENAME_RETRIES; attempt++) {
      const answer = this.#attempt();
      if (answer !== null) {
        return answer;
      }
    }
    return { busy: true };
  }

  /** Null: the file was renamed away before it was locked. */
  #attempt(): BlobAttempt | null {
    let file: OpenFile | null = this.#idle;
    this.#idle = null;
    try {
      file ??= openFile(this.#path);
      const answer = tryLock(file.fd, 'read');
      const named =
        answer === 'locked' ? statSync(this.#path, { bigint: true, throwIfNoEntry: false }) : undefined;
      if (named !== undefined && isSame(file, named)) {
        const held = file;
        file = null;
        return {
          lock: new HeldBlob(this.#path, held, Number(named.size), (released) => this.#keep(released)),
        };
      }
      return answer === 'locked' ? null : answer === 'busy' ? { busy: true } : answer;
    } catch (error) {
      if (error instanceof EnvironmentError) {
        throw error;
      }
      // An error would cost the guest its VMPCK for good; what the system has too little of may come back.
      if (environmentErrorOf(error) !== null) {
        return { busy: true };
      }
      return { error: `cannot open ${this.#path}: ${errnoCode(error)}` };
    } finally {
      if (file !== null) {
        closeSync(file.fd);
      }
    }
  }

  /**
   * States that requests can be served from the file, as far as can be told now: it may still have to be made.
   *
   * Errors   LOCK_FAILED on a file system that has no such locks; FILE_UNREADABLE
   */
  checkServable(): void {
    const where = this.#path;
    let file: OpenFile;
    try {
      file = openFile(where);
    } catch (cause) {
      if (errnoCode(cause) === 'ENOENT') {
        return;
      }
      throw new EnvironmentError('FILE_UNREADABLE', `cannot be opened: ${errnoCode(cause)}`, {
        where,
        cause,
      });
    }
    try {
      const answer = tryLock(file.fd, 'read');
      if (typeof answer === 'object') {
        throw new EnvironmentError('LOCK_FAILED', answer.error, { where });
      }
      if (!file.isFile) {
        throw new EnvironmentError('FILE_UNREADABLE', 'is not a regular file', { where });
      }
    } finally {
      closeSync(file.fd);
    }
  }

  /** Lets the kept descriptor go; a later request would open the file anew. */
  close(): void {
    if (this.#idle !== null) {
      closeSync(this.#idle.fd);
      this.#idle = null;
    }
  }

  #keep(file: OpenFile): void {
    if (this.#idle === null && unlock(file.fd)) {
      this.#idle = file;
    } else {
      closeSync(file.fd);
    }
  }
}

/** An open file and which one it is: a path may lead to another by now. */
interface OpenFile {
  readonly fd: number;
  readonly ino: bigint;
  readonly dev: bigint;
  readonly isFile: boolean;
  /** What was read last. */
  bytes: Uint8Array;
}

function openFile(path: string): OpenFile {
  // Without O_NONBLOCK the open of a pipe would wait for a writer, and every guest with it.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd, { bigint: true });
    return { fd, ino: stat.ino, dev: stat.dev, isFile: stat.isFile(), bytes: new Uint8Array(0) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

const isSame = (file: Pick<OpenFile, 'ino' | 'dev'>, named: Pick<OpenFile, 'ino' | 'dev'>): boolean =>
  file.ino === named.ino && file.dev === named.dev;

class HeldBlob implements BlobLock {
  readonly #path: string;
  readonly #size: number;
  readonly #onRelease: (file: OpenFile) => void;
  #file: OpenFile | null;

  constructor(path: string, file: OpenFile, size: number, onRelease: (file: OpenFile) => void) {
    this.#path = path;
    this.#file = file;
    this.#size = size;
    this.#onRelease = onRelease;
  }

  read(maxBytes: number): { bytes: Uint8Array } | { error: string } {
    if (this.#file === null) {
      return { error: `${this.#path} is no longer locked` };
    }
    if (!this.#file.isFile) {
      return { error: `${this.#path} is not a regular file` };
    }
    if (this.#size > maxBytes) {
      return { error: `${this.#path} has ${this.#size} bytes, more than ${maxBytes}` };
    }
    try {
      const bytes = this.#buffer(this.#file);
      let at = 0;
      while (at < bytes.length) {
        const count = readSync(this.#file.fd, bytes, at, bytes.length - at, at);
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

  /** The memory of the last reading, if it has the right size. */
  #buffer(file: OpenFile): Uint8Array {
    if (file.bytes.length !== this.#size) {
      file.bytes = new Uint8Array(this.#size);
    }
    return file.bytes;
  }

  release(): void {
    const file = this.#file;
    this.#file = null;
    if (file !== null) {
      this.#onRelease(file);
    }
  }
}

/** True while the path leads to the very file that is open: a lock on a replaced file protects nothing. */
function stillNamed(path: string, fd: number): boolean {
  const named = statSync(path, { bigint: true, throwIfNoEntry: false });
  return named !== undefined && isSame(fstatSync(fd, { bigint: true }), named);
}

/** Exclusive locks on blobs: nobody gets certificates until they are released. */
export interface BlobUpdate {
  /**
   * Gives the blob new contents.
   *
   * Errors   STATE_UNWRITABLE; then it has the old ones
   */
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
 * Errors   LOCK_FAILED; STATE_UNWRITABLE
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
  return {
    replace: (path, bytes) => prepareStateFile(dirname(path), basename(path), bytes).place(),
    release,
  };
}

const openForUpdate = (path: string): number =>
  orUnwritable(path, 'cannot open for writing', () => openSync(path, 'a+', 0o600));

/**
 * Replaces a blob while no VMM holds it, together with what must change with it.
 *
 * Returns  false when a reader or another writer holds the lock: nothing was changed
 * Errors   LOCK_FAILED; STATE_UNWRITABLE
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
