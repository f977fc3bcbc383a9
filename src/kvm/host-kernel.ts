// SPDX-License-Identifier: Apache-2.0
/** The host's Linux kernel as far as SNP needs it: processes, the ccp driver and KVM. */
import type { SecureProcessor } from '../firmware/secure-processor.ts';
import type { Hardware } from '../hw/hardware.ts';
import type { Uaddr } from '../lib/addresses.ts';
import type { Clock } from '../lib/clock.ts';
import { BugError } from '../lib/errors.ts';
import type { EngineFactory, KvmEvents, RunOutcome } from './contract.ts';

export interface HostKernelOptions {
  readonly hw: Hardware;
  readonly psp: SecureProcessor;
  readonly clock: Clock;
  readonly engines: EngineFactory;
  readonly onEvent?: KvmEvents;
}

/**
 * One booted host kernel.
 *
 * A VM has an in-kernel LAPIC (APs start UNINITIALIZED, HLT blocks) only after KVM_CREATE_IRQCHIP (0xAE60)
 * or KVM_CAP_SPLIT_IRQCHIP (121), given before the first vCPU, as with the real kernel.
 */
export class HostKernel {
  constructor(_options: HostKernelOptions) {
    throw new BugError('being written');
  }

  spawn(_name: string): HostProcess {
    throw new BugError('being written');
  }
}

/** A userspace process: memory, file descriptors, system calls. */
export class HostProcess {
  readonly name: string = '';

  /** Anonymous memory, zero until written; the size is rounded up to pages. */
  mmap(_size: number): Uaddr {
    throw new BugError('being written');
  }

  /** 0 or -EINVAL. */
  munmap(_at: Uaddr, _size: number): number {
    throw new BugError('being written');
  }

  /** Null where a load would fault. */
  read(_at: Uaddr, _length: number): Uint8Array | null {
    throw new BugError('being written');
  }

  /** False where a store would fault (nothing mapped, or the RMP gives the page to a guest). */
  write(_at: Uaddr, _data: Uint8Array): boolean {
    throw new BugError('being written');
  }

  openDevKvm(): number {
    throw new BugError('being written');
  }

  openDevSev(_mode: { readonly write: boolean }): number {
    throw new BugError('being written');
  }

  close(_fd: number): number {
    throw new BugError('being written');
  }

  /** A file descriptor, a count or 0; -errno on failure. Structures are read and written at `arg`. */
  ioctl(_fd: number, _nr: number, _arg: bigint): number {
    throw new BugError('being written');
  }

  fallocate(_fd: number, _mode: number, _offset: number, _length: number): number {
    throw new BugError('being written');
  }

  /** The vCPU's shared pages (12288 bytes, live): kvm_run, then the PIO data page. */
  mmapVcpu(_fd: number): Uint8Array {
    throw new BugError('being written');
  }

  /** KVM_RUN with argument 0. */
  run(_vcpuFd: number): RunOutcome {
    throw new BugError('being written');
  }

  /** A signal for the thread that runs this vCPU: its KVM_RUN ends with -EINTR, exit_reason KVM_EXIT_INTR. */
  signal(_vcpuFd: number): void {
    throw new BugError('being written');
  }
}
