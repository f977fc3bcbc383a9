// SPDX-License-Identifier: Apache-2.0
/** [GHCB] "SNP AP creation" and "AP reset hold": how one vCPU starts, stops and wakes another. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import type { GuestProgram } from '../../abi/guest-ops.ts';
import { KvmExit, KvmIoctl, KvmMp } from '../../abi/kvm.ts';
import { KvmRunFailEntry } from '../../abi/kvm-run.ts';
import { KvmCpuid2, KvmCpuidEntry2, KvmMsi } from '../../abi/kvm-structs.ts';
import { Vmsa } from '../../abi/vmsa.ts';
import { gpa } from '../../lib/addresses.ts';
import { concat } from '../../lib/bytes.ts';
import {
  GHCB_GPA,
  type GhcbAnswer,
  type GhcbCall,
  type Guest,
  ghcbCall,
  type LaunchedOptions,
  launched,
  msrCall,
  type Program,
  registerGhcb,
  type TestVm,
} from '../testing.ts';
import { KVM_6_12 } from '../uapi/generation.ts';

const CREATE_ON_INIT = 0n;
const CREATE = 1n;
const DESTROY = 2n;
const VMSA_GPA = gpa(0x40_1000n);
const GHCB_OF_AP = gpa(GHCB_GPA + 0x1000n);

const OK = [0n, 0n];
const INVALID_INPUT = [2n, 5n];
const MISSING_INPUT = [2n, 4n];
const BLOCKED = { blocked: true, wakeAtMs: null };

const creation = (request: bigint, apicId = 1n, over: Partial<GhcbCall> = {}): GhcbCall => ({
  code: 0x80000013,
  info1: (apicId << 32n) | request,
  info2: VMSA_GPA,
  fields: { rax: 1n },
  ...over,
});

/** Makes a VMSA page as Linux does. */
function* makeVmsa(at = VMSA_GPA, sevFeatures = 1n, mark = true): Guest<void> {
  yield { op: 'pvalidate', gpa: at, size: 0, validate: true };
  yield {
    op: 'write',
    gpa: at,
    data: Vmsa.encode({ sev_features: sevFeatures, rip: 0x9000n }),
    encrypted: true,
  };
  if (mark) {
    yield { op: 'rmpadjust', gpa: at, size: 0, vmpl: 1, permissions: 0, vmsa: true };
  }
}

function* forever(): GuestProgram {
  for (;;) {
    yield { op: 'hlt' };
  }
}

/** vCPU 0 runs `bsp`; vCPU 1 runs `ap` on a VMSA with RIP 0x9000 and sleeps on any other. */
function pair(bsp: () => GuestProgram, ap: Program = () => forever(), options: LaunchedOptions = {}) {
  const program: Program = (id, vmsa) => {
    if (id === 0) {
      return bsp();
    }
    return Vmsa.get(vmsa, 'rip') === 0x9000n ? ap(id, vmsa) : forever();
  };
  return launched(program, { vcpus: 2, ...options });
}

/** vCPU 0 makes the calls after a VMSA is ready; answers are collected. */
function withCalls(calls: readonly GhcbCall[], ap?: Program, options?: LaunchedOptions) {
  const answers: GhcbAnswer[] = [];
  const { vm, host } = pair(
    function* bsp(): GuestProgram {
      yield* registerGhcb();
      yield* makeVmsa();
      for (const call of calls) {
        answers.push(yield* ghcbCall(call));
      }
      yield* forever();
    },
    ap,
    options,
  );
  return { vm, host, answers };
}

const apIsUp: Program = () =>
  (function* ap(): GuestProgram {
    yield* msrCall(0x100n);
    yield* forever();
  })();

/** Runs the AP up to what it does first. */
function startsRunning(vm: TestVm): void {
  expect(vm.enter(1)).toEqual({ ret: 0 });
  expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_SYSTEM_EVENT);
}

describe('the checks of AP creation', () => {
  it.each([
    ['a target that does not exist', creation(CREATE, 2n), INVALID_INPUT],
    ['other features than the VM has', creation(CREATE, 1n, { fields: { rax: 0x21n } }), INVALID_INPUT],
    ['an unaligned VMSA', creation(CREATE, 1n, { info2: VMSA_GPA + 8n }), INVALID_INPUT],
    [
      'a VMSA beyond the 36 bits of a CPU that does not say',
      creation(CREATE, 1n, { info2: (1n << 36n) + 0x1000n }),
      INVALID_INPUT,
    ],
    ['a VMSA at their end', creation(CREATE, 1n, { info2: (1n << 36n) - 0x1000n }), OK],
    ['a 2 MiB aligned VMSA', creation(CREATE, 1n, { info2: 0x40_0000n }), INVALID_INPUT],
    ['kind 3', creation(3n), INVALID_INPUT],
    ['a VMPL in the request', creation(CREATE | (1n << 16n)), INVALID_INPUT],
    ['kind 0 with a VMPL', creation(CREATE_ON_INIT | (2n << 16n)), INVALID_INPUT],
    ['no RAX for create', creation(CREATE, 1n, { fields: {} }), MISSING_INPUT],
    ['no RAX for create-on-INIT', creation(CREATE_ON_INIT, 1n, { fields: {} }), MISSING_INPUT],
    ['no RAX for destroy', creation(DESTROY, 1n, { fields: {} }), OK],
    ['destroy with any address', creation(DESTROY, 1n, { info2: 1n }), OK],
    ['create', creation(CREATE), OK],
    ['create-on-INIT', creation(CREATE_ON_INIT), OK],
    ['a page that is no VMSA', creation(CREATE, 1n, { info2: 0x1000n }), OK],
  ])('%s', (_, call, expected) => {
    const { vm, answers } = withCalls([call]);
    expect(vm.enter(0)).toEqual(BLOCKED);
    expect(answers[0]!.infos).toEqual(expected);
  });

  it('takes the physical width from CPUID', () => {
    const calls = [0x1000n, (1n << 40n) + 0x1000n].map((info2) => creation(CREATE, 1n, { info2 }));
    const { vm, answers } = withCalls(calls);
    const leaf = (fn: number, eax: number) => KvmCpuidEntry2.encode({ function: fn, eax });
    const table = concat(
      KvmCpuid2.encode({ nent: 2 }),
      leaf(0x8000_0000, 0x8000_0008),
      leaf(0x8000_0008, 40),
    );
    expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_SET_CPUID2, table)).toBe(0);
    vm.enter(0);
    expect(answers.map(({ infos }) => infos)).toEqual([OK, INVALID_INPUT]);
  });

  it('Linux 6.12 compares the injection modes only', () => {
    const options = { host: { generation: KVM_6_12 } };
    const calls = [
      creation(CREATE, 1n, { fields: { rax: 0x21n } }),
      creation(CREATE, 1n, { fields: { rax: 0x9n } }),
      creation(CREATE, 1n, { fields: { rax: 0x11n } }),
    ];
    const { vm, answers } = withCalls(calls, undefined, options);
    vm.enter(0);
    expect(answers.map(({ infos }) => infos)).toEqual([OK, INVALID_INPUT, INVALID_INPUT]);
  });

  it('a refused request leaves the target alone', () => {
    const { vm } = withCalls([creation(3n), creation(CREATE, 1n, { info2: 1n })]);
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
  });
});

describe('AP creation', () => {
  it('wakes an AP that waits for INIT: EAGAIN, RUNNABLE, then it runs on the new VMSA', () => {
    const { vm } = withCalls([creation(CREATE)], apIsUp);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    expect(vm.mpState(1)).toBe(KvmMp.KVM_MP_STATE_RUNNABLE);
    startsRunning(vm);
  });

  it('wakes an AP that is halted, without leaving the kernel', () => {
    const { vm } = withCalls([creation(CREATE)], apIsUp);
    vm.setMpState(1, KvmMp.KVM_MP_STATE_RUNNABLE);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.enter(0);
    startsRunning(vm);
  });

  it('the new engine sees the page the guest made', () => {
    const rips: bigint[] = [];
    const { vm } = withCalls([creation(CREATE)], (_, vmsa) => {
      rips.push(Vmsa.get(vmsa, 'rip'));
      return forever();
    });
    vm.enter(0);
    vm.enter(1);
    vm.enter(1);
    expect(rips).toEqual([0x9000n]);
  });

  it('destroy leaves the AP halted; another creation brings it back', () => {
    const { vm } = pair(function* bsp(): GuestProgram {
      yield* registerGhcb();
      yield* makeVmsa();
      for (const request of [CREATE, DESTROY, CREATE]) {
        yield* ghcbCall(creation(request));
        yield { op: 'hlt', wakeAfterMs: 0 };
      }
    }, apIsUp);
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    startsRunning(vm);
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.enter(0);
    startsRunning(vm);
  });

  it('an AP that was destroyed and is woken all the same has nothing to enter', () => {
    const { vm } = withCalls([creation(DESTROY)]);
    vm.setMpState(1, KvmMp.KVM_MP_STATE_RUNNABLE);
    vm.enter(1);
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.user.ioctl(vm.fd, KvmIoctl.KVM_SIGNAL_MSI, KvmMsi.encode({ address_lo: 1 << 12 }));
    expect(vm.enter(1)).toEqual({ ret: 0 });
    expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
  });

  it('a vCPU may name itself: it ends where it is and starts anew', () => {
    const starts: string[] = [];
    const { vm } = launched((_, vmsa) =>
      (function* program(): GuestProgram {
        const again = Vmsa.get(vmsa, 'rip') === 0x9000n;
        starts.push(again ? 'again' : 'first');
        if (again) {
          return;
        }
        yield* registerGhcb();
        yield* makeVmsa();
        yield* ghcbCall(creation(CREATE, 0n));
        starts.push('unreachable');
      })(),
    );
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    expect(starts).toEqual(['first', 'again']);
  });

  it.each([
    ['not marked as VMSA', makeVmsa(VMSA_GPA, 1n, false)],
    ['without SNPActive in its SEV_FEATURES', makeVmsa(VMSA_GPA, 0n)],
  ])('a page %s: failed entry', (_, prepare) => {
    const { vm } = pair(function* bsp(): GuestProgram {
      yield* registerGhcb();
      yield* prepare;
      yield* ghcbCall(creation(CREATE));
      yield* forever();
    });
    vm.enter(0);
    vm.enter(1);
    expect(vm.enter(1)).toEqual({ ret: 0 });
    expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
    const { hardware_entry_failure_reason, cpu } = KvmRunFailEntry.decodeLoose(vm.run(1).subarray(0, 2352));
    expect([hardware_entry_failure_reason, cpu]).toEqual([0xffffffffn, 0]);
  });

  it('a VMSA the host takes away: failed entry', () => {
    const { vm } = withCalls([creation(CREATE)], apIsUp);
    vm.enter(0);
    vm.enter(1);
    startsRunning(vm);
    vm.punchHole(Number(VMSA_GPA), 0x1000);
    expect(vm.enter(1)).toEqual({ ret: 0 });
    expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
  });

  it('a VMSA outside every slot: the AP stays halted; on Linux 6.12 its entry fails', () => {
    const call = creation(CREATE, 1n, { info2: 0x1_0000_1000n });
    const now = withCalls([call]).vm;
    now.enter(0);
    now.enter(1);
    expect(now.enter(1)).toEqual(BLOCKED);
    const before = withCalls([call], undefined, { host: { generation: KVM_6_12 } }).vm;
    before.enter(0);
    before.enter(1);
    expect(before.enter(1)).toEqual({ ret: 0 });
    expect(before.exitReason(1)).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
  });
});

/** A guest that sends interrupt commands through its x2APIC. */
function* x2apic(...commands: readonly bigint[]): Guest<void> {
  yield* ghcbCall({ code: 0x7c, info1: 1n, fields: { rcx: 0x1bn, rax: 0xfee0_0d00n, rdx: 0n } });
  for (const command of commands) {
    yield* ghcbCall({
      code: 0x7c,
      info1: 1n,
      fields: { rcx: 0x830n, rax: command & 0xffff_ffffn, rdx: command >> 32n },
    });
  }
}

const INIT_ALL_OTHERS = 0x000c_4500n;
const SIPI_ALL_OTHERS = 0x000c_4609n;
const INIT_DEASSERT = 0x000c_8500n;

describe('INIT and SIPI', () => {
  const firmwareStarts = (...commands: readonly bigint[]) =>
    function* bsp(): GuestProgram {
      yield* registerGhcb();
      yield* x2apic(...commands);
      yield* forever();
    };

  it('start an AP on the VMSA it was launched with', () => {
    const { vm } = launched(
      (id) =>
        id === 0
          ? firmwareStarts(INIT_ALL_OTHERS, INIT_DEASSERT, SIPI_ALL_OTHERS)()
          : apIsUp(id, new Uint8Array(0)),
      { vcpus: 2 },
    );
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    startsRunning(vm);
  });

  it('INIT alone leaves it waiting for the SIPI', () => {
    const { vm } = pair(firmwareStarts(INIT_ALL_OTHERS));
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    expect(vm.mpState(1)).toBe(KvmMp.KVM_MP_STATE_INIT_RECEIVED);
    expect(vm.enter(1)).toEqual(BLOCKED);
  });

  it('a SIPI without INIT starts nothing', () => {
    const { vm } = pair(firmwareStarts(SIPI_ALL_OTHERS));
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    expect(vm.enter(1)).toEqual(BLOCKED);
  });

  it('create-on-INIT is applied by INIT, not before', () => {
    const { vm } = pair(function* bsp(): GuestProgram {
      yield* registerGhcb();
      yield* makeVmsa();
      yield* ghcbCall(creation(CREATE_ON_INIT));
      yield { op: 'hlt' };
      yield* x2apic(INIT_ALL_OTHERS, SIPI_ALL_OTHERS);
      yield* forever();
    }, apIsUp);
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
    vm.user.process.signal(vm.vcpus[0]!);
    vm.enter(0);
    vm.setMpState(0, KvmMp.KVM_MP_STATE_RUNNABLE);
    expect(vm.enter(0)).toEqual(BLOCKED);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    startsRunning(vm);
  });

  it.each([
    ['by APIC id', 1n << 32n, [1]],
    ['broadcast', 0xffff_ffffn << 32n, [0, 1, 2]],
    ['to a logical cluster', (0x6n << 32n) | 0x800n, [1, 2]],
    ['all including self', 0x8_0000n, [0, 1, 2]],
    ['all but self', 0xc_0000n, [1, 2]],
    ['self', 0x4_0000n, [0]],
  ])('an interrupt %s wakes those it is for', (_, command, expected) => {
    const woken: number[] = [];
    const { vm } = launched(
      (id) =>
        (function* program(): GuestProgram {
          if (id === 0) {
            yield* registerGhcb();
            yield* x2apic(0x4000n | command);
          }
          yield { op: 'hlt' };
          woken.push(id);
          yield* forever();
        })(),
      { vcpus: 3 },
    );
    for (const id of [1, 2]) {
      vm.setMpState(id, KvmMp.KVM_MP_STATE_RUNNABLE);
      vm.enter(id);
    }
    for (const id of [0, 1, 2]) {
      vm.enter(id);
    }
    expect(woken).toEqual(expected);
  });
});

describe('AP reset hold', () => {
  /** An AP that holds twice and tells what it got; the first SIPI only starts it. */
  const holds =
    (viaMsr: boolean, results: bigint[]): Program =>
    () =>
      (function* ap(): GuestProgram {
        yield* registerGhcb(GHCB_OF_AP);
        for (let i = 0; i < 2; i++) {
          results.push(
            viaMsr ? yield* msrCall(6n) : (yield* ghcbCall({ code: 0x80000004 }, GHCB_OF_AP)).info2,
          );
        }
        yield* forever();
      })();

  it.each([
    ['the MSR', true, [0x7n, 0x1007n]],
    ['the page', false, [0n, 1n]],
  ])('through %s: another event ends it with 0, a SIPI with 1', (_, viaMsr, expected) => {
    const results: bigint[] = [];
    const hold = holds(viaMsr, results);
    const { vm } = launched(
      (id, vmsa) =>
        id === 1
          ? hold(id, vmsa)
          : (function* bsp(): GuestProgram {
              yield* registerGhcb();
              yield* x2apic(INIT_ALL_OTHERS, SIPI_ALL_OTHERS);
              yield { op: 'hlt', wakeAfterMs: 0 };
              yield* x2apic(0xc_4000n);
              yield { op: 'hlt', wakeAfterMs: 0 };
              yield* x2apic(INIT_ALL_OTHERS, SIPI_ALL_OTHERS);
              yield* forever();
            })(),
      { vcpus: 2 },
    );
    vm.enter(0);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EAGAIN });
    expect(vm.enter(1)).toEqual(BLOCKED);
    expect(results).toEqual([]);
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
    expect(results).toEqual(expected.slice(0, 1));
    vm.enter(0);
    expect(vm.enter(1)).toEqual(BLOCKED);
    expect(results).toEqual(expected);
  });
});
