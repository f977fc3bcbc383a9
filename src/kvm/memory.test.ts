// SPDX-License-Identifier: Apache-2.0
/** [KVM] "Memory" and "RMP": slots, attributes, guest_memfd, faults and what the RMP says afterwards. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import { GuestException, type GuestOp, type GuestProgram, VECTOR_PF, VECTOR_VC } from '../abi/guest-ops.ts';
import { KvmExit, KvmIoctl, KvmMemFlag, KvmVmType } from '../abi/kvm.ts';
import { KvmRunMemoryFault } from '../abi/kvm-run.ts';
import {
  KvmCreateGuestMemfd,
  KvmEncRegion,
  KvmMemoryAttributes,
  KvmPreFaultMemory,
  type KvmUserspaceMemoryRegion2,
} from '../abi/kvm-structs.ts';
import { gpa, type Pfn } from '../lib/addresses.ts';
import type { GuestMemfd } from './guest-memfd.ts';
import { launched, NOTHING, PRIVATE_GPA, RAM_SIZE, SHARED_AT, TestHost, TestVm } from './testing.ts';

const { EINVAL, EEXIST, EFAULT, EBADF, EOPNOTSUPP, ENOMEM, ENOENT, EIO } = Errno;
const MIB = 2 ** 20;
const CHUNK = 2 * MIB;

function initialised(type: number = KvmVmType.KVM_X86_SNP_VM): TestVm {
  const vm = new TestVm(new TestHost().user(), type);
  vm.init2();
  return vm;
}

/** Runs the operations and collects answers, or what was raised instead. */
function perform(
  ops: readonly GuestOp[],
  prepare: (vm: TestVm) => void = () => undefined,
  memory = RAM_SIZE,
) {
  const answers: unknown[] = [];
  const { vm, host } = launched(
    () =>
      (function* program(): GuestProgram {
        for (const op of ops) {
          try {
            answers.push(yield op);
          } catch (error) {
            answers.push(error);
          }
        }
      })(),
    { memory },
  );
  prepare(vm);
  return { vm, host, answers };
}

const rmpOf = (vm: TestVm, at: bigint) => {
  const gmem = vm.user.process.files.get(vm.gmem) as GuestMemfd;
  return vm.user.host.hw.rmp.lookup((gmem.firstFrame + Number(at >> 12n)) as Pfn);
};

const pvalidate = (at: bigint, size: 0 | 1 = 0, validate = true): GuestOp => ({
  op: 'pvalidate',
  gpa: gpa(at),
  size,
  validate,
});
const DONE = { rc: 0, unchanged: false };
const UNCHANGED = { rc: 0, unchanged: true };
const SIZEMISMATCH = { rc: 6, unchanged: false };

describe('KVM_SET_MEMORY_ATTRIBUTES', () => {
  it.each([
    ['flags', { size: 0x1000n, flags: 1n }, -EINVAL],
    ['an unknown attribute', { size: 0x1000n, attributes: 4n }, -EINVAL],
    ['size 0', { size: 0n }, -EINVAL],
    ['a range that wraps', { address: 0xffff_ffff_ffff_f000n, size: 0x1000n }, -EINVAL],
    ['an unaligned address', { address: 1n, size: 0x1000n }, -EINVAL],
    ['an unaligned size', { size: 0x1001n }, -EINVAL],
    ['more than any guest has', { size: 1n << 60n, attributes: 8n }, -ENOMEM],
    ['the whole of 48 bits', { size: 1n << 48n, attributes: 8n }, 0],
    ['a place without a slot', { address: 1n << 60n, size: 0x1000n, attributes: 8n }, 0],
  ])('%s', (_, fields, expected) => {
    const vm = initialised();
    const request = KvmMemoryAttributes.encode(fields);
    expect(vm.user.ioctl(vm.fd, KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES, request)).toBe(expected);
  });

  it('private on a VM without private memory: EINVAL', () => {
    expect(initialised(KvmVmType.KVM_X86_SEV_VM).setAttributes(0, 0x1000, true)).toBe(-EINVAL);
    expect(initialised(KvmVmType.KVM_X86_SEV_VM).setAttributes(0, 0x1000, false)).toBe(0);
    expect(initialised(KvmVmType.KVM_X86_SW_PROTECTED_VM).setAttributes(0, 0x1000, true)).toBe(0);
  });
});

describe('KVM_CREATE_GUEST_MEMFD', () => {
  it.each([
    ['flags', { size: 0x1000n, flags: 1n }],
    ['size 0', { size: 0n }],
    ['an unaligned size', { size: 0x1001n }],
    ['a negative size', { size: 1n << 63n }],
  ])('%s: EINVAL', (_, fields) => {
    const vm = initialised();
    const request = KvmCreateGuestMemfd.encode(fields);
    expect(vm.user.ioctl(vm.fd, KvmIoctl.KVM_CREATE_GUEST_MEMFD, request)).toBe(-EINVAL);
  });

  it('costs nothing until touched; more than the host can address: ENOMEM', () => {
    const vm = initialised();
    const touched = vm.user.host.hw.memory.touchedPages;
    expect(vm.createGmem(2 ** 40)).toBeGreaterThan(0);
    expect(vm.user.host.hw.memory.touchedPages).toBe(touched);
    expect(vm.createGmem(2 ** 50)).toBe(-ENOMEM);
  });

  it.each([
    ['allocate without KEEP_SIZE', 0, 0, 0x1000, -EOPNOTSUPP],
    ['a mode it does not know', 0x11, 0, 0x1000, -EOPNOTSUPP],
    ['an unaligned offset', 3, 1, 0x1000, -EINVAL],
    ['an unaligned length', 3, 0, 0x1001, -EINVAL],
    ['length 0', 3, 0, 0, -EINVAL],
    ['a negative offset', 3, -4096, 4096, -EINVAL],
    ['allocation', 1, 0, 0x2000, 0],
    ['allocation beyond the size', 1, 0, 0x3000, -EINVAL],
    ['a hole beyond the size', 3, 0x1000, 0x10000, 0],
  ])('fallocate: %s', (_, mode, offset, length, expected) => {
    const vm = initialised();
    const fd = vm.createGmem(0x2000);
    expect(vm.user.process.fallocate(fd, mode, offset, length)).toBe(expected);
  });

  it('fallocate of something else: EBADF, ENODEV', () => {
    const vm = initialised();
    expect(vm.user.process.fallocate(99, 3, 0, 0x1000)).toBe(-EBADF);
    expect(vm.user.process.fallocate(vm.fd, 3, 0, 0x1000)).toBe(-Errno.ENODEV);
  });
});

describe('KVM_SET_USER_MEMORY_REGION2', () => {
  const GMEM = KvmMemFlag.KVM_MEM_GUEST_MEMFD;

  interface Setting {
    readonly vm: TestVm;
    readonly gmem: number;
    readonly uaddr: bigint;
    set(fields: Partial<KvmUserspaceMemoryRegion2>): number;
  }

  function setting(type: number = KvmVmType.KVM_X86_SNP_VM): Setting {
    const vm = initialised(type);
    const gmem = vm.createGmem(MIB);
    const uaddr = vm.user.process.mmap(MIB);
    return {
      vm,
      gmem,
      uaddr,
      set: (fields) =>
        vm.setRegion({ memory_size: 0x4000n, userspace_addr: uaddr, guest_memfd: gmem, ...fields }),
    };
  }

  it.each([
    ['an unknown flag', { flags: 8 }, -EINVAL],
    ['GUEST_MEMFD with LOG_DIRTY', { flags: GMEM | KvmMemFlag.KVM_MEM_LOG_DIRTY_PAGES }, -EINVAL],
    ['READONLY', { flags: KvmMemFlag.KVM_MEM_READONLY }, -EINVAL],
    ['LOG_DIRTY', { flags: KvmMemFlag.KVM_MEM_LOG_DIRTY_PAGES }, 0],
    ['an unaligned size', { memory_size: 0x4001n }, -EINVAL],
    ['an unaligned gpa', { guest_phys_addr: 8n }, -EINVAL],
    ['an unaligned userspace address', { userspace_addr: 0x1001n }, -EINVAL],
    ['a kernel address', { userspace_addr: 0xffff_8000_0000_0000n }, -EINVAL],
    ['an unaligned offset', { flags: GMEM, guest_memfd_offset: 1n }, -EINVAL],
    ['an offset that wraps', { flags: GMEM, guest_memfd_offset: 0xffff_ffff_ffff_f000n }, -EINVAL],
    ['slot 32764', { slot: 32764 }, -EINVAL],
    ['slot 32763', { slot: 32763 }, 0],
    ['another address space', { slot: 0x1_0000 }, -EINVAL],
    ['a gpa that wraps', { guest_phys_addr: 0xffff_ffff_ffff_e000n }, -EINVAL],
    ['deletion of no slot', { memory_size: 0n }, -EINVAL],
    ['a bad guest_memfd', { flags: GMEM, guest_memfd: 99 }, -EBADF],
    ['a file beyond its size', { flags: GMEM, guest_memfd_offset: BigInt(MIB - 0x3000) }, -EINVAL],
    ['a slot without guest_memfd', { flags: 0 }, 0],
    ['a slot with guest_memfd', { flags: GMEM }, 0],
    ['an address nobody has mapped yet', { userspace_addr: 0x5000n }, 0],
  ])('%s', (_, fields, expected) => {
    expect(setting().set(fields)).toBe(expected);
  });

  it('guest_memfd of another kind of file, or of another VM: EINVAL', () => {
    const { vm, set } = setting();
    expect(set({ flags: GMEM, guest_memfd: vm.fd })).toBe(-EINVAL);
    const other = new TestVm(vm.user);
    expect(set({ flags: GMEM, guest_memfd: other.createGmem(MIB) })).toBe(-EINVAL);
  });

  it('GUEST_MEMFD on a VM without private memory: EINVAL; READONLY on one with open state: ok', () => {
    expect(setting(KvmVmType.KVM_X86_SEV_VM).set({ flags: GMEM })).toBe(-EINVAL);
    expect(setting(KvmVmType.KVM_X86_SEV_ES_VM).set({ flags: KvmMemFlag.KVM_MEM_READONLY })).toBe(-EINVAL);
    expect(setting(KvmVmType.KVM_X86_SEV_VM).set({ flags: KvmMemFlag.KVM_MEM_READONLY })).toBe(0);
    expect(setting(KvmVmType.KVM_X86_SEV_VM).set({ slot: 0x1_0000 })).toBe(0);
  });

  it('a slot with guest_memfd cannot be changed, not even into itself', () => {
    const { set } = setting();
    expect(set({ flags: GMEM })).toBe(0);
    expect(set({ flags: GMEM })).toBe(-EINVAL);
    expect(set({ flags: 0 })).toBe(-EINVAL);
  });

  it('a slot can move and log, but not change its size or its memory', () => {
    const { set, uaddr } = setting();
    expect(set({})).toBe(0);
    expect(set({})).toBe(0);
    expect(set({ flags: KvmMemFlag.KVM_MEM_LOG_DIRTY_PAGES })).toBe(0);
    expect(set({ guest_phys_addr: 0x10_0000n })).toBe(0);
    expect(set({ guest_phys_addr: 0x10_0000n, memory_size: 0x5000n })).toBe(-EINVAL);
    expect(set({ guest_phys_addr: 0x10_0000n, userspace_addr: uaddr + 0x1000n })).toBe(-EINVAL);
  });

  it('overlap with another slot: EEXIST, also by a move; a range bound twice: EINVAL', () => {
    const { set } = setting();
    set({ slot: 0, flags: GMEM });
    expect(set({ slot: 1, guest_phys_addr: 0x3000n })).toBe(-EEXIST);
    expect(set({ slot: 1, guest_phys_addr: 0x4000n })).toBe(0);
    expect(set({ slot: 1, guest_phys_addr: 0x2000n })).toBe(-EEXIST);
    expect(set({ slot: 2, flags: GMEM, guest_phys_addr: 0x10000n, guest_memfd_offset: 0x3000n })).toBe(
      -EINVAL,
    );
    expect(set({ slot: 2, flags: GMEM, guest_phys_addr: 0x10000n, guest_memfd_offset: 0x4000n })).toBe(0);
  });

  it('deletion gives the binding back', () => {
    const { set } = setting();
    set({ slot: 0, flags: GMEM });
    expect(set({ slot: 0, memory_size: 0n })).toBe(0);
    expect(set({ slot: 3, flags: GMEM })).toBe(0);
  });
});

describe('access and fault resolution', () => {
  const access = (at: bigint, encrypted: boolean): GuestOp => ({
    op: 'read',
    gpa: gpa(at),
    length: 8,
    encrypted,
  });
  const NO_SLOT = 1n << 40n;

  /** KVM_RUN's result and the memory fault, if there is one. */
  function outcome(op: GuestOp, prepare?: (vm: TestVm) => void) {
    const { vm, answers } = perform([op], prepare);
    const { ret } = vm.enter();
    const flags =
      vm.exitReason() === KvmExit.KVM_EXIT_MEMORY_FAULT ? KvmRunMemoryFault.get(vm.run(), 'flags') : null;
    return { ret, flags, answers };
  }

  it.each([
    ['private access, shared attribute', access(BigInt(SHARED_AT), true), 8n],
    ['shared access, private attribute', access(PRIVATE_GPA, false), 0n],
    ['private access without slot, shared attribute', access(NO_SLOT, true), 8n],
    ['private access without slot, private attribute', access(NO_SLOT, true), 8n],
    ['shared access without slot, private attribute', access(NO_SLOT, false), 0n],
  ])('%s: exit 39', (name, op, flags) => {
    const prepare = (vm: TestVm) => {
      if (name.includes('without slot, private')) {
        vm.setAttributes(NO_SLOT, 0x1000, true);
      }
    };
    expect(outcome(op, prepare)).toEqual({ ret: -EFAULT, flags, answers: [] });
  });

  it('private access, private attribute, slot without guest_memfd: exit 39 flags 8', () => {
    const prepare = (vm: TestVm) => {
      vm.setRegion({
        slot: 1,
        guest_phys_addr: NO_SLOT,
        memory_size: 0x1000n,
        userspace_addr: vm.user.scratch,
      });
      vm.setAttributes(NO_SLOT, 0x1000, true);
    };
    expect(outcome(access(NO_SLOT, true), prepare)).toEqual({ ret: -EFAULT, flags: 8n, answers: [] });
  });

  it('private access after the file was closed: EFAULT, flags 8', () => {
    const prepare = (vm: TestVm) => void vm.user.process.close(vm.gmem);
    expect(outcome(access(PRIVATE_GPA, true), prepare)).toEqual({ ret: -EFAULT, flags: 8n, answers: [] });
  });

  it('shared access without slot: MMIO, #VC in the guest', () => {
    expect(outcome(access(NO_SLOT, false))).toEqual({
      ret: 0,
      flags: null,
      answers: [new GuestException(VECTOR_VC, 0x400)],
    });
  });

  it('shared access to memory the process has unmapped: EFAULT without a memory fault', () => {
    const prepare = (vm: TestVm) => void vm.user.process.munmap(vm.ram, RAM_SIZE);
    expect(outcome(access(BigInt(SHARED_AT), false), prepare)).toEqual({
      ret: -EFAULT,
      flags: null,
      answers: [],
    });
  });

  it('private access to a page that is not validated: #VC 0x404, and the page is the guest’s now', () => {
    const { vm, answers } = perform([access(PRIVATE_GPA, true)]);
    vm.enter();
    expect(answers).toEqual([new GuestException(VECTOR_VC, 0x404)]);
    expect(rmpOf(vm, PRIVATE_GPA)).toMatchObject({ assigned: true, asid: 1, validated: false, gfn: 0x400 });
  });

  it.each([
    ['beyond the physical width', { ...access((1n << 52n) - 4n, true) }],
    ['of a length no instruction has', { op: 'read', gpa: PRIVATE_GPA, length: -1, encrypted: true }],
    ['of 2^30 bytes', { op: 'read', gpa: PRIVATE_GPA, length: 2 ** 30, encrypted: true }],
    ['below 0', { op: 'write', gpa: gpa(-8n), data: new Uint8Array(8), encrypted: false }],
    ['PVALIDATE beyond', pvalidate(1n << 52n)],
    [
      'RMPADJUST beyond',
      { op: 'rmpadjust', gpa: gpa(1n << 60n), size: 0, vmpl: 1, permissions: 0, vmsa: false },
    ],
  ] as [string, GuestOp][])('access %s: #PF', (_, op) => {
    expect(outcome(op).answers).toEqual([new GuestException(VECTOR_PF, 9)]);
  });

  it('data crosses pages, and host and guest see the same shared bytes but not the same private ones', () => {
    const data = Uint8Array.from({ length: 5000 }, (_, i) => i);
    const shared = gpa(BigInt(SHARED_AT) + 0xf00n);
    const secret = gpa(PRIVATE_GPA + 0xf00n);
    const { vm, answers } = perform([
      { op: 'write', gpa: shared, data, encrypted: false },
      pvalidate(PRIVATE_GPA, 1),
      { op: 'write', gpa: secret, data, encrypted: true },
      { op: 'read', gpa: secret, length: 5000, encrypted: true },
    ]);
    vm.enter();
    expect(vm.peek(shared, 5000)).toEqual(data);
    expect(answers[3]).toEqual(data);
    const gmem = vm.user.process.files.get(vm.gmem) as GuestMemfd;
    const frame = gmem.firstFrame + 0x400;
    const cells = vm.user.host.hw.hostRead((BigInt(frame) << 12n) as never, 4096);
    expect(cells.subarray(0xf00)).not.toEqual(data.subarray(0, 0x100));
    const frames = { write: (at: bigint) => vm.user.host.hw.hostWrite(at as never, new Uint8Array(8)) };
    expect(frames.write(BigInt(frame) << 12n)).toMatchObject({ reason: 'rmp' });
  });
});

describe('the life of a guest_memfd page', () => {
  it('private, shared and private again: content and validation are kept', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA, 1),
      { op: 'write', gpa: PRIVATE_GPA, data: Uint8Array.of(1, 2, 3), encrypted: true },
      { op: 'hlt', wakeAfterMs: 0 },
      { op: 'read', gpa: PRIVATE_GPA, length: 3, encrypted: true },
    ]);
    vm.enter();
    vm.setAttributes(PRIVATE_GPA, 0x1000, false);
    expect(rmpOf(vm, PRIVATE_GPA)).toMatchObject({ assigned: true, validated: true });
    vm.setAttributes(PRIVATE_GPA, 0x1000, true);
    vm.enter();
    expect(answers[3]).toEqual(Uint8Array.of(1, 2, 3));
  });

  it('a hole takes the page back; the guest finds another one, not validated', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA),
      { op: 'write', gpa: PRIVATE_GPA, data: Uint8Array.of(1, 2, 3), encrypted: true },
      { op: 'hlt', wakeAfterMs: 0 },
      { op: 'read', gpa: PRIVATE_GPA, length: 3, encrypted: true },
      pvalidate(PRIVATE_GPA),
      { op: 'read', gpa: PRIVATE_GPA, length: 3, encrypted: true },
    ]);
    vm.enter();
    expect(vm.punchHole(Number(PRIVATE_GPA), 0x1000)).toBe(0);
    expect(rmpOf(vm, PRIVATE_GPA).assigned).toBe(false);
    vm.enter();
    expect(answers[3]).toEqual(new GuestException(VECTOR_VC, 0x404));
    expect(answers[5]).not.toEqual(Uint8Array.of(1, 2, 3));
  });

  it('fallocate does not give a page to the guest, a private fault does', () => {
    const { vm } = perform([pvalidate(PRIVATE_GPA)]);
    vm.user.process.fallocate(vm.gmem, 1, 0, RAM_SIZE);
    expect(rmpOf(vm, PRIVATE_GPA).assigned).toBe(false);
    vm.enter();
    expect(rmpOf(vm, PRIVATE_GPA)).toMatchObject({ assigned: true, immutable: false });
  });

  it('what a failed LAUNCH_UPDATE left in a page is gone when the guest gets it', () => {
    const host = new TestHost(() =>
      (function* program(): GuestProgram {
        yield pvalidate(PRIVATE_GPA, 1);
      })(),
    );
    const vm = new TestVm(host.user());
    vm.init2();
    vm.addMemory();
    vm.launchStart();
    vm.poke(0n, new Uint8Array(4096).fill(0xaa));
    expect(vm.launchUpdate({ gfn_start: 0x400n, uaddr: vm.ram, len: 0x1000n, type: 6 })).toBe(-EIO);
    vm.createVcpu();
    vm.launchFinish();
    vm.enter();
    const gmem = vm.user.process.files.get(vm.gmem) as GuestMemfd;
    const at = BigInt(gmem.firstFrame + 0x400) << 12n;
    expect(host.hw.hostRead(at as never, 16)).toEqual(new Uint8Array(16));
  });
});

describe('2 MiB pages', () => {
  it('a whole untouched private 2 MiB is one RMP entry; PVALIDATE of 2 MiB works', () => {
    const { vm, answers } = perform([pvalidate(PRIVATE_GPA, 1), pvalidate(PRIVATE_GPA, 1)]);
    vm.enter();
    expect(answers).toEqual([DONE, UNCHANGED]);
    expect(rmpOf(vm, PRIVATE_GPA)).toMatchObject({ pagesize: 1, validated: true });
  });

  it('PVALIDATE of 4 KiB splits it (RMP fault, PSMASH); 2 MiB is a size mismatch from then on', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA + 0x3000n),
      pvalidate(PRIVATE_GPA, 1),
      pvalidate(PRIVATE_GPA + 0x4000n),
    ]);
    vm.enter();
    expect(answers).toEqual([DONE, SIZEMISMATCH, DONE]);
    expect(rmpOf(vm, PRIVATE_GPA + 0x3000n)).toMatchObject({ pagesize: 0, validated: true, gfn: 0x403 });
    expect(rmpOf(vm, PRIVATE_GPA)).toMatchObject({ pagesize: 0, validated: false });
  });

  it('a shared page in it: its entry splits when the guest next touches the rest, which stays validated', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA, 1),
      { op: 'write', gpa: gpa(PRIVATE_GPA + 0x5000n), data: Uint8Array.of(9), encrypted: true },
      { op: 'hlt', wakeAfterMs: 0 },
      { op: 'read', gpa: gpa(PRIVATE_GPA + 0x5000n), length: 1, encrypted: true },
    ]);
    vm.enter();
    vm.setAttributes(PRIVATE_GPA + 0x1000n, 0x1000, false);
    expect(rmpOf(vm, PRIVATE_GPA).pagesize).toBe(1);
    vm.enter();
    expect(answers[3]).toEqual(Uint8Array.of(9));
    expect(rmpOf(vm, PRIVATE_GPA + 0x5000n)).toMatchObject({ pagesize: 0, validated: true });
  });

  it('a hole in it splits it and takes one page', () => {
    const { vm } = perform([pvalidate(PRIVATE_GPA, 1)]);
    vm.enter();
    vm.punchHole(Number(PRIVATE_GPA) + 0x2000, 0x1000);
    expect(rmpOf(vm, PRIVATE_GPA + 0x2000n).assigned).toBe(false);
    expect(rmpOf(vm, PRIVATE_GPA + 0x3000n)).toMatchObject({ assigned: true, validated: true, pagesize: 0 });
  });

  it('a hole over all of it takes it whole, and it can be one entry again', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA, 1),
      { op: 'hlt', wakeAfterMs: 0 },
      pvalidate(PRIVATE_GPA, 1),
    ]);
    vm.enter();
    vm.punchHole(Number(PRIVATE_GPA), CHUNK);
    expect(rmpOf(vm, PRIVATE_GPA).assigned).toBe(false);
    vm.enter();
    expect(answers[2]).toEqual(DONE);
  });

  it.each([
    [
      'a page of it is shared',
      (vm: TestVm) => void vm.setAttributes(PRIVATE_GPA + 0x1f_f000n, 0x1000, false),
    ],
    ['the slot ends inside it', (vm: TestVm) => rebind(vm, 0x40_0000n, 0x10_0000n, 0n)],
    ['the file is not aligned with it', (vm: TestVm) => rebind(vm, 0x40_0000n, BigInt(4 * MIB), 0x1000n)],
  ])('4 KiB entries when %s', (_, prepare) => {
    const { vm, answers } = perform([pvalidate(PRIVATE_GPA, 1), pvalidate(PRIVATE_GPA)], prepare);
    vm.enter();
    expect(answers).toEqual([SIZEMISMATCH, DONE]);
  });

  function rebind(vm: TestVm, at: bigint, size: bigint, offset: bigint): void {
    const flags = KvmMemFlag.KVM_MEM_GUEST_MEMFD;
    vm.setRegion({ slot: 0, memory_size: 0n });
    const region = { flags, userspace_addr: vm.ram, guest_memfd: vm.gmem };
    expect(
      vm.setRegion({
        ...region,
        slot: 1,
        guest_phys_addr: at,
        memory_size: size,
        guest_memfd_offset: offset,
      }),
    ).toBe(0);
  }

  it('a file bound at another guest address still has the old one in its RMP entries: the guest spins', () => {
    const { vm, answers } = perform([
      pvalidate(PRIVATE_GPA),
      { op: 'hlt', wakeAfterMs: 0 },
      pvalidate(PRIVATE_GPA + BigInt(CHUNK)),
    ]);
    vm.enter();
    vm.setRegion({ slot: 0, memory_size: 0n });
    vm.setRegion({
      slot: 1,
      flags: KvmMemFlag.KVM_MEM_GUEST_MEMFD,
      guest_phys_addr: BigInt(CHUNK),
      memory_size: BigInt(RAM_SIZE - CHUNK),
      userspace_addr: vm.ram,
      guest_memfd: vm.gmem,
    });
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: null });
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: null });
    expect(answers).toHaveLength(2);
    vm.punchHole(Number(PRIVATE_GPA), 0x1000);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(answers[2]).toEqual(DONE);
  });
});

describe('KVM_PRE_FAULT_MEMORY', () => {
  function preFault(vm: TestVm, fields: { gpa?: bigint; size?: bigint; flags?: bigint }) {
    const request = KvmPreFaultMemory.encode(fields);
    const ret = vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_PRE_FAULT_MEMORY, request);
    const { gpa: left, size } = KvmPreFaultMemory.decodeLoose(vm.user.take(KvmPreFaultMemory.size));
    return [ret, left, size];
  }

  it('before LAUNCH_FINISH: EOPNOTSUPP', () => {
    const vm = initialised();
    vm.addMemory();
    vm.createVcpu();
    expect(preFault(vm, { size: 0x1000n })).toEqual([-EOPNOTSUPP, 0n, 0x1000n]);
  });

  it.each([
    ['flags', { size: 0x1000n, flags: 1n }, -EINVAL],
    ['size 0', { size: 0n }, -EINVAL],
    ['an unaligned size', { size: 1n }, -EINVAL],
    ['an unaligned gpa', { gpa: 1n, size: 0x1000n }, -EINVAL],
    ['a range that wraps', { gpa: 0xffff_ffff_ffff_f000n, size: 0x1000n }, -EINVAL],
    ['no slot', { gpa: 1n << 40n, size: 0x1000n }, -ENOENT],
  ])('%s', (_, fields, expected) => {
    expect(preFault(launched(NOTHING).vm, fields)[0]).toBe(expected);
  });

  it('gives private pages to the guest and stops where memory ends, with what is left', () => {
    const { vm } = launched(NOTHING);
    const end = BigInt(RAM_SIZE);
    expect(preFault(vm, { gpa: end - 0x2000n, size: 0x5000n })).toEqual([0, end, 0x3000n]);
    expect(rmpOf(vm, end - 0x2000n)).toMatchObject({ assigned: true, validated: false });
    expect(preFault(vm, { gpa: BigInt(SHARED_AT), size: 0x1000n })).toEqual([
      0,
      BigInt(SHARED_AT) + 0x1000n,
      0n,
    ]);
    vm.user.process.munmap(vm.ram, RAM_SIZE);
    expect(preFault(vm, { gpa: BigInt(SHARED_AT), size: 0x1000n })[0]).toBe(-EFAULT);
  });
});

describe('KVM_MEMORY_ENCRYPT_REG_REGION', () => {
  it('pins what is mapped; unpins what was pinned', () => {
    const vm = initialised();
    const call = (nr: number, addr: bigint, size: bigint) =>
      vm.user.ioctl(vm.fd, nr, KvmEncRegion.encode({ addr, size }));
    const reg = KvmIoctl.KVM_MEMORY_ENCRYPT_REG_REGION;
    const unreg = KvmIoctl.KVM_MEMORY_ENCRYPT_UNREG_REGION;
    const at = vm.user.scratch;
    expect(call(unreg, at, 0x1000n)).toBe(-EINVAL);
    expect(call(reg, at, 0x1000n)).toBe(0);
    expect(call(unreg, at, 0x1000n)).toBe(0);
    expect(call(unreg, at, 0x1000n)).toBe(-EINVAL);
    expect(call(reg, 0x1000n, 0x1000n)).toBe(-EFAULT);
    expect(call(reg, at, 1n << 62n)).toBe(-EFAULT);
    expect(call(reg, 0xffff_ffff_ffff_f000n, 0x2000n)).toBe(-EINVAL);
    const plain = new TestVm(vm.user, 0);
    expect(vm.user.ioctl(plain.fd, reg, KvmEncRegion.encode({ addr: at, size: 0x1000n }))).toBe(
      -Errno.ENOTTY,
    );
  });
});
