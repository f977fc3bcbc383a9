// SPDX-License-Identifier: Apache-2.0
/** What /dev/kvm offers, how VMs and vCPUs come to be, and what is left when they go. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import type { GuestProgram } from '../abi/guest-ops.ts';
import { KvmCap, KvmIoctl, KvmVmType } from '../abi/kvm.ts';
import { KvmDeviceAttr } from '../abi/kvm-structs.ts';
import { SevCmd, SevUserDataSnpStatus } from '../abi/snp-commands.ts';
import { gpa, type Pfn } from '../lib/addresses.ts';
import { readU64 } from '../lib/bytes.ts';
import { launched, NOTHING, PRIVATE_GPA, TestHost, type TestUser, TestVm } from './testing.ts';
import { KVM_6_12 } from './uapi/generation.ts';

const { EINVAL, EEXIST, EBADF, EBUSY, ENXIO, EFAULT, ENOTTY, EIO, ENOMEM } = Errno;

const check = (user: TestUser, fd: number, cap: number): number =>
  user.process.ioctl(fd, KvmIoctl.KVM_CHECK_EXTENSION, BigInt(cap));

describe('KVM_CHECK_EXTENSION', () => {
  it.each([
    ['KVM_CAP_IMMEDIATE_EXIT', 1],
    ['KVM_CAP_EXIT_HYPERCALL', 0x1000],
    ['KVM_CAP_SYS_ATTRIBUTES', 1],
    ['KVM_CAP_USER_MEMORY2', 1],
    ['KVM_CAP_MEMORY_FAULT_INFO', 1],
    ['KVM_CAP_GUEST_MEMFD', 1],
    ['KVM_CAP_PRE_FAULT_MEMORY', 1],
    ['KVM_CAP_SYNC_REGS', 7],
    ['KVM_CAP_VM_TYPES', 0x1f],
    ['KVM_CAP_MAX_VCPUS', 4096],
    ['KVM_CAP_MAX_VCPU_ID', 16384],
    ['KVM_CAP_NR_MEMSLOTS', 32764],
  ] as const)('%s on /dev/kvm: %i', (name, expected) => {
    const user = new TestHost().user();
    expect(check(user, user.kvm, KvmCap[name])).toBe(expected);
  });

  it.each([
    [KvmVmType.KVM_X86_DEFAULT_VM, 7, 0, 0],
    [KvmVmType.KVM_X86_SW_PROTECTED_VM, 7, 8, 1],
    [KvmVmType.KVM_X86_SEV_VM, 7, 0, 0],
    [KvmVmType.KVM_X86_SEV_ES_VM, 0, 0, 0],
    [KvmVmType.KVM_X86_SNP_VM, 0, 8, 1],
  ])('type %i: SYNC_REGS %i, MEMORY_ATTRIBUTES %i, GUEST_MEMFD %i', (type, sync, attributes, gmem) => {
    const { user, fd } = new TestVm(new TestHost().user(), type);
    const caps = [KvmCap.KVM_CAP_SYNC_REGS, KvmCap.KVM_CAP_MEMORY_ATTRIBUTES, KvmCap.KVM_CAP_GUEST_MEMFD];
    expect(caps.map((cap) => check(user, fd, cap))).toEqual([sync, attributes, gmem]);
  });

  it('unknown capabilities are 0', () => {
    const user = new TestHost().user();
    expect(check(user, user.kvm, 9999)).toBe(0);
  });
});

describe('device attributes', () => {
  const call = (
    user: TestUser,
    nr: number,
    group: number,
    attr: bigint,
    addr: bigint = user.scratch + 0x800n,
  ) => user.ioctl(user.kvm, nr, KvmDeviceAttr.encode({ group, attr, addr }));
  const value = (user: TestUser, group: number, attr: bigint): bigint => {
    expect(call(user, KvmIoctl.KVM_GET_DEVICE_ATTR, group, attr)).toBe(0);
    return readU64(user.take(8, 0x800), 0);
  };

  it('XCR0, VMSA features, policy bits and certificate fetching', () => {
    const user = new TestHost().user();
    expect(value(user, 0, 0n)).toBe(0x207n);
    expect(value(user, 1, 0n)).toBe(0x20n);
    // RAPL and CXL policies are what this firmware adds to the base.
    expect(value(user, 1, 1n)).toBe(0x1b_ffffn | (1n << 21n) | (1n << 23n));
    expect(value(user, 1, 2n)).toBe(1n);
  });

  it('HAS succeeds also where the value is 0', () => {
    const none = new TestHost(NOTHING, { debugSwap: false, psp: null }).user();
    for (const attr of [0n, 1n, 2n]) {
      expect(call(none, KvmIoctl.KVM_HAS_DEVICE_ATTR, 1, attr)).toBe(0);
    }
    expect([value(none, 1, 0n), value(none, 1, 2n)]).toEqual([0n, 0n]);
  });

  it('Linux 6.12 has the VMSA features only', () => {
    const user = new TestHost(NOTHING, { generation: KVM_6_12 }).user();
    const has = [0n, 1n, 2n].map((attr) => call(user, KvmIoctl.KVM_HAS_DEVICE_ATTR, 1, attr));
    expect(has).toEqual([0, -ENXIO, -ENXIO]);
  });

  it('GET to nowhere, or with an unreadable envelope: EFAULT; SET: EINVAL', () => {
    const user = new TestHost().user();
    expect(call(user, KvmIoctl.KVM_GET_DEVICE_ATTR, 1, 0n, 0x1000n)).toBe(-EFAULT);
    expect(user.process.ioctl(user.kvm, KvmIoctl.KVM_GET_DEVICE_ATTR, 0x1000n)).toBe(-EFAULT);
    expect(user.process.ioctl(user.kvm, KvmIoctl.KVM_HAS_DEVICE_ATTR, 0x1000n)).toBe(-EFAULT);
    expect(call(user, KvmIoctl.KVM_SET_DEVICE_ATTR, 1, 0n)).toBe(-EINVAL);
  });
});

describe('KVM_CREATE_VM and capabilities of a VM', () => {
  it('takes the advertised types and no other', () => {
    const user = new TestHost().user();
    const results = [0n, 1n, 2n, 3n, 4n, 5n, 31n, 32n, 1n << 40n].map((type) =>
      Math.min(user.process.ioctl(user.kvm, KvmIoctl.KVM_CREATE_VM, type), 0),
    );
    expect(results).toEqual([0, 0, 0, 0, 0, -EINVAL, -EINVAL, -EINVAL, -EINVAL]);
  });

  it('a host without ASIDs for plain SEV does not advertise type 2', () => {
    const cpu = { cBit: 51, physAddrReduction: 5, maxAsid: 15, minSevAsid: 16 };
    const user = new TestHost(NOTHING, { cpu }).user();
    expect(check(user, user.kvm, KvmCap.KVM_CAP_VM_TYPES)).toBe(0x1b);
    expect(user.createVm(2)).toBe(-EINVAL);
  });

  it.each([
    ['EXIT_HYPERCALL with another bit', KvmCap.KVM_CAP_EXIT_HYPERCALL, 0x1001n, -EINVAL],
    ['EXIT_HYPERCALL', KvmCap.KVM_CAP_EXIT_HYPERCALL, 0x1000n, 0],
    ['EXIT_HYPERCALL off', KvmCap.KVM_CAP_EXIT_HYPERCALL, 0n, 0],
    ['USER_SPACE_MSR with another bit', KvmCap.KVM_CAP_X86_USER_SPACE_MSR, 8n, -EINVAL],
    ['SPLIT_IRQCHIP', KvmCap.KVM_CAP_SPLIT_IRQCHIP, 24n, 0],
    ['SPLIT_IRQCHIP with too many pins', KvmCap.KVM_CAP_SPLIT_IRQCHIP, 25n, -EINVAL],
    ['an unknown capability', 9999, 0n, -EINVAL],
    ['COPY_ENC_CONTEXT_FROM no descriptor', KvmCap.KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, 99n, -EBADF],
    ['MOVE_ENC_CONTEXT_FROM beyond descriptors', KvmCap.KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, 1n << 40n, -EBADF],
  ])('ENABLE_CAP %s', (_, cap, arg, expected) => {
    expect(new TestVm(new TestHost().user()).enableCap(cap, arg)).toBe(expected);
  });

  it('an SNP guest’s context is neither copied nor moved', () => {
    const source = new TestVm(new TestHost().user());
    source.init2();
    const target = new TestVm(source.user);
    expect(target.enableCap(KvmCap.KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, BigInt(source.fd))).toBe(-EINVAL);
    expect(target.enableCap(KvmCap.KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, BigInt(source.fd))).toBe(-EINVAL);
  });

  it('an interrupt controller comes once and before the vCPUs', () => {
    const vm = new TestVm(new TestHost().user());
    expect([vm.irqchip(), vm.irqchip()]).toEqual([0, -EEXIST]);
    const late = new TestVm(vm.user);
    late.createVcpu();
    expect(late.irqchip()).toBe(-EINVAL);
  });

  it('unknown ioctls: EINVAL on /dev/kvm and a vCPU, ENOTTY on a VM and a guest_memfd', () => {
    const { vm } = launched(NOTHING);
    const { process, kvm } = vm.user;
    const fds = [kvm, vm.vcpus[0]!, vm.fd, vm.gmem, 99];
    expect(fds.map((fd) => process.ioctl(fd, 0xae99, 0n))).toEqual([
      -EINVAL,
      -EINVAL,
      -ENOTTY,
      -ENOTTY,
      -EBADF,
    ]);
  });

  it('every VM ioctl with a structure nowhere: EFAULT', () => {
    const vm = new TestVm(new TestHost().user());
    const names = [
      'KVM_ENABLE_CAP',
      'KVM_SIGNAL_MSI',
      'KVM_SET_USER_MEMORY_REGION',
      'KVM_SET_USER_MEMORY_REGION2',
      'KVM_SET_MEMORY_ATTRIBUTES',
      'KVM_CREATE_GUEST_MEMFD',
      'KVM_MEMORY_ENCRYPT_OP',
      'KVM_MEMORY_ENCRYPT_REG_REGION',
    ] as const;
    const results = names.map((name) => vm.user.process.ioctl(vm.fd, KvmIoctl[name], 0x1000n));
    expect(results).toEqual(names.map(() => -EFAULT));
  });
});

describe('KVM_CREATE_VCPU', () => {
  it('ids below the limit, each once; the count is what blocks INIT2', () => {
    const vm = new TestVm(new TestHost().user());
    expect(vm.createVcpu(16384)).toBe(-EINVAL);
    expect(vm.createVcpu(16383)).toBeGreaterThan(0);
    expect(vm.createVcpu(16383)).toBe(-EEXIST);
  });

  it('no more than 4096', () => {
    const vm = new TestVm(new TestHost().user(), 0);
    for (let id = 0; id < 4096; id++) {
      expect(vm.createVcpu(id)).toBeGreaterThan(0);
    }
    expect(vm.createVcpu(4096)).toBe(-EINVAL);
  });

  it('the boot CPU can be another than 0, if it is said in time', () => {
    const vm = new TestVm(new TestHost().user());
    vm.irqchip();
    expect(vm.user.process.ioctl(vm.fd, KvmIoctl.KVM_SET_BOOT_CPU_ID, 1n)).toBe(0);
    vm.createVcpu();
    vm.createVcpu();
    expect([vm.mpState(0), vm.mpState(1)]).toEqual([1, 0]);
    expect(vm.user.process.ioctl(vm.fd, KvmIoctl.KVM_SET_BOOT_CPU_ID, 0n)).toBe(-EBUSY);
  });
});

describe('ASIDs', () => {
  const cpu = { cBit: 51, physAddrReduction: 5, maxAsid: 5, minSevAsid: 3 };
  const flushes = (user: TestUser) =>
    user.host.psp.commands.filter((id) => id === SevCmd.SEV_CMD_SNP_DF_FLUSH).length;

  it('are used up, and come back through a flush once their VM is gone', () => {
    const user = new TestHost(NOTHING, { cpu }).user();
    const vms = Array.from({ length: 3 }, () => new TestVm(user));
    expect(vms.map((vm) => vm.init2())).toEqual([0, 0, -EBUSY]);
    const before = flushes(user);
    user.process.close(vms[0]!.fd);
    expect(vms[2]!.init2()).toBe(0);
    expect(flushes(user)).toBe(before + 1);
    expect(new TestVm(user).init2()).toBe(-EBUSY);
    expect(flushes(user)).toBe(before + 1);
  });

  it('of plain SEV are others', () => {
    const user = new TestHost(NOTHING, { cpu }).user();
    const vms = Array.from({ length: 4 }, () => new TestVm(user, KvmVmType.KVM_X86_SEV_VM));
    expect(vms.map((vm) => vm.init2())).toEqual([0, 0, 0, -EBUSY]);
    expect(new TestVm(user).init2()).toBe(0);
  });

  it('an empty range: ENOTTY', () => {
    const none = { cBit: 51, physAddrReduction: 5, maxAsid: 2, minSevAsid: 3 };
    const vm = new TestVm(new TestHost(NOTHING, { cpu: none }).user(), 0);
    expect(vm.sevOp(0, null)).toBe(-ENOTTY);
  });

  it('of a guest whose DECOMMISSION fails are lost', () => {
    const user = new TestHost(NOTHING, { cpu }).user();
    const vm = new TestVm(user);
    vm.init2();
    vm.launchStart();
    user.host.psp.intercept = (id) => (id === SevCmd.SEV_CMD_SNP_DECOMMISSION ? 2 : null);
    user.process.close(vm.fd);
    user.host.psp.intercept = () => null;
    expect([new TestVm(user).init2(), new TestVm(user).init2()]).toEqual([0, -EBUSY]);
  });

  it('a failed INIT2 gives its ASID back', () => {
    const user = new TestHost(NOTHING, { cpu }).user();
    const vm = new TestVm(user);
    const fail = () => {
      user.host.hw.rmpupdate = () => 1;
      const ret = vm.init2();
      Reflect.deleteProperty(user.host.hw, 'rmpupdate');
      return ret;
    };
    expect([fail(), fail(), fail(), vm.init2()]).toEqual([-EIO, -EIO, -EIO, 0]);
  });
});

describe('the end of a VM', () => {
  const assigned = (host: TestHost): number =>
    Array.from({ length: 0x4000 }, (_, pfn) => host.hw.rmp.isAssigned(pfn as Pfn)).filter(Boolean).length;

  const guestCount = (user: TestUser): number => {
    const page = user.put(new Uint8Array(32), 0x800);
    const envelope = user.put(new Uint8Array(16));
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setUint32(0, 9, true);
    new DataView(bytes.buffer).setBigUint64(4, page, true);
    user.process.write(envelope, bytes);
    expect(user.process.ioctl(user.sev, 0xc0105300, envelope)).toBe(0);
    return SevUserDataSnpStatus.decode(user.take(32, 0x800)).guest_count;
  };

  it('takes every page back from guest and firmware, and its memory', () => {
    const host = new TestHost((id) =>
      (function* program(): GuestProgram {
        yield { op: 'pvalidate', gpa: PRIVATE_GPA, size: 1, validate: true };
        yield { op: 'write', gpa: PRIVATE_GPA, data: new Uint8Array(4096).fill(id + 1), encrypted: true };
        yield { op: 'pvalidate', gpa: gpa(0x1000n), size: 0, validate: true };
      })(),
    );
    const observer = host.user('observer');
    const clean = assigned(host);
    const touched = host.hw.memory.touchedPages;
    for (let round = 0; round < 3; round++) {
      const vm = new TestVm(host.user());
      vm.init2();
      vm.addMemory();
      vm.launchStart();
      expect(vm.launchUpdate({ gfn_start: 0x800n, uaddr: vm.ram, len: 0x10000n })).toBe(0);
      vm.createVcpu();
      vm.launchFinish();
      vm.enter();
      expect(assigned(host)).toBeGreaterThan(clean);
      expect(guestCount(observer)).toBe(1);
      vm.user.process.exit();
      expect(assigned(host)).toBe(clean);
      expect(guestCount(observer)).toBe(0);
    }
    expect(host.hw.memory.touchedPages).toBeLessThanOrEqual(touched + 2);
  });

  it('comes with the last descriptor of VM, vCPUs and guest_memfd', () => {
    const { vm } = launched(NOTHING);
    const { process } = vm.user;
    process.close(vm.fd);
    expect(guestCount(vm.user)).toBe(1);
    process.close(vm.gmem);
    expect(guestCount(vm.user)).toBe(1);
    process.close(vm.vcpus[0]!);
    expect(guestCount(vm.user)).toBe(0);
    expect(process.close(vm.fd)).toBe(-EBADF);
  });

  it('waits for a descriptor another process was given', () => {
    const { vm, host } = launched(NOTHING);
    const other = host.kernel.spawn('other');
    const fd = vm.user.process.sendFd(vm.fd, other);
    const observer = host.user('observer');
    vm.user.process.exit();
    expect(guestCount(observer)).toBe(1);
    other.close(fd);
    expect(guestCount(observer)).toBe(0);
    expect(vm.user.process.sendFd(99, other)).toBe(-EBADF);
  });

  it('shutdown of the kernel ends every process and SNP; another kernel can boot', () => {
    const { host } = launched(NOTHING);
    expect(host.kernel.shutdown()).toEqual({ errno: 0, status: 0 });
    expect(host.kernel.shutdown()).toMatchObject({ errno: 0 });
    const next = new TestHost(NOTHING, { hw: host.hw, psp: host.psp });
    expect(new TestVm(next.user()).init2()).toBe(0);
  });

  it('a guest_memfd that finds no frames: ENOMEM', () => {
    expect(new TestVm(new TestHost().user()).createGmem(2 ** 46)).toBe(-ENOMEM);
  });
});
