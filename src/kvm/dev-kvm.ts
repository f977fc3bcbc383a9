// SPDX-License-Identifier: Apache-2.0
/** /dev/kvm. */
import { Errno } from '../abi/errno.ts';
import { KVM_API_VERSION, KVM_VCPU_MMAP_SIZE, KvmIoctl } from '../abi/kvm.ts';
import { checkExtension, getDeviceAttr, hasDeviceAttr, vmTypes } from './capabilities.ts';
import type { KernelFile } from './files.ts';
import type { HostProcess } from './host-process.ts';
import type { KernelServices } from './services.ts';
import { Vm } from './vm.ts';

export class DevKvm implements KernelFile {
  readonly #services: KernelServices;

  constructor(services: KernelServices) {
    this.#services = services;
  }

  release(): void {}

  ioctl(process: HostProcess, nr: number, arg: bigint): number {
    switch (nr) {
      case KvmIoctl.KVM_GET_API_VERSION:
        return arg === 0n ? KVM_API_VERSION : -Errno.EINVAL;
      case KvmIoctl.KVM_CREATE_VM:
        return this.#createVm(process, arg);
      case KvmIoctl.KVM_CHECK_EXTENSION:
        return checkExtension(this.#services, arg, null);
      case KvmIoctl.KVM_GET_VCPU_MMAP_SIZE:
        return arg === 0n ? KVM_VCPU_MMAP_SIZE : -Errno.EINVAL;
      case KvmIoctl.KVM_HAS_DEVICE_ATTR:
        return hasDeviceAttr(this.#services, process, arg);
      case KvmIoctl.KVM_GET_DEVICE_ATTR:
        return getDeviceAttr(this.#services, process, arg);
      default:
        return -Errno.EINVAL;
    }
  }

  #createVm(process: HostProcess, type: bigint): number {
    const known = type < 32n && ((vmTypes(this.#services) >>> Number(type)) & 1) === 1;
    return known ? process.files.install(new Vm(this.#services, process, Number(type))) : -Errno.EINVAL;
  }
}
