// SPDX-License-Identifier: Apache-2.0
/** A userspace process: its memory, its file descriptors and the system calls a VMM makes. */
import { Errno } from '../abi/errno.ts';
import type { Pfn, Uaddr } from '../lib/addresses.ts';
import { InputError } from '../lib/errors.ts';
import type { RunOutcome } from './contract.ts';
import { DevKvm } from './dev-kvm.ts';
import { DevSev } from './dev-sev.ts';
import { FileTable } from './files.ts';
import { GuestMemfd } from './guest-memfd.ts';
import { kvmRun } from './kvm-run.ts';
import type { KernelServices } from './services.ts';
import { UserMemory } from './user-memory.ts';
import { Vcpu } from './vcpu.ts';
import { Vm } from './vm.ts';

export class HostProcess {
  readonly name: string;
  /** For the kernel: what copy_from_user and page faults go through. */
  readonly memory: UserMemory;
  /** For the kernel: what descriptors stand for. */
  readonly files = new FileTable();
  readonly #services: KernelServices;
  readonly #onExit: () => void;

  constructor(services: KernelServices, name: string, onExit: () => void) {
    this.#services = services;
    this.#onExit = onExit;
    this.name = name;
    this.memory = new UserMemory(services.frames);
  }

  /**
   * Anonymous memory, zero until written and costing nothing until then.
   *
   * Units    size in bytes, rounded up to pages; from 2 MiB on the address is 2 MiB aligned
   * Errors   HOST_MEMORY_EXHAUSTED
   */
  mmap(size: number): Uaddr {
    return this.memory.mmap(size);
  }

  /** 0 or -EINVAL. */
  munmap(at: Uaddr, size: number): number {
    return this.memory.munmap(at, size) ? 0 : -Errno.EINVAL;
  }

  /** Null where a load would fault. */
  read(at: Uaddr, length: number): Uint8Array | null {
    return this.memory.read(at, length);
  }

  /** False where a store would fault: nothing mapped, or the RMP gives the page to a guest. */
  write(at: Uaddr, data: Uint8Array): boolean {
    return this.memory.write(at, data);
  }

  openDevKvm(): number {
    return this.files.install(new DevKvm(this.#services));
  }

  openDevSev({ write }: { readonly write: boolean }): number {
    return this.files.install(new DevSev(this.#services.ccp, this.#services.frames, write));
  }

  /** 0 or -EBADF. */
  close(fd: number): number {
    return this.files.close(fd);
  }

  /** Passes an open file to another process, as over a Unix socket; its number there, or -EBADF. */
  sendFd(fd: number, to: HostProcess): number {
    return this.files.share(fd, to.files);
  }

  /** A descriptor, a count or 0; -errno on failure. Structures are read and written at `arg`. */
  ioctl(fd: number, nr: number, arg: bigint): number {
    const file = this.files.get(fd);
    return file === null ? -Errno.EBADF : file.ioctl(this, nr >>> 0, BigInt.asUintN(64, arg));
  }

  /** On a guest_memfd; offset and length in bytes. */
  fallocate(fd: number, mode: number, offset: number, length: number): number {
    const file = this.files.get(fd);
    if (file === null) {
      return -Errno.EBADF;
    }
    return file instanceof GuestMemfd ? file.fallocate(mode, offset, length) : -Errno.ENODEV;
  }

  /**
   * The vCPU's shared pages, live: kvm_run at 0, the PIO data page at 4096.
   *
   * Errors   OPTION_INVALID when the descriptor is not a vCPU's
   */
  mmapVcpu(fd: number): Uint8Array {
    const file = this.files.get(fd);
    if (!(file instanceof Vcpu)) {
      throw new InputError('OPTION_INVALID', `descriptor ${fd} is not a vCPU`, { where: 'mmap' });
    }
    return file.run;
  }

  /** KVM_RUN with argument 0. */
  run(vcpuFd: number): RunOutcome {
    const file = this.files.get(vcpuFd);
    return file instanceof Vcpu ? kvmRun(file, this) : { ret: file === null ? -Errno.EBADF : -Errno.EINVAL };
  }

  /** A signal to the thread that runs this vCPU: its KVM_RUN ends with -EINTR, exit_reason KVM_EXIT_INTR. */
  signal(vcpuFd: number): void {
    const file = this.files.get(vcpuFd);
    if (file instanceof Vcpu) {
      file.signalPending = true;
    }
  }

  /** Page of a VM's context in the firmware, which a real kernel tells nobody; null when there is none. */
  guestContext(vmFd: number): Pfn | null {
    const file = this.files.get(vmFd);
    return file instanceof Vm ? file.sev.context : null;
  }

  /** Ends the process: descriptors are closed, memory is unmapped. */
  exit(): void {
    this.files.closeAll();
    this.memory.unmapAll();
    this.#onExit();
  }
}
