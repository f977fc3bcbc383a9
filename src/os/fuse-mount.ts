// SPDX-License-Identifier: Apache-2.0
/**
 * A FUSE connection of this process and the places where it is mounted.
 *
 * /dev/fuse must be opened in the user namespace that mounts it: a process that wants its own namespaces
 * enters them first (os/namespaces.ts) and comes here after.
 */
import { execFile } from 'node:child_process';
import { closeSync, constants, lstatSync, mkdirSync, openSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { Errno, errnoName } from '../abi/errno.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import {
  type DescriptorWatch,
  detachNow,
  Libc,
  mount,
  read,
  requireFfi,
  umount2,
  watchReadable,
  write,
} from './libc.ts';
import { makeFolder } from './make-folder.ts';

const DEVICE = '/dev/fuse';
/** Shown by mount(8) and df(1); also how a later start knows what an earlier one left behind. */
const MOUNT_TYPE = 'fuse.softsnp';
/** How long a mounted server may take to answer before it counts as alive but stuck. */
const PROBE_TIMEOUT_MS = 5000;

/** Places that a normal end of the process still has to leave. */
const mounted = new Set<string>();
let exitHook = false;

function remember(target: string): void {
  mounted.add(target);
  if (!exitHook) {
    exitHook = true;
    process.once('exit', () => {
      for (const left of [...mounted].reverse()) {
        detachNow(left);
      }
    });
  }
}

/** The server's end of one mounted connection, and every place it is bound to. */
export class FuseMount {
  /** The folder the file system is mounted on, links resolved. */
  readonly target: string;
  readonly #fd: number;
  readonly #binds: string[] = [];
  #attached = true;
  #open = true;

  private constructor(fd: number, target: string) {
    this.#fd = fd;
    this.target = target;
  }

  /**
   * Opens /dev/fuse and mounts it on a folder. Nobody can enter before INIT is answered.
   *
   * What a dead server left mounted there is detached first.
   *
   * Errors   FUSE_UNAVAILABLE, MOUNT_REFUSED, MOUNT_POINT_INVALID; then nothing is mounted. FFI_UNAVAILABLE
   */
  static async mount(folder: string): Promise<FuseMount> {
    requireFfi('emulated devices');
    const { place: target, isFolder } = await clearPlace(folder);
    if (!isFolder) {
      throw new EnvironmentError('MOUNT_POINT_INVALID', 'not a folder', { where: target });
    }
    let fd: number;
    try {
      fd = openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
    } catch (cause) {
      throw new EnvironmentError('FUSE_UNAVAILABLE', `cannot be opened: ${errnoCode(cause)}`, {
        where: DEVICE,
        cause,
      });
    }
    // The owner of the mount is whoever runs the server; allow_other lets everybody in and leaves the
    // decision to the modes of the files, which default_permissions makes the kernel enforce.
    const options = `fd=${fd},rootmode=40000,user_id=${process.geteuid!()},group_id=${process.getegid!()},allow_other,default_permissions`;
    const flags = Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC;
    const result = await mount('softsnp', target, MOUNT_TYPE, flags, options);
    if (result < 0) {
      closeSync(fd);
      throw refusal(result, target);
    }
    remember(target);
    return new FuseMount(fd, target);
  }

  /** One request into `into`: its length, or -errno; -EAGAIN when there is none now. */
  read(into: Uint8Array): number {
    return this.#open ? read(this.#fd, into) : -Errno.ENODEV;
  }

  /** One reply: its length, or -errno; -ENOENT when nobody waits for it any more. */
  write(reply: Uint8Array): number {
    // The number of a closed descriptor may already be somebody else's.
    return this.#open ? write(this.#fd, reply) : -Errno.ENODEV;
  }

  watch(onReadable: () => void): DescriptorWatch {
    return watchReadable(this.#fd, onReadable);
  }

  /**
   * Shows a file or folder of this file system at an existing path of the same kind.
   *
   * What a dead server left bound there is detached first. The event loop must be free to answer lookups.
   *
   * Errors   MOUNT_REFUSED, MOUNT_POINT_INVALID
   */
  async bind(inner: string, target: string): Promise<void> {
    const { place } = await clearPlace(target);
    const result = await mount(join(this.target, inner), place, null, Libc.MS_BIND, null);
    if (result < 0) {
      throw refusal(result, place);
    }
    this.#binds.push(place);
    remember(place);
  }

  /**
   * Takes the file system out of the folder tree: no new client gets in, those inside go on.
   *
   * Detaching is lazy on purpose: a client that keeps a descriptor open must not keep the host from ending.
   */
  async detach(): Promise<void> {
    if (!this.#attached) {
      return;
    }
    this.#attached = false;
    for (const place of [...this.#binds.reverse(), this.target]) {
      await umount2(place, Libc.MNT_DETACH);
      mounted.delete(place);
    }
  }

  /** Ends the connection: whoever still waits gets ECONNABORTED, whoever still holds a file ENOTCONN. */
  close(): void {
    if (this.#open) {
      this.#open = false;
      closeSync(this.#fd);
    }
  }
}

/**
 * Makes a folder to mount on where there is none. What a dead softsnp left mounted there, or on a folder above
 * it, is detached first.
 *
 * Returns  its path, links resolved in the folders above it
 * Errors   MOUNT_POINT_INVALID, MOUNT_REFUSED
 */
export async function makeMountPoint(path: string): Promise<string> {
  const absolute = resolve(path);
  for (const above of foldersAbove(absolute)) {
    // Nothing below a mount whose server hangs can be looked at without hanging, too.
    await detachStale(above);
  }
  try {
    makeFolder(dirname(absolute));
    const place = join(realpathSync(dirname(absolute)), basename(absolute));
    await detachStale(place);
    if (lstatSync(place, { throwIfNoEntry: false }) === undefined) {
      mkdirSync(place);
    }
    return place;
  } catch (cause) {
    throw unusable(cause, path);
  }
}

/** The outermost first. */
function foldersAbove(path: string): string[] {
  const above = dirname(path);
  return above === path ? [] : [...foldersAbove(above), above];
}

function unusable(cause: unknown, path: string): EnvironmentError {
  if (cause instanceof EnvironmentError) {
    return cause;
  }
  const message = `cannot be used: ${errnoCode(cause)}`;
  return new EnvironmentError('MOUNT_POINT_INVALID', message, { where: path, cause });
}

/**
 * The place a path means, ready to be mounted on: parent folders resolved, what a dead softsnp left there
 * detached, and not a symbolic link.
 */
async function clearPlace(path: string): Promise<{ readonly place: string; readonly isFolder: boolean }> {
  try {
    const absolute = resolve(path);
    const place = join(realpathSync(dirname(absolute)), basename(absolute));
    await detachStale(place);
    const stat = lstatSync(place);
    if (stat.isSymbolicLink()) {
      throw new EnvironmentError('MOUNT_POINT_INVALID', 'is a symbolic link', { where: path });
    }
    return { place, isFolder: stat.isDirectory() };
  } catch (cause) {
    throw unusable(cause, path);
  }
}

/**
 * Detaches softsnp mounts at `place` whose server is gone. The path may not exist any more.
 *
 * Errors   MOUNT_POINT_INVALID when a server is still behind one of them
 */
export async function detachStale(place: string): Promise<void> {
  for (let left = mountsAt(place); left > 0; left--) {
    const answer = await probe(place);
    if (answer !== 'ENOTCONN' && answer !== 'ECONNABORTED') {
      const state = answer === null ? 'and does not answer' : 'and answers';
      throw new EnvironmentError('MOUNT_POINT_INVALID', `another softsnp is mounted here ${state}`, {
        where: place,
      });
    }
    const result = await umount2(place, Libc.MNT_DETACH);
    if (result < 0) {
      throw new EnvironmentError('MOUNT_REFUSED', `stale mount: umount2(2) answered ${errnoName(result)}`, {
        where: place,
      });
    }
  }
}

/** How many file systems of ours are mounted exactly here, one over the other. */
function mountsAt(place: string): number {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const point = before.split(' ')[4] ?? '';
      const unescaped = point.replace(/\\([0-7]{3})/g, (_, octal) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      );
      return after.startsWith(`${MOUNT_TYPE} `) && unescaped === place;
    }).length;
}

/**
 * What stat(2) says about a place where a server may hang: '' when all is well, an error name, or null
 * for no answer in time. Another process asks, since a thread of ours that waits there could never be ended.
 */
function probe(place: string): Promise<string | null> {
  const script = 'try{require("fs").lstatSync(process.argv[1])}catch(e){process.stdout.write(e.code)}';
  return new Promise((settle) => {
    execFile(
      process.execPath,
      ['-e', script, place],
      { timeout: PROBE_TIMEOUT_MS, killSignal: 'SIGKILL' },
      (error, stdout) => settle(error === null ? stdout : null),
    );
  });
}

function refusal(result: number, target: string): EnvironmentError {
  const name = errnoName(result);
  return new EnvironmentError(
    result === -Errno.EPERM || result === -Errno.EACCES || result === -Errno.ENODEV
      ? 'MOUNT_REFUSED'
      : 'MOUNT_POINT_INVALID',
    `mount(2) answered ${name}`,
    { where: target },
  );
}
