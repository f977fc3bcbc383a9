// SPDX-License-Identifier: Apache-2.0
/**
 * The system calls Node has no function for, through koffi: loaded once, at first use, and optional.
 *
 * Every call answers as the kernel does: 0 or a count, or a negative errno. The only exception thrown
 * here is FFI_UNAVAILABLE, when the library cannot be loaded at all.
 */
import { createRequire } from 'node:module';
import { writeU64 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';

type Koffi = typeof import('koffi');
/** What the calls bound here take and give: numbers, texts, memory. */
type Native = (...args: (number | string | null | Uint8Array)[]) => number;
interface AsyncNative extends Native {
  async(...args: (number | string | null | Uint8Array | ((error: unknown, result: number) => void))[]): void;
}

/** <fcntl.h>, <sys/mount.h>: values of x86-64 and arm64 alike. */
export const Libc = {
  F_SETFD: 2,
  FD_CLOEXEC: 1,
  CLONE_NEWPID: 0x2000_0000,
  SIG_BLOCK: 0,
  F_OFD_SETLK: 37,
  F_RDLCK: 0,
  F_WRLCK: 1,
  F_UNLCK: 2,
  MS_RDONLY: 1,
  MS_NOSUID: 2,
  MS_NODEV: 4,
  MS_NOEXEC: 8,
  MS_BIND: 4096,
  MS_REC: 16384,
  MS_PRIVATE: 1 << 18,
  MNT_DETACH: 2,
} as const;

export type LockType = 'read' | 'write' | 'unlock';

/** Watches one descriptor on Node's own event loop. */
export interface DescriptorWatch {
  close(): void;
}

interface Bindings {
  readonly koffi: Koffi;
  readonly fcntl: Native;
  readonly fcntlFlock: Native;
  readonly ioctl: Native;
  readonly ioctlPointer: AsyncNative;
  readonly read: Native;
  readonly write: Native;
  readonly socket: Native;
  readonly connect: Native;
  readonly execvp: (file: string, argv: readonly (string | null)[]) => number;
  readonly unshare: Native;
  readonly sigmask: Native;
  readonly mount: AsyncNative;
  readonly umount2: AsyncNative;
  readonly chdir: AsyncNative;
  readonly processVmReadv: Native;
  readonly processVmWritev: Native;
}

let bindings: Bindings | EnvironmentError | undefined;

function bind(): Bindings {
  const koffi = createRequire(import.meta.url)('koffi') as Koffi;
  const libc = koffi.load(null);
  return {
    koffi,
    fcntl: libc.func('int fcntl(int fd, int cmd, ...)'),
    // A fixed prototype: on Linux the third argument of a variadic call travels like any other, and koffi
    // takes five times as long for a variadic one, twice for each attestation request.
    fcntlFlock: libc.func('fcntl', 'int', ['int', 'int', 'const void *']),
    ioctl: libc.func('int ioctl(int fd, unsigned long request, ...)'),
    // Koffi cannot call variadic functions from its pool; on Linux one pointer is passed the same way.
    ioctlPointer: libc.func('int ioctl(int fd, unsigned long request, void *arg)'),
    read: libc.func('long read(int fd, void *buf, size_t count)'),
    write: libc.func('long write(int fd, const void *buf, size_t count)'),
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    connect: libc.func('int connect(int fd, const void *address, unsigned int length)'),
    execvp: libc.func('int execvp(const char *file, const char **argv)'),
    unshare: libc.func('int unshare(int flags)'),
    sigmask: libc.func('int pthread_sigmask(int how, const void *set, void *old)'),
    mount: libc.func(
      'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
    ),
    umount2: libc.func('int umount2(const char *target, int flags)'),
    chdir: libc.func('int chdir(const char *path)'),
    processVmReadv: libc.func(
      'long process_vm_readv(int pid, const void *local, unsigned long nlocal, const void *remote, unsigned long nremote, unsigned long flags)',
    ),
    processVmWritev: libc.func(
      'long process_vm_writev(int pid, const void *local, unsigned long nlocal, const void *remote, unsigned long nremote, unsigned long flags)',
    ),
  };
}

function native(forWhat: string): Bindings {
  if (bindings === undefined) {
    try {
      bindings = bind();
    } catch (cause) {
      bindings = new EnvironmentError('FFI_UNAVAILABLE', 'koffi cannot be loaded', { cause });
    }
  }
  if (bindings instanceof EnvironmentError) {
    throw new EnvironmentError('FFI_UNAVAILABLE', `koffi cannot be loaded; what does not work: ${forWhat}`, {
      cause: bindings.cause,
    });
  }
  return bindings;
}

/**
 * States that what follows cannot do without these calls, before anything is opened for it.
 *
 * Errors   FFI_UNAVAILABLE, naming what does not work
 */
export function requireFfi(forWhat: string): void {
  native(forWhat);
}

/**
 * The library itself, for calls that a single file makes.
 *
 * Errors   FFI_UNAVAILABLE, naming what does not work
 */
export function koffiFor(forWhat: string): typeof import('koffi') {
  return native(forWhat).koffi;
}

/** Whether system calls can be made at all; asks without throwing. */
export function ffiAvailable(): boolean {
  try {
    native('anything');
    return true;
  } catch {
    return false;
  }
}

function outcome(lib: Bindings, result: number): number {
  return result < 0 ? -lib.koffi.errno() : result;
}

/** struct flock: l_type i16, l_whence i16 (SEEK_SET), l_start i64, l_len i64 (0: to the end), l_pid i32 (0). */
const FLOCK_SIZE = 32;
/** F_OFD_SETLK only reads them. */
const FLOCKS: Readonly<Record<LockType, Uint8Array>> = {
  read: flock(Libc.F_RDLCK),
  write: flock(Libc.F_WRLCK),
  unlock: flock(Libc.F_UNLCK),
};

function flock(type: number): Uint8Array {
  const struct = new Uint8Array(FLOCK_SIZE);
  struct[0] = type;
  return struct;
}

/**
 * Takes, converts or drops the open-file-description lock on the whole file, without waiting.
 *
 * Returns  0, or a positive errno: EAGAIN (11) or EACCES (13) when another description holds it,
 *          EBADF (9) when the descriptor lacks the access mode, EINVAL (22) where the kernel has no OFD locks
 * Errors   FFI_UNAVAILABLE
 */
export function fcntlLock(fd: number, type: LockType): number {
  const lib = native('locks on certificate blobs and state folders');
  const result = lib.fcntlFlock(fd, Libc.F_OFD_SETLK, FLOCKS[type]);
  return result < 0 ? lib.koffi.errno() : 0;
}

/** read(2) into `into`; on a non-blocking descriptor it never sleeps. */
export function read(fd: number, into: Uint8Array): number {
  const lib = native('emulated devices');
  return outcome(lib, lib.read(fd, into, into.length));
}

/** write(2) of the whole of `from` in one call. */
export function write(fd: number, from: Uint8Array): number {
  const lib = native('emulated devices');
  return outcome(lib, lib.write(fd, from, from.length));
}

/** socket(2). */
export function socket(domain: number, type: number, protocol: number): number {
  const lib = native('private networks and sd_notify');
  return outcome(lib, lib.socket(domain, type, protocol));
}

/** connect(2) to an address in the form of the socket's family. */
export function connect(fd: number, address: Uint8Array): number {
  const lib = native('sd_notify');
  return outcome(lib, lib.connect(fd, address, address.length));
}

/**
 * execvp(3): this process becomes another program, keeping its process id, terminal, stdio and `descriptors`.
 *
 * Returns  only when that failed, with the negative errno
 */
export function execvp(file: string, argv: readonly string[], descriptors: readonly number[]): number {
  const lib = native('entering namespaces');
  // Node marks every descriptor it inherits close-on-exec, stdio included.
  for (const fd of [0, 1, 2, ...descriptors]) {
    lib.fcntl(fd, Libc.F_SETFD, 'int', 0);
  }
  return outcome(lib, lib.execvp(file, [file, ...argv, null]));
}

/** Keeps a descriptor from programs that this process starts, but those it is given to. */
export function closeOnExec(fd: number): void {
  native('passing descriptors on').fcntl(fd, Libc.F_SETFD, 'int', Libc.FD_CLOEXEC);
}

/** unshare(2) of the calling thread: the main one, and what it starts from now on. */
export function unshare(flags: number): number {
  const lib = native('private namespaces');
  return outcome(lib, lib.unshare(flags));
}

/** sigset_t of glibc and musl. */
const SIGSET_SIZE = 128;

/** pthread_sigmask(3): the main thread blocks a signal from now on. */
export function blockSignal(signal: number): number {
  const set = new Uint8Array(SIGSET_SIZE);
  set[(signal - 1) >> 3] = 1 << ((signal - 1) & 7);
  return -native('terminals').sigmask(Libc.SIG_BLOCK, set, null);
}

/** ioctl(2) whose argument is a structure (read and written in place) or a number. */
export function ioctl(fd: number, request: number, arg: Uint8Array | number): number {
  const lib = native('ioctl clients');
  const result =
    typeof arg === 'number'
      ? lib.ioctl(fd, request, 'unsigned long', arg)
      : lib.ioctl(fd, request, 'void *', arg);
  return outcome(lib, result);
}

function onPool(
  lib: Bindings,
  call: AsyncNative,
  args: readonly (number | string | null | Uint8Array)[],
): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: number) => {
      // Koffi hands the errno of the pool thread over for the time of this callback.
      const errno = lib.koffi.errno();
      if (error !== null && error !== undefined) {
        reject(error);
      } else {
        resolve(result < 0 ? -errno : result);
      }
    });
  });
}

/**
 * ioctl(2) with a structure, on a pool thread: it may take as long as the device likes. The structure and
 * whatever it points at must stay referenced until then.
 */
export function ioctlOnPool(fd: number, request: number, arg: Uint8Array): Promise<number> {
  const lib = native('ioctl clients');
  return onPool(lib, lib.ioctlPointer, [fd, request, arg]);
}

/** Where bytes lie in memory. It holds as long as they are referenced, for those of an ArrayBuffer of their own. */
export function addressOf(bytes: Uint8Array): bigint {
  return native('ioctl clients').koffi.address(bytes);
}

/**
 * mount(2) on a pool thread: a path inside a filesystem this process serves can only be resolved while
 * the event loop is free to answer.
 */
export function mount(
  source: string,
  target: string,
  type: string | null,
  flags: number,
  data: string | null,
): Promise<number> {
  const lib = native('mounting emulated devices');
  return onPool(lib, lib.mount, [source, target, type, flags, data]);
}

/** mount(2) at once: for paths that no server of this process has to resolve. */
export function mountNow(
  source: string,
  target: string,
  type: string | null,
  flags: number,
  data: string | null,
): number {
  const lib = native('mounting emulated devices');
  return outcome(lib, lib.mount(source, target, type, flags, data));
}

/** umount2(2) on a pool thread, for the same reason as `mount`. */
export function umount2(target: string, flags: number): Promise<number> {
  const lib = native('unmounting emulated devices');
  return onPool(lib, lib.umount2, [target, flags]);
}

/** chdir(2) of the whole process on a pool thread, for the same reason as `mount`. */
export function chdir(path: string): Promise<number> {
  const lib = native('private file trees');
  return onPool(lib, lib.chdir, [path]);
}

/** One umount2(2) with MNT_DETACH, at once: what an exit handler can still do. */
export function detachNow(target: string): number {
  const lib = native('unmounting emulated devices');
  return outcome(lib, lib.umount2(target, Libc.MNT_DETACH));
}

/**
 * Calls `onReadable` on the event loop whenever the descriptor has something to read or has failed.
 *
 * The callback runs in the check phase, so that promises it settles go on at once: koffi's own
 * notification runs outside Node's callback scope, where microtasks would wait for the next event.
 */
export function watchReadable(fd: number, onReadable: () => void): DescriptorWatch {
  const lib = native('emulated devices');
  let queued = false;
  let closed = false;
  const handle = lib.koffi.node.poll(fd, { readable: true }, () => {
    if (!queued && !closed) {
      queued = true;
      setImmediate(() => {
        queued = false;
        if (!closed) {
          onReadable();
        }
      });
    }
  });
  return {
    close() {
      if (!closed) {
        closed = true;
        handle.close();
      }
    },
  };
}

/** struct iovec: base u64, length u64. */
function iovec(base: bigint, length: number): Uint8Array {
  const vector = new Uint8Array(16);
  writeU64(vector, 0, base);
  writeU64(vector, 8, BigInt(length));
  return vector;
}

/** process_vm_readv(2) of one range of another process into `into`; short counts are returned as they are. */
export function processVmRead(pid: number, from: bigint, into: Uint8Array): number {
  const lib = native('following pointers of device clients');
  const local = iovec(lib.koffi.address(into), into.length);
  const remote = iovec(from, into.length);
  return outcome(lib, lib.processVmReadv(pid, local, 1, remote, 1, 0));
}

/** process_vm_writev(2) of `from` to one range of another process. */
export function processVmWrite(pid: number, to: bigint, from: Uint8Array): number {
  const lib = native('following pointers of device clients');
  const local = iovec(lib.koffi.address(from), from.length);
  const remote = iovec(to, from.length);
  return outcome(lib, lib.processVmWritev(pid, local, 1, remote, 1, 0));
}
