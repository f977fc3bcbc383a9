// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/kvm for clients outside the modelled machine, as far as it says what KVM can do. Its VMs belong to
 * the model and cannot be had from outside.
 *
 * Source   [DEVICES] "Other things the clients touch"; [LINUX-UAPI] linux/kvm.h
 * Differs  docs/limitations.md#devices
 */
import { Errno } from '../../abi/errno.ts';
import { KvmIoctl } from '../../abi/kvm.ts';
import { KvmDeviceAttr } from '../../abi/kvm-structs.ts';
import { type Uaddr, uaddr } from '../../lib/addresses.ts';
import { invariant } from '../../lib/errors.ts';
import type { CallerMemory } from '../../os/process-memory.ts';

/** What carrying needs of a process of the modelled host. */
export interface KvmProcess {
  mmap(size: number): Uaddr;
  read(at: Uaddr, length: number): Uint8Array | null;
  write(at: Uaddr, data: Uint8Array): boolean;
  openDevKvm(): number;
  ioctl(fd: number, nr: number, arg: bigint): number;
}

const VALUE_AT = 64;
const VALUE_SIZE = 8;

export class KvmDevice {
  readonly #process: KvmProcess;
  readonly #fd: number;
  readonly #mapping: Uaddr;

  /** Nobody else may use what this maps and opens in the process. */
  constructor({ process }: { readonly process: KvmProcess }) {
    this.#process = process;
    this.#fd = process.openDevKvm();
    this.#mapping = process.mmap(4096);
  }

  /** An ioctl whose argument is a number; a value or -errno. */
  ioctl(nr: number, arg: bigint): number {
    switch (nr >>> 0) {
      case KvmIoctl.KVM_CREATE_VM:
        // As when another hypervisor has the processor.
        return -Errno.EBUSY;
      case KvmIoctl.KVM_GET_API_VERSION:
      case KvmIoctl.KVM_CHECK_EXTENSION:
      case KvmIoctl.KVM_GET_VCPU_MMAP_SIZE:
        return this.#process.ioctl(this.#fd, nr, arg);
      default:
        return -Errno.EINVAL;
    }
  }

  /** KVM_HAS_DEVICE_ATTR and KVM_GET_DEVICE_ATTR: the value goes to the address in the structure. */
  deviceAttr(nr: number, input: Uint8Array, memory: CallerMemory): number {
    const request = input.slice();
    const address = KvmDeviceAttr.get(request, 'addr');
    const value = this.#mapping + BigInt(VALUE_AT);
    KvmDeviceAttr.set(request, 'addr', value);
    const carried = this.#process.write(this.#mapping, request);
    invariant(carried, 'the mapping is ours');
    const result = this.#process.ioctl(this.#fd, nr, this.#mapping);
    if (result < 0 || nr >>> 0 !== KvmIoctl.KVM_GET_DEVICE_ATTR) {
      return result;
    }
    const bytes = this.#process.read(uaddr(value), VALUE_SIZE);
    invariant(bytes !== null, 'the mapping is ours');
    return memory.write(address, bytes) === null ? result : -Errno.EFAULT;
  }
}
