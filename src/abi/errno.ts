// SPDX-License-Identifier: Apache-2.0
/** Linux error numbers on x86-64. [LINUX-UAPI] asm-generic/errno-base.h, asm-generic/errno.h. */

export const Errno = Object.freeze({
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ENODATA: 61,
  ENOSR: 63,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ECONNABORTED: 103,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  ESTALE: 116,
  EDQUOT: 122,
  EHWPOISON: 133,
  /** Kernel-internal, yet /dev/sev lets it out to user space. */
  ENOTSUPP: 524,
} as const);

export type ErrnoName = keyof typeof Errno;

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(Errno).map(([name, value]) => [value, name]),
);

/**
 * The symbol of an error number.
 *
 * Returns  the name for 5 and for -5 alike; "errno 200" for a number without one
 */
export function errnoName(n: number): string {
  return NAMES.get(Math.abs(n)) ?? `errno ${Math.abs(n)}`;
}
