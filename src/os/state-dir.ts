// SPDX-License-Identifier: Apache-2.0
/**
 * A state folder: mode 0700, one writer at a time, every file replaced whole. A crash at any instant
 * leaves the old content or the new, and so does an operation that fails: the old.
 */
import {
  chmodSync,
  closeSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { makeFolder } from './make-folder.ts';
import { tryLock } from './ofd-lock.ts';
import { syncFolder, writeSynced } from './synced-file.ts';

/** What a crash leaves: content that is not in place yet, and the name that what was in place is kept by. */
const TEMPORARY = /^\..*\.(?:new|old)$/;

/** A file that is written and synced, and not in its place yet. */
export interface PreparedFile {
  /** Moves it into place and syncs the folder; when that fails, what was there is there again. */
  place(): void;
  discard(): void;
}

/**
 * Writes a file aside, syncs it, moves it into place and syncs the folder.
 *
 * Errors   those of node:fs; then the old content is in place and nothing lies beside it
 */
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
  try {
    writeSynced(aside, content, mode, 'w');
  } catch (error) {
    unlinkIfThere(aside);
    throw error;
  }
  return {
    place: () => moveIntoPlace(aside, join(directory, name), join(directory, `.${name}.old`)),
    discard: () => unlinkIfThere(aside),
  };
}

/** @param kept second name of the old file, for the time in which the folder may turn out not to be writable */
function moveIntoPlace(aside: string, place: string, kept: string): void {
  const directory = dirname(place);
  const before = keepOld(place, kept);
  try {
    renameSync(aside, place);
  } catch (error) {
    unlinkIfThere(aside);
    unlinkIfThere(kept);
    throw error;
  }
  try {
    syncFolder(directory);
  } catch (error) {
    // Nobody may find what the caller is told was not written.
    undoMove(before, kept, place);
    throw error;
  }
  unlinkIfThere(kept);
}

/** Gives the file a second name. Some file systems have none to give: a folder's failure then leaves the new content. */
function keepOld(place: string, kept: string): 'kept' | 'none' | 'unsupported' {
  unlinkIfThere(kept);
  try {
    linkSync(place, kept);
    return 'kept';
  } catch (error) {
    return errnoCode(error) === 'ENOENT' ? 'none' : 'unsupported';
  }
}

function undoMove(before: ReturnType<typeof keepOld>, kept: string, place: string): void {
  if (before === 'none') {
    unlinkIfThere(place);
  } else if (before === 'kept') {
    try {
      renameSync(kept, place);
    } catch {
      // A folder that takes no entry at all any more: the error that led here says so.
    }
  }
}

/** Never in the way of the error that is being told. */
function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Not there, or not to be removed by us: the next start tries again.
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
   * Errors   STATE_BUSY when another process has it; STATE_UNWRITABLE with the errno; LOCK_FAILED
   */
  static open(path: string): StateDirectory {
    const lockFd = orUnwritable(path, 'cannot use the state folder', () => {
      for (const made of makeFolder(resolve(path), 0o700)) {
        syncFolder(dirname(made));
      }
      chmodSync(path, 0o700);
      return openSync(join(path, 'lock'), 'a+', 0o600);
    });
    try {
      const answer = tryLock(lockFd, 'write');
      if (answer !== 'locked') {
        throw answer === 'busy'
          ? new EnvironmentError('STATE_BUSY', 'another softsnp has this state folder open', { where: path })
          : new EnvironmentError('LOCK_FAILED', `cannot lock the state folder: ${answer.error}`, {
              where: path,
            });
      }
      orUnwritable(path, 'cannot sweep the state folder', () => {
        for (const name of readdirSync(path).filter((entry) => TEMPORARY.test(entry))) {
          rmSync(join(path, name), { recursive: true, force: true });
        }
      });
    } catch (error) {
      closeSync(lockFd);
      throw error;
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

  /**
   * Replaces a file.
   *
   * Errors   STATE_UNWRITABLE with the errno; then it is as it was
   */
  write(name: string, content: Uint8Array): void {
    this.prepare(name, content).place();
  }

  /**
   * Does of `write` all that can fail for want of space.
   *
   * Errors   STATE_UNWRITABLE with the errno, also from `place`
   */
  prepare(name: string, content: Uint8Array): PreparedFile {
    return prepareStateFile(this.path, name, content);
  }

  close(): void {
    closeSync(this.#lockFd);
  }
}

/**
 * `prepareFile`, for files of a state folder.
 *
 * Errors   STATE_UNWRITABLE with the errno, also from `place`
 */
export function prepareStateFile(directory: string, name: string, content: Uint8Array): PreparedFile {
  const orElse = <T>(work: () => T): T => orUnwritable(join(directory, name), 'cannot write', work);
  const prepared = orElse(() => prepareFile(directory, name, content));
  return { place: () => orElse(prepared.place), discard: prepared.discard };
}

/**
 * Does something in the state folder.
 *
 * Errors   STATE_UNWRITABLE with the errno
 */
export function orUnwritable<T>(where: string, what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new EnvironmentError('STATE_UNWRITABLE', `${what}: ${errnoCode(cause)}`, { where, cause });
  }
}
