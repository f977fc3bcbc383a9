// SPDX-License-Identifier: Apache-2.0
import { beforeEach, describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { KvmAttrGroup, KvmCap, KvmIoctl, KvmSevAttr } from '../../abi/kvm.ts';
import { KvmDeviceAttr } from '../../abi/kvm-structs.ts';
import { SVM_SEV_FEAT_DEBUG_SWAP } from '../../abi/vmsa.ts';
import { TestHost } from '../../kvm/testing.ts';
import { readU64 } from '../../lib/bytes.ts';
import { TestFile, TestMemory } from '../testing.ts';
import { KvmDevice } from './device.ts';
import { kvmPlaces } from './files.ts';

const NOTHING: Uint8Array = new Uint8Array(0);
const group = KvmAttrGroup.KVM_X86_GRP_SEV;

describe('/dev/kvm', () => {
  const memory = new TestMemory();
  let file: TestFile;
  beforeEach(async () => {
    const device = new KvmDevice({ process: new TestHost().kernel.spawn('kvm') });
    const [node] = Object.values(kvmPlaces(() => device));
    file = (await TestFile.open(node as Parameters<typeof TestFile.open>[0], 0)) as TestFile;
  });
  const ioctl = async (nr: number, arg = 0n, input = NOTHING): Promise<number> =>
    (await file.ioctl(nr, input, memory, arg)).result;
  const attr = (nr: number, attr: number, addr: bigint, inGroup: number = group): Promise<number> =>
    ioctl(nr, 0x1000n, KvmDeviceAttr.encode({ group: inGroup, attr: BigInt(attr), addr }));

  it('says which KVM it is and what it can do', async () => {
    expect(await ioctl(KvmIoctl.KVM_GET_API_VERSION)).toBe(12);
    expect(await ioctl(KvmIoctl.KVM_GET_API_VERSION, 1n)).toBe(-Errno.EINVAL);
    expect(await ioctl(KvmIoctl.KVM_CHECK_EXTENSION, BigInt(KvmCap.KVM_CAP_GUEST_MEMFD))).toBe(1);
    expect(await ioctl(KvmIoctl.KVM_CHECK_EXTENSION, 9999n)).toBe(0);
    expect(await ioctl(KvmIoctl.KVM_GET_VCPU_MMAP_SIZE)).toBe(12288);
  });

  it('writes an attribute to the address in the structure, or answers why not', async () => {
    const { KVM_GET_DEVICE_ATTR: get, KVM_HAS_DEVICE_ATTR: has } = KvmIoctl;
    const address = memory.map(new Uint8Array(8).fill(0xff));
    expect(await attr(get, KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES, address)).toBe(0);
    expect(readU64(memory.at(address), 0)).toBe(SVM_SEV_FEAT_DEBUG_SWAP);
    expect(await attr(has, KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES, 0n)).toBe(0);
    expect(await attr(get, KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES, 0n)).toBe(-Errno.EFAULT);
    expect(await attr(get, 77, address)).toBe(-Errno.ENXIO);
    expect(await attr(has, 0, address, 9)).toBe(-Errno.ENXIO);
    expect(await ioctl(get, 0x1000n)).toBe(-Errno.EINVAL);
  });

  it('makes no VM and knows nothing else', async () => {
    expect(await ioctl(KvmIoctl.KVM_CREATE_VM)).toBe(-Errno.EBUSY);
    expect(await ioctl(KvmIoctl.KVM_RUN)).toBe(-Errno.EINVAL);
  });
});
