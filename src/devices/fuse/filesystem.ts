// SPDX-License-Identifier: Apache-2.0
/**
 * What a device shows and how it answers: a tree of nodes, handles of open files, ioctls.
 *
 * A device implements these interfaces and knows nothing of the wire. Every answer is a value: the thing
 * asked for, or a `Refusal` with a positive errno. Answers may be promises; other requests go on meanwhile.
 * An exception is a defect: the client gets EIO and `onFault` is told.
 */
import type { CallerMemory } from '../../os/process-memory.ts';

/** Who made the system call, as numbers of the mount's user and pid namespaces. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  /** Thread id; 0 when the caller is not visible from here, and for RELEASE. */
  readonly pid: number;
}

/** "The system call fails with this error number", 1 to 511. */
export interface Refusal {
  readonly errno: number;
}

export type Eventually<T> = T | Promise<T>;

export function refuse(errno: number): Refusal {
  return { errno };
}

export function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === 'object' && answer !== null && 'errno' in answer;
}

export interface IoctlRequest {
  readonly cmd: number;
  /** Third argument of ioctl(2) as the client gave it. */
  readonly arg: bigint;
  /** What the kernel copied in from `arg`: _IOC_SIZE(cmd) bytes when the number says _IOC_WRITE, else none. */
  readonly input: Uint8Array;
  /** How many bytes at `arg` the answer may replace: _IOC_SIZE(cmd) when the number says _IOC_READ, else 0. */
  readonly outputSize: number;
  readonly caller: Caller;
  /** For the pointers inside the structure; usable until the answer is given. */
  readonly memory: CallerMemory;
}

export interface IoctlAnswer {
  /** Return value of ioctl(2), or -errno (524 allowed). */
  readonly result: number;
  /** Copied out to `arg`, also when `result` is negative; shorter than outputSize leaves the rest as it was. */
  readonly output?: Uint8Array;
}

/** One open file description: shared by descriptors that were duplicated, released after the last close. */
export interface FileHandle {
  /** At most `size` bytes; fewer end the client's read, none is the end of the file. Absent: EINVAL. */
  read?(offset: number, size: number, caller: Caller): Eventually<Uint8Array | Refusal>;
  /** How many bytes were taken. Absent: EINVAL. */
  write?(offset: number, data: Uint8Array, caller: Caller): Eventually<number | Refusal>;
  /** Callers of 32 bits never get here: they are answered ENOTTY. Absent: ENOTTY. */
  ioctl?(request: IoctlRequest): Eventually<IoctlAnswer>;
  /** Each close(2) of each descriptor waits for this; a refusal becomes the result of close(2). */
  flush?(caller: Caller): Eventually<null | Refusal>;
  /** After the last close; nobody waits for it. */
  release?(): void;
}

export interface FileNode {
  readonly kind: 'file';
  /** Permission bits at first; chmod(2) replaces what clients see. */
  readonly mode: number;
  /** st_size, 0 when absent. Reads do not depend on it. */
  readonly size?: number;
  /** `flags` are those of open(2); O_TRUNC comes here and not as a truncation. */
  open(flags: number, caller: Caller): Eventually<FileHandle | Refusal>;
  /** truncate(2) and ftruncate(2). Absent: EINVAL, as for a character device. */
  truncate?(size: bigint): null | Refusal;
}

export interface DirectoryNode {
  readonly kind: 'directory';
  readonly mode: number;
  /** The same object for the same thing each time: a node's identity is its inode number. */
  lookup(name: string): FsNode | null;
  entries(): Iterable<readonly [name: string, node: FsNode]>;
  /** Absent: EPERM. Not called for a name that `lookup` finds. */
  mkdir?(name: string, caller: Caller): Eventually<DirectoryNode | Refusal>;
  /** Absent: EPERM. The kernel does not ask for an empty directory; that is decided here. */
  rmdir?(name: string, caller: Caller): Eventually<null | Refusal>;
}

export type FsNode = FileNode | DirectoryNode;

/** Which way an open(2) wants to go. */
export function accessMode(flags: number): 'read' | 'write' | 'read-write' {
  const mode = flags & 3;
  return mode === 0 ? 'read' : mode === 1 ? 'write' : 'read-write';
}

/** A directory whose entries are chosen once. */
export function fixedDirectory(entries: Readonly<Record<string, FsNode>>, mode = 0o755): DirectoryNode {
  const table = new Map(Object.entries(entries));
  return { kind: 'directory', mode, lookup: (name) => table.get(name) ?? null, entries: () => table };
}

/** A read-only file of bytes that are rendered anew at each open. */
export function renderedFile(render: () => Uint8Array, mode = 0o444): FileNode {
  return {
    kind: 'file',
    mode,
    get size() {
      return render().length;
    },
    open() {
      const bytes = render();
      return { read: (offset, size) => bytes.slice(offset, offset + size) };
    },
  };
}
