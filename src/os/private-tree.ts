// SPDX-License-Identifier: Apache-2.0
/**
 * Putting files at paths of one's choice, seen by this mount namespace alone.
 *
 * A path that exists is mounted over. For one that does not, its nearest folder is replaced by a tmpfs
 * that has every old entry bound to its old name, and the new ones beside them: that needs no right to
 * write to /dev or /sys. Use it only in a mount namespace of one's own: see os/namespaces.ts.
 */
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative, sep } from 'node:path';
import { errnoName } from '../abi/errno.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { chdir, Libc, mount, mountNow, umount2 } from './libc.ts';
import { makeFolder } from './make-folder.ts';
import { mountTmpfs } from './private-folder.ts';

/** Where a mirrored folder keeps its original whole. */
const ORIGINAL = '.softsnp-original';

interface Shown {
  readonly source: string;
  readonly isFolder: boolean;
  /** Existing folder nearest to the path, links resolved. */
  readonly base: string;
  /** The path below `base`; empty when `base` is the very place to mount on. */
  readonly missing: string;
}

/** Collects what is to be shown where, then makes it so in one go. */
export class PrivateTree {
  readonly #scratch: string;
  readonly #shown: Shown[] = [];
  #count = 0;

  /**
   * Mounts an empty tmpfs to build in on an existing folder, for as long as it takes.
   *
   * Errors   MOUNT_REFUSED outside a mount namespace of one's own; FFI_UNAVAILABLE
   */
  constructor(scratch: string) {
    this.#scratch = scratch;
    mountTmpfs(scratch);
  }

  /** An empty folder to mount something on, FUSE say; gone from sight after `apply`. */
  folder(): string {
    this.#count += 1;
    const path = join(this.#scratch, `${this.#count}`);
    mkdirSync(path);
    return path;
  }

  /** A file with these bytes, to be shown somewhere. */
  file(bytes: Uint8Array, mode = 0o644): string {
    const path = join(this.folder(), 'file');
    writeFileSync(path, bytes, { mode });
    chmodSync(path, mode);
    return path;
  }

  /**
   * Asks for `source` to be seen at `path`. Nothing happens before `apply`.
   *
   * `kind` is given rather than looked up: the source may be in a file system this process serves.
   *
   * Errors   MOUNT_POINT_INVALID when the path is relative, or there already and of the other kind, or one
   *          of its folders cannot be looked into
   */
  show(path: string, kind: 'file' | 'folder', source: string): void {
    const isFolder = kind === 'folder';
    const invalid = (message: string): EnvironmentError =>
      new EnvironmentError('MOUNT_POINT_INVALID', message, { where: path });
    if (!path.startsWith(sep)) {
      throw invalid('is not an absolute path');
    }
    const { base, missing, baseIsFolder, existing } = nearest(path);
    if (missing === '' ? baseIsFolder !== isFolder : !baseIsFolder) {
      throw invalid(`${existing} is ${baseIsFolder ? 'a folder' : 'not a folder'}`);
    }
    this.#shown.push({ source, isFolder, base, missing });
  }

  /**
   * Mounts everything asked for, then lets go of the scratch folder: mounts keep what they show alive.
   *
   * Errors   MOUNT_REFUSED; the namespace is then to be left
   */
  async apply(): Promise<void> {
    const bases = new Map<string, Shown[]>();
    for (const shown of this.#shown.filter(({ missing }) => missing !== '')) {
      bases.set(shown.base, [...(bases.get(shown.base) ?? []), shown]);
    }
    // Inner folders first: the mirror of an outer one takes their mounts along.
    const ordered = [...bases].sort(([a], [b]) => b.length - a.length);
    for (const [base, additions] of ordered) {
      const made = this.folder();
      mirror(base, made);
      for (const { source, isFolder, missing } of additions) {
        await bind(source, placeFor(join(made, missing), isFolder));
      }
      await bind(made, base);
    }
    // Last: a mirror looks at each old entry, and must not find one there that this process serves.
    for (const { source, base } of this.#shown.filter(({ missing }) => missing === '')) {
      await bind(source, base);
    }
    await umount2(this.#scratch, Libc.MNT_DETACH);
    await enterAgain();
  }
}

/** The nearest place of a path that is there, links resolved, and what is missing below it. */
function nearest(path: string) {
  let existing = path;
  try {
    while (!isThere(existing)) {
      existing = dirname(existing);
    }
    const base = realpathSync(existing);
    return { existing, base, missing: relative(existing, path), baseIsFolder: statSync(base).isDirectory() };
  } catch (cause) {
    throw new EnvironmentError('MOUNT_POINT_INVALID', `cannot be used: ${errnoCode(cause)}`, {
      where: existing,
      cause,
    });
  }
}

/**
 * Errors that mean "nothing is there": a place where a softsnp was killed counts as empty. Its mount may
 * belong to another user namespace and is then not ours to take away, but it can be left out of a mirror.
 */
const NOT_THERE: readonly string[] = ['ENOENT', 'ENOTCONN', 'ECONNABORTED'];

function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (NOT_THERE.includes(errnoCode(error))) {
      return false;
    }
    throw error;
  }
}

/** A working folder below a place that is now another one's is that other one from now on, if it has it. */
async function enterAgain(): Promise<void> {
  let path: string;
  try {
    path = process.cwd();
  } catch {
    // It has been removed: the command starts where we are.
    return;
  }
  // What cannot be entered by its path any more is not left either.
  await chdir(path);
}

function refused(what: string, target: string, result: number): EnvironmentError {
  return new EnvironmentError('MOUNT_REFUSED', `${what}: mount(2) answered ${errnoName(result)}`, {
    where: target,
  });
}

async function bind(source: string, target: string): Promise<void> {
  // On a pool thread: resolving a source in our own FUSE mount needs the event loop.
  const result = await mount(source, target, null, Libc.MS_BIND | Libc.MS_REC, null);
  if (result < 0) {
    throw refused(`bind of ${source}`, target, result);
  }
}

function placeFor(path: string, isFolder: boolean): string {
  makeFolder(isFolder ? path : dirname(path));
  if (!isFolder) {
    writeFileSync(path, '');
  }
  return path;
}

/** Makes an empty folder look like `original`: links copied, everything else bound. */
function mirror(original: string, made: string): void {
  const bindNow = (source: string, target: string): void => {
    const result = mountNow(source, target, null, Libc.MS_BIND | Libc.MS_REC, null);
    if (result < 0) {
      throw refused(`bind of ${source}`, target, result);
    }
  };
  chmodSync(made, statSync(original).mode & 0o7777);
  bindNow(original, placeFor(join(made, ORIGINAL), true));
  for (const name of readdirSync(original)) {
    const [from, to] = [join(original, name), join(made, name)];
    let stat: ReturnType<typeof lstatSync>;
    try {
      stat = lstatSync(from);
    } catch (error) {
      if (NOT_THERE.includes(errnoCode(error))) {
        continue;
      }
      throw error;
    }
    if (stat.isSymbolicLink()) {
      symlinkSync(readlinkSync(from), to);
    } else if (basename(from) === 'ptmx') {
      // Opening ptmx looks for pts beside it, in the mount it came from: a bind of the node alone fails.
      symlinkSync(join(ORIGINAL, name), to);
    } else {
      bindNow(from, placeFor(to, stat.isDirectory()));
    }
  }
}
