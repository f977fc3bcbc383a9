// SPDX-License-Identifier: Apache-2.0
/** [KVM] "KVM_RUN order of operations", row by row, and how vCPUs sleep and wake. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import { GhcbExit } from '../abi/ghcb.ts';
import { ghcbMsrPscReq } from '../abi/ghcb-msr.ts';
import { GuestException, type GuestProgram, VECTOR_GP, VECTOR_VC } from '../abi/guest-ops.ts';
import { KvmExit, KvmIoctl, KvmMp } from '../abi/kvm.ts';
import { KvmRun, KvmRunHypercall } from '../abi/kvm-run.ts';
import { KvmMsi } from '../abi/kvm-structs.ts';
import { Msr } from '../abi/msrs.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { gpa } from '../lib/addresses.ts';
import {
  type GhcbCall,
  ghcbCall,
  launched,
  msrCall,
  NOTHING,
  type Program,
  registerGhcb,
  TestHost,
  TestVm,
} from './testing.ts';

const EINTR = { ret: -Errno.EINTR };
const BLOCKED = { blocked: true, wakeAtMs: null };

/** Asks for page state changes through the MSR, one after another. */
const changesPages: Program = () =>
  (function* program(): GuestProgram {
    for (let gfn = 0x400; gfn < 0x404; gfn++) {
      yield* msrCall(ghcbMsrPscReq(gfn, 2));
    }
  })();

const sleeps =
  (wakeAfterMs?: number): Program =>
  () =>
    (function* program(): GuestProgram {
      yield wakeAfterMs === undefined ? { op: 'hlt' } : { op: 'hlt', wakeAfterMs };
    })();

describe('KVM_RUN', () => {
  it('row 1: another process, or a dead VM: EIO', () => {
    const { vm, host } = launched(NOTHING);
    const other = host.kernel.spawn('other');
    const fd = vm.user.process.sendFd(vm.vcpus[0]!, other);
    const vmFd = vm.user.process.sendFd(vm.fd, other);
    expect(other.run(fd)).toEqual({ ret: -Errno.EIO });
    expect(other.ioctl(fd, KvmIoctl.KVM_GET_MP_STATE, 0n)).toBe(-Errno.EIO);
    expect(other.ioctl(vmFd, KvmIoctl.KVM_CHECK_EXTENSION, 0n)).toBe(-Errno.EIO);
    expect(vm.enter()).toEqual({ ret: 0 });
  });

  it('row 3: an argument other than 0: EINVAL', () => {
    const { vm } = launched(NOTHING);
    expect(vm.user.process.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_RUN, 1n)).toBe(-Errno.EINVAL);
    expect(vm.user.process.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_RUN, 0n)).toBe(0);
  });

  it('row 5: UNINITIALIZED with immediate_exit: EINTR', () => {
    const { vm } = launched(NOTHING, { vcpus: 2 });
    KvmRun.set(vm.run(1), 'immediate_exit', 1);
    expect(vm.enter(1)).toEqual(EINTR);
  });

  it('row 5: UNINITIALIZED sleeps; a signal ends it with EINTR and exit_reason INTR', () => {
    const { vm } = launched(NOTHING, { vcpus: 2 });
    expect(vm.enter(1)).toEqual(BLOCKED);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.user.process.signal(vm.vcpus[1]!);
    expect(vm.enter(1)).toEqual(EINTR);
    expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_INTR);
  });

  it('row 5 comes before row 6: an AP with bad sync regs still sleeps', () => {
    const { vm } = launched(NOTHING, { vcpus: 2 });
    KvmRun.set(vm.run(1), 'kvm_valid_regs', 1n);
    expect(vm.enter(1)).toEqual(BLOCKED);
  });

  it.each(['kvm_valid_regs', 'kvm_dirty_regs'] as const)('row 6: %s on an SNP VM: EINVAL', (field) => {
    const { vm } = launched(NOTHING);
    KvmRun.set(vm.run(), field, 1n);
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
  });

  it('row 6: a plain VM offers three sets of registers', () => {
    const vm = new TestVm(new TestHost().user(), 0);
    vm.createVcpu();
    KvmRun.set(vm.run(), 'kvm_valid_regs', 7n);
    expect(vm.enter()).toEqual({ ret: 0 });
    KvmRun.set(vm.run(), 'kvm_valid_regs', 8n);
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
  });

  it('row 7: without an in-kernel APIC a cr8 above 15: EINVAL; with one it is not looked at', () => {
    const without = launched(NOTHING, { irqchip: false });
    KvmRun.set(without.vm.run(), 'cr8', 16n);
    expect(without.vm.enter()).toEqual({ ret: -Errno.EINVAL });
    const { vm } = launched(NOTHING);
    KvmRun.set(vm.run(), 'cr8', 16n);
    expect(vm.enter()).toEqual({ ret: 0 });
  });

  it('row 6 comes before row 8: a completion outlives a refused KVM_RUN', () => {
    const { vm } = launched(changesPages);
    vm.enter();
    KvmRun.set(vm.run(), 'kvm_valid_regs', 1n);
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
    KvmRun.set(vm.run(), 'kvm_valid_regs', 0n);
    vm.enter();
    expect(KvmRunHypercall.get(vm.run(), 'args')[0]).toBe(0x401n << 12n);
  });

  it('row 8: a completion that is a new exit wins over immediate_exit', () => {
    const buffer = new Uint8Array(24);
    buffer.set([0, 0, 1, 0, 0, 0, 0, 0]);
    new DataView(buffer.buffer).setBigUint64(8, (2n << 52n) | (0x500n << 12n), true);
    new DataView(buffer.buffer).setBigUint64(16, (2n << 52n) | (0x600n << 12n), true);
    const call: GhcbCall = {
      code: GhcbExit.SVM_VMGEXIT_PSC,
      fields: { sw_scratch: 0x10_0800n },
      buffer,
    };
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        yield* ghcbCall(call);
      })(),
    );
    vm.enter();
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(KvmRunHypercall.get(vm.run(), 'args')[0]).toBe(0x600n << 12n);
    expect(vm.enter()).toEqual(EINTR);
  });

  it('row 9 comes after row 8: immediate_exit finishes the exit, and only then is EINTR', () => {
    const { vm } = launched(changesPages);
    vm.enter();
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual(EINTR);
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_HYPERCALL);
    expect(KvmRunHypercall.get(vm.run(), 'args')[0]).toBe(0x400n << 12n);
    KvmRun.set(vm.run(), 'immediate_exit', 0);
    vm.enter();
    expect(KvmRunHypercall.get(vm.run(), 'args')[0]).toBe(0x401n << 12n);
  });

  it('row 8: a signal does not keep a completion from happening', () => {
    const { vm } = launched(changesPages);
    vm.enter();
    vm.user.process.signal(vm.vcpus[0]!);
    expect(vm.enter()).toEqual(EINTR);
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_INTR);
    vm.enter();
    expect(KvmRunHypercall.get(vm.run(), 'args')[0]).toBe(0x401n << 12n);
  });

  it('row 9 comes before row 10: immediate_exit on a VM without INIT2 is EINTR, not EINVAL', () => {
    const vm = new TestVm(new TestHost().user());
    vm.createVcpu();
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual(EINTR);
    KvmRun.set(vm.run(), 'immediate_exit', 0);
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
  });

  it('row 11: exit_reason is 0 while the guest runs; immediate_exit is never cleared', () => {
    const { vm } = launched(sleeps());
    KvmRun.set(vm.run(), 'exit_reason', 99);
    expect(vm.enter()).toEqual(BLOCKED);
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_UNKNOWN);
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual(BLOCKED);
    vm.user.process.signal(vm.vcpus[0]!);
    expect(vm.enter()).toEqual(EINTR);
    expect(KvmRun.get(vm.run(), 'immediate_exit')).toBe(1);
  });

  it('the lock of a sleeping vCPU is not free: other ioctls end in EINTR', () => {
    const { vm } = launched(sleeps());
    vm.enter();
    expect(vm.setMpState(0, 0)).toBe(-Errno.EINTR);
    expect(vm.user.process.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_RUN, 0n)).toBe(-Errno.EINTR);
    vm.user.process.signal(vm.vcpus[0]!);
    vm.enter();
    expect(vm.setMpState(0, 0)).toBe(0);
  });

  it('a descriptor that is no vCPU: EBADF, EINVAL', () => {
    const { vm } = launched(NOTHING);
    expect(vm.user.process.run(99)).toEqual({ ret: -Errno.EBADF });
    expect(vm.user.process.run(vm.fd)).toEqual({ ret: -Errno.EINVAL });
  });

  it('a memory fault is tried again by the next KVM_RUN', () => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield { op: 'write', gpa: gpa(0x10_0ffcn), data: new Uint8Array(8).fill(5), encrypted: false };
      })(),
    );
    vm.setAttributes(0x10_1000, 0x1000, true);
    expect(vm.enter()).toEqual({ ret: -Errno.EFAULT });
    expect(vm.enter()).toEqual({ ret: -Errno.EFAULT });
    vm.setAttributes(0x10_1000, 0x1000, false);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.peek(0x10_0ffcn, 8)).toEqual(new Uint8Array(8).fill(5));
  });

  it('code at its end, or without a handler for an exception, is a shutdown, again and again', () => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield { op: 'rdmsr', msr: 0x1234 };
      })(),
    );
    for (let i = 0; i < 2; i++) {
      expect(vm.enter()).toEqual({ ret: 0 });
      expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    }
  });
});

describe('sleep and turns', () => {
  it('HLT without an in-kernel APIC leaves to userspace', () => {
    const { vm } = launched(sleeps(), { irqchip: false });
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_HLT);
  });

  it('HLT with a timer wakes when its time has come', () => {
    const { vm, host } = launched(sleeps(50));
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: 50 });
    host.clock.advance(49);
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: 50 });
    host.clock.advance(1);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
  });

  it('HLT for no time gives others a turn', () => {
    const { vm } = launched(sleeps(0));
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: 0 });
    expect(vm.enter()).toEqual({ ret: 0 });
  });

  it('an MSI wakes the vCPU it is for', () => {
    const { vm } = launched(sleeps(), { vcpus: 2 });
    vm.enter();
    const signal = (address_lo: number) =>
      vm.user.ioctl(vm.fd, KvmIoctl.KVM_SIGNAL_MSI, KvmMsi.encode({ address_lo }));
    expect(signal(9 << 12)).toBe(0);
    expect(vm.enter()).toEqual(BLOCKED);
    expect(signal(0)).toBe(1);
    expect(vm.enter()).toEqual({ ret: 0 });
  });

  it('a guest that never leaves gives its turn up after a slice, and goes on where it was', () => {
    let turns = 0;
    const { vm } = launched(
      () =>
        (function* program(): GuestProgram {
          for (; turns < 250; turns++) {
            yield { op: 'rdmsr', msr: Msr.MSR_AMD64_SEV };
          }
        })(),
      { host: { sliceOps: 100 } },
    );
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: 0 });
    expect(vm.enter()).toEqual({ blocked: true, wakeAtMs: 0 });
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(turns).toBe(250);
  });

  it('signal interrupts HLT; the next KVM_RUN sleeps on', () => {
    const { vm } = launched(sleeps());
    vm.enter();
    vm.user.process.signal(vm.vcpus[0]!);
    expect(vm.enter()).toEqual(EINTR);
    expect(vm.enter()).toEqual(BLOCKED);
  });
});

describe('mp_state', () => {
  it('with an in-kernel APIC: the BSP RUNNABLE, others UNINITIALIZED; without: all RUNNABLE', () => {
    const withApic = launched(NOTHING, { vcpus: 3 }).vm;
    expect([0, 1, 2].map((i) => withApic.mpState(i))).toEqual([0, 1, 1]);
    const without = launched(NOTHING, { vcpus: 3, irqchip: false }).vm;
    expect([0, 1, 2].map((i) => without.mpState(i))).toEqual([0, 0, 0]);
  });

  it.each([
    [KvmMp.KVM_MP_STATE_RUNNABLE, 0, 0],
    [KvmMp.KVM_MP_STATE_UNINITIALIZED, 0, -Errno.EINVAL],
    [KvmMp.KVM_MP_STATE_INIT_RECEIVED, 0, -Errno.EINVAL],
    [KvmMp.KVM_MP_STATE_HALTED, 0, -Errno.EINVAL],
    [KvmMp.KVM_MP_STATE_SIPI_RECEIVED, 0, -Errno.EINVAL],
    [KvmMp.KVM_MP_STATE_AP_RESET_HOLD, 0, -Errno.EINVAL],
    [5, -Errno.EINVAL, -Errno.EINVAL],
    [0xffffffff, -Errno.EINVAL, -Errno.EINVAL],
  ])('SET_MP_STATE %i: %i with an in-kernel APIC, %i without', (state, withApic, without) => {
    expect(launched(NOTHING).vm.setMpState(0, state)).toBe(withApic);
    expect(launched(NOTHING, { irqchip: false }).vm.setMpState(0, state)).toBe(without);
  });

  it('SIPI_RECEIVED is INIT_RECEIVED with a SIPI on its way', () => {
    const { vm } = launched(NOTHING, { vcpus: 2 });
    vm.setMpState(1, KvmMp.KVM_MP_STATE_SIPI_RECEIVED);
    expect(vm.mpState(1)).toBe(KvmMp.KVM_MP_STATE_RUNNABLE);
  });

  it('INIT_RECEIVED sleeps until a SIPI', () => {
    const { vm } = launched(NOTHING, { vcpus: 2 });
    vm.setMpState(1, KvmMp.KVM_MP_STATE_INIT_RECEIVED);
    expect(vm.enter(1)).toEqual(BLOCKED);
  });
});

describe('registers the processor gives a guest itself', () => {
  it('SEV_STATUS, the GHCB MSR after reset, and those in the VMSA', () => {
    const seen: unknown[] = [];
    const { vm } = launched((_, vmsa) =>
      (function* program(): GuestProgram {
        seen.push(Vmsa.get(vmsa, 'sev_features'));
        seen.push(yield { op: 'rdmsr', msr: Msr.MSR_AMD64_SEV });
        seen.push(yield { op: 'rdmsr', msr: Msr.MSR_AMD64_SEV_ES_GHCB });
        seen.push(yield { op: 'rdmsr', msr: 0x277 });
        yield { op: 'wrmsr', msr: 0xc000_0102, value: 0x1234n };
        seen.push(yield { op: 'rdmsr', msr: 0xc000_0102 });
      })(),
    );
    vm.enter();
    expect(seen).toEqual([1n, 7n, 0x0002_0001_3300_0001n, 0x0007_0406_0007_0406n, 0x1234n]);
  });

  it.each([
    ['an intercepted MSR: #VC 0x7c', { op: 'rdmsr', msr: 0x1b } as const, VECTOR_VC, 0x7c],
    ['a write of one', { op: 'wrmsr', msr: 0x10, value: 1n } as const, VECTOR_VC, 0x7c],
    ['a write of SEV_STATUS: #GP', { op: 'wrmsr', msr: 0xc001_0131, value: 1n } as const, VECTOR_GP, 0],
  ])('%s', (_, op, vector, errorCode) => {
    let caught: unknown;
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        try {
          yield op;
        } catch (error) {
          caught = error;
        }
      })(),
    );
    vm.enter();
    expect(caught).toEqual(new GuestException(vector, errorCode));
  });
});
