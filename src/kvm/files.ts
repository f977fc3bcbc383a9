// SPDX-License-Identifier: Apache-2.0
/** File descriptors: numbers of a process for what the kernel keeps. */
import { Errno } from '../abi/errno.ts';
import type { HostProcess } from './host-process.ts';

/** What an open file can do. */
export interface KernelFile {
  ioctl(process: HostProcess, nr: number, arg: bigint): number;
  /** The last descriptor is closed. */
  release(): void;
}

/** An open file description: shared by the descriptors that were duplicated from one another. */
interface Description {
  readonly file: KernelFile;
  references: number;
}

/** Descriptors below are standard input, output and error. */
const FIRST_FD = 3;

export class FileTable {
  readonly #descriptors: (Description | null)[] = [];

  /** The lowest free number. */
  install(file: KernelFile): number {
    return this.#add({ file, references: 1 });
  }

  get(fd: number): KernelFile | null {
    return this.#descriptors[fd - FIRST_FD]?.file ?? null;
  }

  /** Gives another process a descriptor of the same open file. */
  share(fd: number, other: FileTable): number {
    const description = this.#descriptors[fd - FIRST_FD];
    if (description === null || description === undefined) {
      return -Errno.EBADF;
    }
    description.references += 1;
    return other.#add(description);
  }

  close(fd: number): number {
    const description = this.#descriptors[fd - FIRST_FD];
    if (description === null || description === undefined) {
      return -Errno.EBADF;
    }
    this.#descriptors[fd - FIRST_FD] = null;
    description.references -= 1;
    if (description.references === 0) {
      description.file.release();
    }
    return 0;
  }

  closeAll(): void {
    for (let i = 0; i < this.#descriptors.length; i++) {
      this.close(FIRST_FD + i);
    }
  }

  #add(description: Description): number {
    const free = this.#descriptors.indexOf(null);
    const at = free === -1 ? this.#descriptors.length : free;
    this.#descriptors[at] = description;
    return FIRST_FD + at;
  }
}
