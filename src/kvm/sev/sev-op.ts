// SPDX-License-Identifier: Apache-2.0
/** One KVM_MEMORY_ENCRYPT_OP on its way, and the firmware calls it makes. */
import { Errno } from '../../abi/errno.ts';
import type { PspResult } from '../ccp.ts';
import { DevSev } from '../dev-sev.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';

export interface SevOp {
  readonly id: number;
  /** User pointer to the command's own structure. */
  readonly data: bigint;
  readonly sevFd: number;
  /** What the envelope will say: the caller's value until a firmware command has run. */
  error: number;
}

/** Gives the firmware a command with the authority of a /dev/sev descriptor; -EBADF when it is none. */
export function issueWithFd(
  vm: Vm,
  process: HostProcess,
  fd: number,
  cmd: number,
  buffer: Uint8Array,
): PspResult {
  return process.files.get(fd) instanceof DevSev
    ? vm.services.ccp.issue(cmd, buffer)
    : { errno: -Errno.EBADF, status: null };
}

/** As issueWithFd with the envelope's descriptor; the status goes to the envelope. Returns the errno. */
export function issueForOp(vm: Vm, process: HostProcess, op: SevOp, cmd: number, buffer: Uint8Array): number {
  const { errno, status } = issueWithFd(vm, process, op.sevFd, cmd, buffer);
  op.error = status ?? op.error;
  return errno;
}
