// SPDX-License-Identifier: Apache-2.0
/** Registers before protection, and the VMSA they become. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import { KvmIoctl } from '../abi/kvm.ts';
import {
  KvmCpuid2,
  KvmCpuidEntry2,
  KvmDebugregs,
  KvmFpu,
  KvmRegs,
  type KvmSegment,
  KvmSregs,
  KvmXcrs,
  KvmXsave,
} from '../abi/kvm-structs.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { BSP_EIP, buildVmsa } from '../launch/vmsa.ts';
import { concat } from '../lib/bytes.ts';
import type { DecodedFields, FieldTable, Layout } from '../lib/struct.ts';
import { launched, NOTHING, type Program, TestHost, TestVm } from './testing.ts';

const CPU_SIG = 0x00a00f11;

const seen: Uint8Array[] = [];

const recordsVmsa: Program = (id, vmsa) => {
  seen.push(vmsa);
  return NOTHING(id, vmsa);
};

function vmWithVcpus(count: number): TestVm {
  const vm = new TestVm(new TestHost(recordsVmsa).user());
  vm.init2();
  vm.addMemory();
  vm.launchStart();
  for (let i = 0; i < count; i++) {
    vm.createVcpu();
  }
  return vm;
}

const get = <F extends FieldTable>(vm: TestVm, nr: number, layout: Layout<F>, index = 0) =>
  vm.user.get(vm.vcpus[index]!, nr, layout) as DecodedFields<F>;

const set = <F extends FieldTable>(
  vm: TestVm,
  nr: number,
  layout: Layout<F>,
  value: Partial<DecodedFields<F>>,
  index = 0,
) => vm.user.ioctl(vm.vcpus[index]!, nr, layout.encode(value));

const segment = (type: number, s: number, over: Partial<KvmSegment> = {}): KvmSegment => ({
  ...{
    base: 0n,
    limit: 0xffff,
    selector: 0,
    type,
    present: 1,
    dpl: 0,
    db: 0,
    s,
    l: 0,
    g: 0,
    avl: 0,
    unusable: 0,
  },
  ...over,
});

/** What QEMU puts into a vCPU before it runs. */
function likeQemu(vm: TestVm, index: number, eip: number): void {
  const sregs = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs, index);
  const data = segment(3, 1);
  const table = { base: 0n, limit: 0xffff };
  const ret = set(
    vm,
    KvmIoctl.KVM_SET_SREGS,
    KvmSregs,
    {
      ...sregs,
      ...{ ds: data, es: data, fs: data, gs: data, ss: data, gdt: table, idt: table },
      cs: segment(11, 1, { selector: 0xf000, base: BigInt((eip & 0xffff_0000) >>> 0) }),
      tr: segment(11, 0),
      ldt: segment(2, 0),
      cr0: 0x6000_0010n,
    },
    index,
  );
  expect(ret).toBe(0);
  set(
    vm,
    KvmIoctl.KVM_SET_REGS,
    KvmRegs,
    { rip: BigInt(eip & 0xffff), rdx: BigInt(CPU_SIG), rflags: 2n },
    index,
  );
}

describe('the measured VMSA', () => {
  it('of a VMM that does what QEMU does is the one the launch digest counts, for BSP and AP', () => {
    const vm = vmWithVcpus(2);
    const apEip = 0x0080_b004;
    likeQemu(vm, 0, BSP_EIP);
    likeQemu(vm, 1, apEip);
    expect(vm.launchFinish()).toBe(0);
    seen.length = 0;
    vm.enter(0);
    vm.enter(1);
    const expected = (eip: number) => buildVmsa({ eip, cpuSig: CPU_SIG, sevFeatures: 1n, vmmType: 'QEMU' });
    expect(seen).toEqual([expected(BSP_EIP), expected(apEip)]);
  });

  it('of a VMM that reads the segments and writes them back is what krun measures', () => {
    const vm = vmWithVcpus(1);
    const sregs = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs);
    expect(set(vm, KvmIoctl.KVM_SET_SREGS, KvmSregs, sregs)).toBe(0);
    set(vm, KvmIoctl.KVM_SET_REGS, KvmRegs, { rip: 0xfff0n, rflags: 2n });
    const fpu = get(vm, KvmIoctl.KVM_GET_FPU, KvmFpu);
    expect([fpu.mxcsr, fpu.fcw]).toEqual([0x1f80, 0x37f]);
    set(vm, KvmIoctl.KVM_SET_FPU, KvmFpu, { ...fpu, mxcsr: 0, fcw: 0 });
    vm.launchFinish();
    seen.length = 0;
    vm.enter();
    expect(seen).toEqual([buildVmsa({ eip: BSP_EIP, cpuSig: 0, sevFeatures: 1n, vmmType: 'krun' })]);
  });

  it('carries the features of INIT2 and SNPActive', () => {
    const vm = new TestVm(new TestHost(recordsVmsa).user());
    expect(vm.init2({ vmsa_features: 0x20n })).toBe(0);
    vm.addMemory();
    vm.launchStart();
    vm.createVcpu();
    vm.launchFinish();
    seen.length = 0;
    vm.enter();
    expect(Vmsa.get(seen[0]!, 'sev_features')).toBe(0x21n);
  });
});

describe('reset state', () => {
  it('RIP 0xfff0 in segment 0xf000, RDX 0x600, caches off, APIC base of BSP and AP', () => {
    const vm = vmWithVcpus(2);
    expect(get(vm, KvmIoctl.KVM_GET_REGS, KvmRegs)).toMatchObject({ rip: 0xfff0n, rdx: 0x600n, rflags: 2n });
    const sregs = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs);
    expect(sregs.cs).toMatchObject({ base: 0xffff_0000n, selector: 0xf000, type: 10, s: 1, present: 1 });
    expect(sregs).toMatchObject({ cr0: 0x6000_0010n, cr4: 0n, efer: 0n, apic_base: 0xfee0_0900n });
    expect(get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs, 1).apic_base).toBe(0xfee0_0800n);
    expect(get(vm, KvmIoctl.KVM_GET_DEBUGREGS, KvmDebugregs)).toMatchObject({
      dr6: 0xffff_0ff0n,
      dr7: 0x400n,
    });
    expect(get(vm, KvmIoctl.KVM_GET_XCRS, KvmXcrs)).toMatchObject({ nr_xcrs: 1, flags: 0 });
  });
});

describe('setting registers', () => {
  it.each([
    ['paging without protection', { cr0: 0x8000_0000n }],
    ['write-through without cache disable', { cr0: 0x2000_0000n }],
    ['CR0 beyond 32 bits', { cr0: 1n << 32n }],
    ['long mode without PAE', { cr0: 0x8000_0001n, efer: 0x500n }],
    ['long mode active without being enabled', { cr0: 1n, efer: 0x400n }],
    ['a 64-bit code segment outside long mode', { cs: segment(11, 1, { l: 1 }) }],
    ['CR8 above 15', { cr8: 16n }],
    ['x2APIC mode of a disabled APIC', { apic_base: 0xfee0_0400n }],
    ['reserved bits of the APIC base', { apic_base: 0xfee0_0801n }],
    ['an APIC base beyond physical memory', { apic_base: (1n << 52n) | 0x800n }],
  ])('SET_SREGS refuses %s and changes nothing', (_, over) => {
    const vm = vmWithVcpus(1);
    const before = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs);
    expect(set(vm, KvmIoctl.KVM_SET_SREGS, KvmSregs, { ...before, ...over })).toBe(-Errno.EINVAL);
    expect(get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs)).toEqual(before);
  });

  it('long mode with what it needs is fine; a segment that is not usable is not present', () => {
    const vm = vmWithVcpus(1);
    const before = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs);
    const ldt = segment(2, 0, { unusable: 1 });
    const next = { ...before, cr0: 0x8000_0011n, cr4: 0x20n, efer: 0x500n, ldt };
    expect(set(vm, KvmIoctl.KVM_SET_SREGS, KvmSregs, next)).toBe(0);
    const after = get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs);
    expect(after).toMatchObject({ cr0: 0x8000_0011n, cr4: 0x20n, efer: 0x500n });
    expect([after.ldt.present, after.ldt.unusable]).toEqual([0, 1]);
  });

  it('general, debug, extended control and floating-point registers come back as they were set', () => {
    const vm = vmWithVcpus(1);
    const regs = { ...get(vm, KvmIoctl.KVM_GET_REGS, KvmRegs), rax: 1n, r15: 2n, rflags: 0x200n };
    set(vm, KvmIoctl.KVM_SET_REGS, KvmRegs, regs);
    expect(get(vm, KvmIoctl.KVM_GET_REGS, KvmRegs)).toEqual({ ...regs, rflags: 0x202n });
    const debug = { db: [1n, 2n, 3n, 4n], dr6: 0xffff_0ff1n, dr7: 0x401n, flags: 0n };
    set(vm, KvmIoctl.KVM_SET_DEBUGREGS, KvmDebugregs, debug);
    expect(get(vm, KvmIoctl.KVM_GET_DEBUGREGS, KvmDebugregs)).toEqual(debug);
    const xcrs = get(vm, KvmIoctl.KVM_GET_XCRS, KvmXcrs);
    const some = { ...xcrs, xcrs: xcrs.xcrs.map((xcr, i) => (i === 0 ? { xcr: 0, value: 7n } : xcr)) };
    expect(set(vm, KvmIoctl.KVM_SET_XCRS, KvmXcrs, some)).toBe(0);
    expect(get(vm, KvmIoctl.KVM_GET_XCRS, KvmXcrs)).toEqual(some);
    const st = Array.from({ length: 8 }, (_, i) =>
      Uint8Array.from({ length: 16 }, (__, j) => (j < 10 ? i + j : 0)),
    );
    const xsave = { ...get(vm, KvmIoctl.KVM_GET_XSAVE, KvmXsave), st, ftw: 0xff, rip: 5n };
    set(vm, KvmIoctl.KVM_SET_XSAVE, KvmXsave, xsave);
    expect(get(vm, KvmIoctl.KVM_GET_XSAVE2, KvmXsave)).toEqual(xsave);
    expect(get(vm, KvmIoctl.KVM_GET_FPU, KvmFpu)).toMatchObject({ fpr: st, ftwx: 0xff, last_ip: 5n });
  });

  it('SREGS2 is SREGS without the interrupt bitmap', () => {
    const vm = vmWithVcpus(1);
    const out = new Uint8Array(320);
    expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_GET_SREGS2, out)).toBe(0);
    const sregs2 = vm.user.take(320);
    expect(sregs2.slice(0, 280)).toEqual(
      KvmSregs.encode(get(vm, KvmIoctl.KVM_GET_SREGS, KvmSregs)).slice(0, 280),
    );
    expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_SET_SREGS2, sregs2)).toBe(0);
  });

  it.each([
    ['XCR0 without x87', KvmIoctl.KVM_SET_XCRS, KvmXcrs.encode({ nr_xcrs: 1 })],
    ['too many XCRs', KvmIoctl.KVM_SET_XCRS, KvmXcrs.encode({ nr_xcrs: 17 })],
    ['XCR flags', KvmIoctl.KVM_SET_XCRS, KvmXcrs.encode({ flags: 1 })],
    ['flags of debug registers', KvmIoctl.KVM_SET_DEBUGREGS, KvmDebugregs.encode({ flags: 1n })],
    ['DR7 beyond 32 bits', KvmIoctl.KVM_SET_DEBUGREGS, KvmDebugregs.encode({ dr7: 1n << 32n })],
  ])('refuses %s', (_, nr, bytes) => {
    const vm = vmWithVcpus(1);
    expect(vm.user.ioctl(vm.vcpus[0]!, nr, bytes)).toBe(-Errno.EINVAL);
  });

  it('LAUNCH_FINISH refuses a vCPU whose debug registers are in use', () => {
    const vm = vmWithVcpus(1);
    set(vm, KvmIoctl.KVM_SET_DEBUGREGS, KvmDebugregs, { dr7: 1n });
    expect(vm.launchFinish()).toBe(-Errno.EINVAL);
  });
});

describe('after protection', () => {
  const names = Object.keys(KvmIoctl).filter((name) =>
    /_(REGS|SREGS2?|DEBUGREGS|XSAVE2?|XCRS|FPU|GUEST_DEBUG)$/.test(name),
  ) as (keyof typeof KvmIoctl)[];

  it.each(names)('%s: EINVAL', (name) => {
    const { vm } = launched(NOTHING);
    expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl[name], new Uint8Array(8))).toBe(-Errno.EINVAL);
  });

  it('unreadable and unwritable arguments before: EFAULT', () => {
    const vm = vmWithVcpus(1);
    const call = (nr: number) => vm.user.process.ioctl(vm.vcpus[0]!, nr, 0x1000n);
    const all = names.filter((name) => name !== 'KVM_SET_GUEST_DEBUG').map((name) => call(KvmIoctl[name]));
    expect(all.every((ret) => ret === -Errno.EFAULT)).toBe(true);
    expect(call(KvmIoctl.KVM_GET_MP_STATE)).toBe(-Errno.EFAULT);
    expect(call(0x1234)).toBe(-Errno.EINVAL);
  });
});

describe('KVM_SET_CPUID2', () => {
  it('comes back from GET_CPUID2, which wants room; too many entries: E2BIG', () => {
    const vm = vmWithVcpus(1);
    const [fd] = vm.vcpus;
    const entry = KvmCpuidEntry2.encode({ function: 1, eax: CPU_SIG });
    const table = concat(KvmCpuid2.encode({ nent: 2 }), entry, entry);
    expect(vm.user.ioctl(fd!, KvmIoctl.KVM_SET_CPUID2, table)).toBe(0);
    expect(vm.user.ioctl(fd!, KvmIoctl.KVM_GET_CPUID2, KvmCpuid2.encode({ nent: 1 }))).toBe(-Errno.E2BIG);
    expect(vm.user.ioctl(fd!, KvmIoctl.KVM_GET_CPUID2, KvmCpuid2.encode({ nent: 9 }))).toBe(0);
    expect(vm.user.take(table.length)).toEqual(table);
    expect(vm.user.ioctl(fd!, KvmIoctl.KVM_SET_CPUID2, KvmCpuid2.encode({ nent: 257 }))).toBe(-Errno.E2BIG);
    expect(vm.user.process.ioctl(fd!, KvmIoctl.KVM_SET_CPUID2, 0x1000n)).toBe(-Errno.EFAULT);
  });
});
