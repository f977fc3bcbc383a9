// SPDX-License-Identifier: Apache-2.0
/**
 * The memory of a process that waits in a system call of an emulated device: what copy_from_user and
 * copy_to_user are to a driver.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { processVmRead, processVmWrite } from './libc.ts';

export interface MemoryFault {
  /** EFAULT, or EIO when the process cannot be reached at all. */
  readonly errno: number;
}

export interface CallerMemory {
  /** A copy of `length` bytes at a user address the client chose. */
  read(address: bigint, length: number): Uint8Array | MemoryFault;
  /** Null when every byte was written; after a fault a first part may have been. */
  write(address: bigint, bytes: Uint8Array): null | MemoryFault;
}

/** Told of each copy that the kernel keeps from us: the client only sees EFAULT. */
export type OnDenied = (pid: number, errno: number) => void;

/** No device of ours moves more in one copy; a larger length is a wild one. */
const MAX_COPY_BYTES = 1 << 20;
/** End of the user half of the address space, 5-level page tables included. */
const USER_END = 1n << 56n;

const EFAULT: MemoryFault = Object.freeze({ errno: Errno.EFAULT });
const EIO: MemoryFault = Object.freeze({ errno: Errno.EIO });

type Direction = 'read' | 'write';

/** One copy between `bytes` and another process: a count, or -errno. */
type Copy = (pid: number, address: bigint, bytes: Uint8Array) => number;
const SYSTEM_CALLS: Readonly<Record<Direction, Copy>> = { read: processVmRead, write: processVmWrite };

/**
 * The memory of the thread `pid` (a thread id, as a FUSE request names its caller).
 *
 * Returns  process_vm_readv and process_vm_writev where allowed, as they honour page protections the way
 *          copy_to_user does; /proc/TID/mem where a sandbox filters those calls. A pid of 0, a caller
 *          outside our pid namespace, answers EIO
 * Errors   FFI_UNAVAILABLE
 * Differs  through /proc/TID/mem a write to a read-only page succeeds where copy_to_user gives EFAULT
 */
export function callerMemory(
  pid: number,
  onDenied: OnDenied = () => undefined,
  systemCalls = SYSTEM_CALLS,
): CallerMemory {
  const copy = (direction: Direction, address: bigint, bytes: Uint8Array): null | MemoryFault => {
    if (pid === 0) {
      return EIO;
    }
    if (bytes.length === 0) {
      return null;
    }
    if (address < 0n || address + BigInt(bytes.length) > USER_END) {
      return EFAULT;
    }
    const count = systemCalls[direction](pid, address, bytes);
    if (count === bytes.length) {
      return null;
    }
    if (count === -Errno.EPERM || count === -Errno.ENOSYS) {
      if (copyThroughProc(pid, direction, address, bytes)) {
        return null;
      }
      onDenied(pid, -count);
    }
    return EFAULT;
  };
  return {
    read(address, length) {
      if (length > MAX_COPY_BYTES) {
        return EFAULT;
      }
      const bytes = new Uint8Array(length);
      return copy('read', address, bytes) ?? bytes;
    },
    write: (address, bytes) => copy('write', address, bytes),
  };
}

/** One copy through /proc/TID/mem; false for every kind of failure, a short count included. */
function copyThroughProc(pid: number, direction: Direction, address: bigint, bytes: Uint8Array): boolean {
  const position = Number(address);
  if (!Number.isSafeInteger(position)) {
    return false;
  }
  let fd = -1;
  try {
    // Opened for each copy: the descriptor pins the address space, and the caller may exec between two.
    fd = openSync(`/proc/${pid}/mem`, direction === 'read' ? constants.O_RDONLY : constants.O_RDWR);
    const count =
      direction === 'read'
        ? readSync(fd, bytes, 0, bytes.length, position)
        : writeSync(fd, bytes, 0, bytes.length, position);
    return count === bytes.length;
  } catch {
    return false;
  } finally {
    if (fd >= 0) {
      closeSync(fd);
    }
  }
}
