// SPDX-License-Identifier: Apache-2.0
import { Errno } from '../../abi/errno.ts';
import { KvmIoctl } from '../../abi/kvm.ts';
import { KvmEncRegion } from '../../abi/kvm-structs.ts';
import { copyIn } from '../copy-user.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';

const ULONG_MAX = (1n << 64n) - 1n;

/**
 * KVM_MEMORY_ENCRYPT_REG_REGION and its opposite: pins memory of the process.
 *
 * Source   [KVM] "REG_REGION"
 * Differs  frames of a process never move, so nothing happens but the bookkeeping
 */
export function encRegion(vm: Vm, process: HostProcess, nr: number, arg: bigint): number {
  const region = copyIn(process, KvmEncRegion, arg);
  if (region === null) {
    return -Errno.EFAULT;
  }
  if (!vm.sev.active) {
    return -Errno.ENOTTY;
  }
  const { pinnedRegions } = vm.sev;
  if (nr === KvmIoctl.KVM_MEMORY_ENCRYPT_REG_REGION) {
    return register(process, pinnedRegions, region);
  }
  const at = pinnedRegions.findIndex(({ addr, size }) => addr === region.addr && size === region.size);
  if (at === -1) {
    return -Errno.EINVAL;
  }
  pinnedRegions.splice(at, 1);
  return 0;
}

function register(process: HostProcess, regions: KvmEncRegion[], region: KvmEncRegion): number {
  const { addr, size } = region;
  if (addr > ULONG_MAX - size || size === 0n) {
    return -Errno.EINVAL;
  }
  if (!process.memory.covers(addr, size)) {
    return -Errno.EFAULT;
  }
  regions.push(region);
  return 0;
}
