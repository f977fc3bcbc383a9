// SPDX-License-Identifier: Apache-2.0
/** [GHCB] "KVM behaviour per request" and "MSR page state change". */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { ghcbMsrPscReq, ghcbMsrTermReq } from '../../abi/ghcb-msr.ts';
import type { GuestProgram } from '../../abi/guest-ops.ts';
import { KvmExit, KvmIoctl } from '../../abi/kvm.ts';
import { KvmRunHypercall, KvmRunSystemEvent } from '../../abi/kvm-run.ts';
import { KvmCpuid2, KvmCpuidEntry2 } from '../../abi/kvm-structs.ts';
import { concat } from '../../lib/bytes.ts';
import { type LaunchedOptions, launched, msrCall, type TestVm } from '../testing.ts';

/** Makes one request, with `answerExit` for exits, and gives the MSR the guest finds. */
function request(
  value: bigint,
  options: LaunchedOptions = {},
  answerExit: (vm: TestVm) => void = () => undefined,
  prepare: (vm: TestVm) => void = () => undefined,
): { response: bigint; exits: number[] } {
  let response = -1n;
  const { vm } = launched(
    () =>
      (function* program(): GuestProgram {
        response = yield* msrCall(value);
      })(),
    options,
  );
  prepare(vm);
  const exits: number[] = [];
  for (;;) {
    expect(vm.enter()).toEqual({ ret: 0 });
    if (vm.exitReason() === KvmExit.KVM_EXIT_SHUTDOWN) {
      return { response, exits };
    }
    exits.push(vm.exitReason());
    answerExit(vm);
  }
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

describe('the GHCB MSR protocol', () => {
  it.each([
    ['SEV information', 0x2n, {}, 0x0002_0001_3300_0001n],
    ['SEV information, version 1', 0x2n, { ghcbVersion: 1 }, 0x0001_0001_3300_0001n],
    ['SEV information with rubbish above the code', 0xffff_ffff_ffff_f002n, {}, 0x0002_0001_3300_0001n],
    ['preferred GHCB GPA', 0x10n, {}, 0xffff_ffff_ffff_f011n],
    ['register GHCB GPA', 0x12_3456_7012n, {}, 0x12_3456_7013n],
    ['register GHCB GPA 0', 0x12n, {}, 0x13n],
    ['register a GPA that cannot be', 0xffff_ffff_ffff_f012n, {}, 0xffff_ffff_ffff_f013n],
    ['hypervisor features', 0x80n, {}, 0x3081n],
    ['run VMPL', 0x1_0000_0016n, {}, 0x1_0000_0016n],
  ])('%s', (_, value, options, expected) => {
    expect(hex(request(value, options).response)).toBe(hex(expected));
  });

  const known = new Set([0x002, 0x004, 0x006, 0x010, 0x012, 0x014, 0x080, 0x100]);
  const unknown = Array.from({ length: 0xfff }, (_, i) => i + 1).filter((code) => !known.has(code));

  it('every other code: the value stays as it is and the guest goes on', () => {
    const responses: bigint[] = [];
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        for (const code of unknown) {
          responses.push(yield* msrCall(0xabcd_0000n | BigInt(code)));
        }
      })(),
    );
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(responses).toEqual(unknown.map((code) => 0xabcd_0000n | BigInt(code)));
  });

  it('0, and a page that is not there: nothing happens', () => {
    expect(request(0n).response).toBe(0n);
    expect(request(1n << 45n).response).toBe(1n << 45n);
  });

  it('a page that is not the registered one: EINVAL, and the guest goes on without an answer', () => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* msrCall(0x10_0000n);
      })(),
    );
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    const bitmap = vm.peek(0x10_03f0n, 16);
    expect([bitmap[7]! & 0x80, bitmap[12]! & 0x0e, bitmap[14]]).toEqual([0x80, 0x0e, 0]);
  });

  it.each([
    [0, 0x11111111],
    [1, 0x22222222],
    [2, 0x33333333],
    [3, 0xf4444444],
  ])('CPUID register %i keeps bits 31:12 of the request', (reg, value) => {
    const entry = KvmCpuidEntry2.encode({
      function: 0x8000001f,
      eax: 0x11111111,
      ebx: 0x22222222,
      ecx: 0x33333333,
      edx: 0xf4444444,
    });
    const asked = (0x8000001fn << 32n) | (BigInt(reg) << 30n) | 0x1234_5000n | 4n;
    const { response } = request(asked, {}, undefined, (vm) => {
      const table = concat(KvmCpuid2.encode({ nent: 1 }), entry);
      expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_SET_CPUID2, table)).toBe(0);
    });
    expect(hex(response)).toBe(hex((BigInt(value) << 32n) | (asked & 0xffff_f000n) | 5n));
  });

  it('CPUID of a function the VMM did not set is 0', () => {
    expect(request(0x8000001f_4000_0004n).response).toBe(0x4000_0005n);
  });

  it('page state change: exit 3 with one 4 KiB page; ret 0 is success', () => {
    const seen: unknown[] = [];
    const { response } = request(ghcbMsrPscReq(0x12345, 1), {}, (vm) => {
      const { nr, args } = KvmRunHypercall.decodeLoose(vm.run().subarray(0, 2352));
      seen.push([nr, ...args.slice(0, 3)]);
    });
    expect(seen).toEqual([[12n, 0x1234_5000n, 1n, 0x10n]]);
    expect(response).toBe(0x15n);
  });

  it.each([1n, 22n, 1n << 63n])(
    'page state change: ret %s is an error, its number is not forwarded',
    (ret) => {
      const { response } = request(ghcbMsrPscReq(1, 2), {}, (vm) =>
        KvmRunHypercall.set(vm.run(), 'ret', ret),
      );
      expect(hex(response)).toBe('0x8000000000000015');
    },
  );

  it.each([0, 3, 4, 15])('page state change operation %i: an error without an exit', (operation) => {
    const { response, exits } = request(ghcbMsrPscReq(1, operation));
    expect([hex(response), exits]).toEqual(['0x8000000000000015', []]);
  });

  it('page state change without the hypercall exit: an error without an exit', () => {
    const { response, exits } = request(ghcbMsrPscReq(1, 1), { hypercalls: false });
    expect([hex(response), exits]).toEqual(['0x8000000000000015', []]);
  });

  it('page state change ignores bits 63:56', () => {
    expect(request(ghcbMsrPscReq(1, 1) | (0xffn << 56n)).exits).toEqual([KvmExit.KVM_EXIT_HYPERCALL]);
  });

  it('termination: exit 24 with the whole MSR value, and the guest may go on', () => {
    const events: unknown[] = [];
    const { response, exits } = request(ghcbMsrTermReq(1, 1), {}, (vm) => {
      const { type, ndata, data } = KvmRunSystemEvent.decodeLoose(vm.run().subarray(0, 2352));
      events.push([type, ndata, data[0]]);
    });
    expect(exits).toEqual([KvmExit.KVM_EXIT_SYSTEM_EVENT]);
    expect(events).toEqual([[6, 1, 0x11100n]]);
    expect(response).toBe(0x11100n);
  });

  it('AP reset hold without an in-kernel APIC: exit 32, answered "not by SIPI"', () => {
    const { response, exits } = request(0xfff_f006n, { irqchip: false });
    expect([response, exits]).toEqual([0x7n, [KvmExit.KVM_EXIT_AP_RESET_HOLD]]);
  });
});
