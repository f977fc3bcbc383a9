// SPDX-License-Identifier: Apache-2.0
import { Errno } from '../abi/errno.ts';
import { KvmPreFaultMemory } from '../abi/kvm-structs.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import type { Vm } from './vm.ts';

const PAGE = BigInt(PAGE_SIZE);
const TWO_64 = 1n << 64n;

/**
 * KVM_PRE_FAULT_MEMORY: maps pages ahead of the guest; `request` is changed to what is left.
 *
 * Returns  0 after any progress, else the errno of the first page
 * Source   [KVM] "KVM_PRE_FAULT_MEMORY"
 */
export function preFaultMemory(vm: Vm, request: Uint8Array): number {
  const { gpa, size, flags } = KvmPreFaultMemory.decodeLoose(request);
  if (flags !== 0n || gpa % PAGE !== 0n || size % PAGE !== 0n || gpa + size <= gpa || gpa + size >= TWO_64) {
    return -Errno.EINVAL;
  }
  if (!vm.preFaultAllowed) {
    return -Errno.EOPNOTSUPP;
  }
  const first = Number(gpa / PAGE);
  const count = Number(size / PAGE);
  let done = 0;
  let errno = 0;
  while (done < count && errno === 0) {
    errno = vm.paging.preFault(first + done);
    done += errno === 0 ? 1 : 0;
  }
  KvmPreFaultMemory.set(request, 'gpa', gpa + BigInt(done) * PAGE);
  KvmPreFaultMemory.set(request, 'size', size - BigInt(done) * PAGE);
  return done > 0 ? 0 : errno;
}
