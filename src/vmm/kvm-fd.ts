// SPDX-License-Identifier: Apache-2.0
/** System calls on KVM's file descriptors: structures go through a scratch page of the process. */
import { KvmIoctl } from '../abi/kvm.ts';
import { KvmSevCmd, kvmSevCmdName } from '../abi/kvm-sev.ts';
import type { HostProcess } from '../kvm/host-kernel.ts';
import { PAGE_SIZE, type Uaddr, uaddr } from '../lib/addresses.ts';
import { invariant } from '../lib/errors.ts';

/** A call that failed, by the name of what was called. */
export interface KvmRefusal {
  readonly ok: false;
  readonly step: string;
  /** Positive. */
  readonly errno: number;
  /** Status of the firmware command behind it; null when none was reported. */
  readonly fwStatus: number | null;
}

const STRUCT_AT = 0n;
const ENVELOPE_AT = 0x400n;
/** Room behind the structures, for what they point at. */
export const ATTACHMENT_AT = 0x1000n;
const SCRATCH_SIZE = 8 * PAGE_SIZE;
/** What a caller leaves in `error`: no firmware status has this value. */
const NO_STATUS = 0xffff_fffe;

export class KvmCalls {
  readonly process: HostProcess;
  readonly #scratch: Uaddr;

  constructor(process: HostProcess) {
    this.process = process;
    this.#scratch = process.mmap(SCRATCH_SIZE);
  }

  /** An ioctl whose argument is a structure in memory; the result is its own or -errno. */
  ioctl(fd: number, nr: number, struct: Uint8Array): number {
    return this.process.ioctl(fd, nr, this.put(STRUCT_AT, struct));
  }

  /** Places bytes in the scratch area, for a structure to point at. */
  put(offset: bigint, bytes: Uint8Array): Uaddr {
    const at = uaddr(this.#scratch + offset);
    invariant(this.process.write(at, bytes), 'the scratch area is writable');
    return at;
  }

  /** The structure of the last call, as the kernel left it. */
  readBack(length: number): Uint8Array {
    const bytes = this.process.read(uaddr(this.#scratch + STRUCT_AT), length);
    invariant(bytes !== null, 'the scratch area is readable');
    return bytes;
  }

  /** KVM_MEMORY_ENCRYPT_OP. Null for success. */
  sev(vmFd: number, sevFd: number, id: number, struct: Uint8Array | null): KvmRefusal | null {
    const data = struct === null ? 0n : this.put(STRUCT_AT, struct);
    const at = this.put(ENVELOPE_AT, KvmSevCmd.encode({ id, data, error: NO_STATUS, sev_fd: sevFd }));
    const ret = this.process.ioctl(vmFd, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, at);
    if (ret >= 0) {
      return null;
    }
    const answer = this.process.read(at, KvmSevCmd.size);
    const error = answer === null ? NO_STATUS : KvmSevCmd.get(answer, 'error');
    return {
      ok: false,
      step: kvmSevCmdName(id),
      errno: -ret,
      fwStatus: error === NO_STATUS || error === 0 ? null : error,
    };
  }
}
