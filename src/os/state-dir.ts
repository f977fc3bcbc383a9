// SPDX-License-Identifier: Apache-2.0
/**
 * A state folder: mode 0700, one writer at a time, every file replaced whole. A crash at any instant
 * leaves the old content or the new.
 */
import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { tryLock } from './ofd-lock.ts';

const TEMPORARY = /^\..*\.new$/;

/** A file that is written, synced and not in its place yet. */
export interface PreparedFile {
  /** Moves it into place; the folder entry is synced too. */
  place(): void;
  discard(): void;
}

/** Writes a file aside, syncs it, and moves it into place; the folder entry is synced too. */
export function replaceFile(directory: string, name: string, content: Uint8Array, mode = 0o600): void {
  prepareFile(directory, name, content, mode).place();
}

/** Does of `replaceFile` all that can fail for want of space. */
export function prepareFile(
  directory: string,
  name: string,
  content: Uint8Array,
  mode = 0o600,
): PreparedFile {
  const aside = join(directory, `.${name}.new`);
  const fd = openSync(aside, 'w', mode);
  try {
    let at = 0;
    while (at < content.length) {
      at += writeSync(fd, content, at);
    }
    fsyncSync(fd);
  } catch (error) {
    closeSync(fd);
    rmSync(aside, { force: true });
    throw error;
  }
  closeSync(fd);
  return {
    place() {
      renameSync(aside, join(directory, name));
      syncDirectory(directory);
    },
    discard: () => rmSync(aside, { force: true }),
  };
}

function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export class StateDirectory {
  readonly path: string;
  readonly #lockFd: number;

  private constructor(path: string, lockFd: number) {
    this.path = path;
    this.#lockFd = lockFd;
  }

  /**
   * Opens the folder for writing, making it when it is missing.
   *
   * Errors   STATE_BUSY when another process has it; STATE_UNWRITABLE with the errno
   */
  static open(path: string): StateDirectory {
    let lockFd: number;
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      chmodSync(path, 0o700);
      lockFd = openSync(join(path, 'lock'), 'a+', 0o600);
    } catch (error) {
      throw new EnvironmentError('STATE_UNWRITABLE', `cannot use the state folder: ${errnoCode(error)}`, {
        where: path,
        cause: error,
      });
    }
    const answer = tryLock(lockFd, 'write');
    if (answer !== 'locked') {
      closeSync(lockFd);
      throw answer === 'busy'
        ? new EnvironmentError('STATE_BUSY', 'another softsnp has this state folder open', { where: path })
        : new EnvironmentError('LOCK_FAILED', `cannot lock the state folder: ${answer.error}`, {
            where: path,
          });
    }
    // What a crash left between writing aside and moving into place.
    for (const name of readdirSync(path)) {
      if (TEMPORARY.test(name)) {
        rmSync(join(path, name), { force: true });
      }
    }
    return new StateDirectory(path, lockFd);
  }

  fileOf(name: string): string {
    return join(this.path, name);
  }

  /** The file's bytes; null when it does not exist. */
  read(name: string): Uint8Array | null {
    try {
      return Uint8Array.from(readFileSync(this.fileOf(name)));
    } catch (error) {
      if (errnoCode(error) === 'ENOENT') {
        return null;
      }
      throw new EnvironmentError('FILE_UNREADABLE', `cannot read: ${errnoCode(error)}`, {
        where: this.fileOf(name),
        cause: error,
      });
    }
  }

  write(name: string, content: Uint8Array): void {
    try {
      replaceFile(this.path, name, content);
    } catch (error) {
      throw new EnvironmentError('STATE_UNWRITABLE', `cannot write: ${errnoCode(error)}`, {
        where: this.fileOf(name),
        cause: error,
      });
    }
  }

  close(): void {
    closeSync(this.#lockFd);
  }
}
