// SPDX-License-Identifier: Apache-2.0
/**
 * Open-file-description locks on the whole file, never waiting: fcntl(F_OFD_SETLK). They belong to the
 * open file, not to the process, so two guests of one process and a management tool exclude each other as
 * the kernel's documentation of KVM_SEV_SNP_ENABLE_REQ_CERTS wants. The last close of the description drops them.
 */
import { constants } from 'node:os';
import { errnoName } from '../abi/errno.ts';
import { fcntlLock } from './libc.ts';

export type LockAnswer = 'locked' | 'busy' | { readonly error: string };

/**
 * Takes a lock for as long as `fd` stays open.
 *
 * Errors   FFI_UNAVAILABLE without koffi
 */
export function tryLock(fd: number, type: 'read' | 'write'): LockAnswer {
  const errno = fcntlLock(fd, type);
  if (errno === 0) {
    return 'locked';
  }
  return errno === constants.errno.EAGAIN || errno === constants.errno.EACCES
    ? 'busy'
    : { error: `fcntl(F_OFD_SETLK) answered ${errnoName(errno)}` };
}

/** Drops the lock at once; false when the kernel would not, and only closing the file will. */
export function unlock(fd: number): boolean {
  return fcntlLock(fd, 'unlock') === 0;
}
