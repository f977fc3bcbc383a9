// SPDX-License-Identifier: Apache-2.0
/**
 * A guest that does anything, and a VMM that does anything: always an architectural outcome, never an
 * exception, a hang or a leak. SOFTSNP_HOSTILE_ROUNDS sets how many events; SOFTSNP_HOSTILE_SEED where they
 * start. A failure names the seed of its round.
 */
import { describe, expect, it } from 'vitest';
import { Errno, errnoName } from '../abi/errno.ts';
import { GhcbExit } from '../abi/ghcb.ts';
import type { GuestAnswer, GuestOp, GuestProgram } from '../abi/guest-ops.ts';
import { KvmCap, KvmExit, KvmIoctl } from '../abi/kvm.ts';
import { KvmRunHypercall, KvmRunMemoryFault } from '../abi/kvm-run.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { type Gpa, PAGE_SIZE } from '../lib/addresses.ts';
import {
  DATA_GPA,
  GHCB_GPA,
  ghcbPage,
  NOTHING,
  PRIVATE_GPA,
  RAM_SIZE,
  SHARED_AT,
  SHARED_SIZE,
  TestHost,
  type TestUser,
  TestVm,
} from './testing.ts';

const ROUNDS = Number(process.env['SOFTSNP_HOSTILE_ROUNDS'] ?? 2000);
const FIRST_SEED = Number(process.env['SOFTSNP_HOSTILE_SEED'] ?? 1);
/** Events a VM lives through. */
const PER_VM = 1000;
/** Calls of KVM_RUN without anything new before a guest counts as ended. */
const IDLE_CALLS = 300;

/** Small and fast; the same seed gives the same hostility. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 0x9e3779b1) >>> 0;
  }

  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  below(n: number): number {
    return this.u32() % n;
  }

  one<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

const INTERESTING: readonly bigint[] = [
  0n,
  1n,
  5n,
  8n,
  0xfffn,
  0x1000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  GHCB_GPA,
  GHCB_GPA + 0x800n,
  GHCB_GPA + 0xfe8n,
  DATA_GPA,
  DATA_GPA + 0x1000n,
  PRIVATE_GPA,
  PRIVATE_GPA + 0x1000n,
  BigInt(RAM_SIZE),
  BigInt(RAM_SIZE - PAGE_SIZE),
  1n << 40n,
  1n << 51n,
  0xffff_ffff_ffff_f000n,
  0xffff_ffff_ffff_ffffn,
];

const value = (dice: Dice): bigint =>
  dice.below(3) === 0 ? dice.u64() : BigInt.asUintN(64, dice.one(INTERESTING) + BigInt(dice.below(9)) - 4n);

/** Every event, those with the longest way through KVM more often. */
const EXITS = [
  ...Object.values(GhcbExit),
  ...new Array<number>(12).fill(GhcbExit.SVM_VMGEXIT_PSC),
  ...new Array<number>(8).fill(GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST),
  ...new Array<number>(4).fill(GhcbExit.SVM_VMGEXIT_GUEST_REQUEST),
  ...new Array<number>(4).fill(GhcbExit.SVM_VMGEXIT_AP_CREATION),
].filter((code) => code !== GhcbExit.SVM_VMGEXIT_UNSUPPORTED_EVENT);
const VMSA_GPA = (PRIVATE_GPA + 0x1000n) as Gpa;
const PORTS_AND_SIZES = [0x3f8_0010n, 0x80_0021n, 0x60_0015n, 0x60_0044n, 0x60_007fn];

/** A GHCB page: a sensible one, one with damage, or noise. */
function hostilePage(dice: Dice, ghcb: Gpa): Uint8Array {
  if (dice.below(20) === 0) {
    return dice.bytes(PAGE_SIZE);
  }
  const code = dice.one(EXITS);
  if (code === GhcbExit.SVM_VMGEXIT_AP_CREATION && dice.below(2) === 0) {
    const info1 = (BigInt(dice.below(3)) << 32n) | BigInt(dice.below(4));
    return ghcbPage({ code, info1, info2: VMSA_GPA, fields: { rax: 1n } });
  }
  const info1 = code === GhcbExit.SVM_EXIT_IOIO ? dice.one(PORTS_AND_SIZES) : value(dice);
  const page = ghcbPage({
    code,
    info1: dice.below(3) === 0 || code === GhcbExit.SVM_EXIT_IOIO ? info1 : DATA_GPA,
    info2: dice.below(3) === 0 ? value(dice) : DATA_GPA + 0x1000n,
    fields: {
      rax: dice.below(2) === 0 ? DATA_GPA + 0x2000n : value(dice),
      rbx: value(dice),
      rcx: value(dice),
      rdx: value(dice),
      sw_scratch: dice.below(4) === 0 ? value(dice) : ghcb + 0x800n,
    },
    cpl: dice.below(2) * 3,
    buffer: hostileBuffer(dice),
  });
  for (let damage = dice.below(4); damage > 0; damage--) {
    page[dice.below(PAGE_SIZE)] = dice.below(256);
  }
  if (dice.below(10) === 0) {
    page[0x3f0 + dice.below(16)] = dice.below(256);
  }
  return page;
}

/** A page state change buffer whose header and entries are nearly right. */
function hostileBuffer(dice: Dice): Uint8Array {
  const buffer = new Uint8Array(0x7f0);
  const view = new DataView(buffer.buffer);
  view.setUint16(0, dice.one([0, 0, 0, 1, 5, 252, 253, 65535]), true);
  view.setUint16(2, dice.one([0, 1, 3, 60, 252, 253, 254, 65535]), true);
  for (let i = 0; i < 253; i++) {
    const gfn = BigInt(
      dice.one([0x400, 0x401, 0x600, SHARED_AT / PAGE_SIZE, 0x800, 2 ** 39]) + dice.below(2) * i,
    );
    const operation = BigInt(dice.one([1, 2, 1, 2, 1, 2, 0, 3, 4, 15]));
    const size = BigInt(dice.below(8) === 0 ? 1 : 0);
    const done = BigInt(dice.below(20) === 0 ? dice.below(4096) : 0);
    view.setBigUint64(8 + 8 * i, done | (gfn << 12n) | (operation << 52n) | (size << 56n), true);
  }
  return buffer;
}

/** A guest message that is nearly right: the firmware answers anything. */
function hostileMessage(dice: Dice): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  page.set([1, 1, 0x60, 0, dice.one([5, 5, 5, 3, 17, dice.below(256)]), 1, 0x60, 0], 0x30);
  page[0x20] = 1;
  for (let damage = dice.below(6); damage > 0; damage--) {
    page[dice.below(0x100)] = dice.below(256);
  }
  return page;
}

function hostileOp(dice: Dice): GuestOp {
  const at = value(dice) as Gpa;
  const near = (dice.below(2) === 0 ? PRIVATE_GPA + BigInt(dice.below(2048)) * 0x1000n : at) as Gpa;
  switch (dice.below(9)) {
    case 0:
      return {
        op: 'read',
        gpa: at,
        length: dice.below(3) === 0 ? 2 ** dice.below(40) : dice.below(5000),
        encrypted: dice.below(2) === 0,
      };
    case 1:
      return { op: 'write', gpa: near, data: dice.bytes(dice.below(200)), encrypted: dice.below(2) === 0 };
    case 2:
      return { op: 'rdmsr', msr: dice.one([0xc0010130, 0xc0010131, 0x1b, 0x277, dice.u32()]) };
    case 3:
      return { op: 'wrmsr', msr: dice.one([0xc0010131, 0xc0000102, 0x830, dice.u32()]), value: dice.u64() };
    case 4:
    case 5:
      return { op: 'pvalidate', gpa: near, size: dice.below(2) as 0 | 1, validate: dice.below(2) === 0 };
    case 6:
      return {
        op: 'rmpadjust',
        gpa: near,
        size: dice.below(2) as 0 | 1,
        vmpl: dice.below(4) as 0,
        permissions: dice.below(32),
        vmsa: dice.below(8) === 0,
      };
    case 7:
      return { op: 'vmgexit' };
    default:
      return dice.below(50) === 0 ? { op: 'hlt' } : { op: 'hlt', wakeAfterMs: dice.below(3) };
  }
}

/** Does something hostile until the count of events is reached. */
function* hostileGuest(dice: Dice, events: { left: number }, ghcb: Gpa): GuestProgram {
  const trap = function* (op: GuestOp): Generator<GuestOp, GuestAnswer, GuestAnswer> {
    try {
      return yield op;
    } catch {
      return undefined;
    }
  };
  while (events.left > 0) {
    events.left -= 1;
    switch (dice.below(6)) {
      case 0:
        yield* trap({
          op: 'wrmsr',
          msr: 0xc0010130,
          value: (value(dice) & ~0xfffn) | BigInt(dice.below(0x110)),
        });
        yield* trap({ op: 'vmgexit' });
        break;
      case 1:
        yield* trap(hostileOp(dice));
        break;
      case 2:
        yield* trap({ op: 'write', gpa: DATA_GPA, data: hostileMessage(dice), encrypted: false });
        break;
      case 3:
        // A VMSA another vCPU can run on.
        yield* trap({ op: 'pvalidate', gpa: VMSA_GPA, size: 0, validate: true });
        yield* trap({ op: 'write', gpa: VMSA_GPA, data: Vmsa.encode({ sev_features: 1n }), encrypted: true });
        yield* trap({ op: 'rmpadjust', gpa: VMSA_GPA, size: 0, vmpl: 1, permissions: 0, vmsa: true });
        break;
      default:
        if (dice.below(50) !== 0) {
          yield* trap({ op: 'wrmsr', msr: 0xc0010130, value: ghcb | 0x12n });
          yield* trap({ op: 'vmgexit' });
        }
        yield* trap({ op: 'write', gpa: ghcb, data: hostilePage(dice, ghcb), encrypted: false });
        yield* trap({ op: 'wrmsr', msr: 0xc0010130, value: ghcb });
        yield* trap({ op: 'vmgexit' });
    }
  }
}

const EXIT_REASONS: readonly number[] = [
  KvmExit.KVM_EXIT_IO,
  KvmExit.KVM_EXIT_HYPERCALL,
  KvmExit.KVM_EXIT_MMIO,
  KvmExit.KVM_EXIT_SHUTDOWN,
  KvmExit.KVM_EXIT_FAIL_ENTRY,
  KvmExit.KVM_EXIT_INTERNAL_ERROR,
  KvmExit.KVM_EXIT_SYSTEM_EVENT,
  KvmExit.KVM_EXIT_X86_RDMSR,
  KvmExit.KVM_EXIT_X86_WRMSR,
  KvmExit.KVM_EXIT_SNP_REQ_CERTS,
];
/** What KVM_RUN may answer besides 0. */
const ERRNOS: readonly number[] = [Errno.EINTR, Errno.EAGAIN, Errno.EFAULT, Errno.EINVAL, Errno.EIO];

function launchHostile(seed: number, events: { left: number }): { host: TestHost; vm: TestVm } {
  const dice = new Dice(seed);
  const host = new TestHost((id) => hostileGuest(dice, events, (GHCB_GPA + BigInt(id) * 0x1000n) as Gpa));
  const vm = new TestVm(host.user());
  vm.enableCap(KvmCap.KVM_CAP_EXIT_HYPERCALL, dice.below(8) === 0 ? 0n : 0x1000n);
  vm.enableCap(KvmCap.KVM_CAP_X86_USER_SPACE_MSR, BigInt(dice.below(8)));
  vm.irqchip();
  vm.init2({ ghcb_version: dice.below(3) });
  if (dice.below(4) !== 0) {
    vm.enableReqCerts();
  }
  vm.addMemory();
  vm.launchStart();
  vm.createVcpu();
  vm.createVcpu();
  expect(vm.launchFinish()).toBe(0);
  return { host, vm };
}

/** Userspace between two calls of KVM_RUN: it answers, or does something it should not. */
function hostileVmm(dice: Dice, host: TestHost, vm: TestVm): void {
  const run = vm.run(dice.below(2));
  run[1] = 0;
  run.fill(0, 288, 304);
  switch (dice.below(24)) {
    case 0:
      run.set(dice.bytes(96), 32 + dice.below(160));
      break;
    case 1:
      run[1] = 1;
      break;
    case 2:
      run[288 + dice.below(16)] = dice.below(256);
      break;
    case 3:
      vm.setAttributes(BigInt(dice.below(RAM_SIZE / PAGE_SIZE)) << 12n, PAGE_SIZE, dice.below(2) === 0);
      break;
    case 4:
      vm.punchHole(dice.below(RAM_SIZE / PAGE_SIZE) * PAGE_SIZE, PAGE_SIZE * (1 + dice.below(600)));
      break;
    case 5:
      vm.user.process.signal(dice.one(vm.vcpus));
      break;
    case 6:
      vm.setMpState(dice.below(2), dice.one([0, 0, 0, 1, 3, 9]));
      break;
    case 7:
      // The only numbers a certificate request takes, and one it does not.
      run.set([dice.one([0, Errno.EAGAIN, Errno.ENOSPC, Errno.EIO, Errno.EPERM]), 0, 0, 0, 0, 0, 0, 0], 48);
      break;
    case 8:
    case 9:
    case 10:
      // Keeps the guest going: its GHCBs and its data are shared again.
      vm.setAttributes(SHARED_AT, SHARED_SIZE, false);
      break;
    default:
      KvmRunHypercall.set(run, 'ret', 0n);
      host.clock.advance(dice.below(3));
  }
}

/** One KVM_RUN: an exit or an errno KVM documents, or a sleep. */
function expectOutcome(vm: TestVm, index: number, where: string): void {
  const { ret } = vm.enter(index);
  if (ret === 0) {
    expect(EXIT_REASONS, where).toContain(vm.exitReason(index));
  } else if (ret !== undefined) {
    expect(ERRNOS, `${where}: ${errnoName(ret)}`).toContain(-ret);
  }
  if (ret === -Errno.EFAULT && vm.exitReason(index) === KvmExit.KVM_EXIT_MEMORY_FAULT) {
    const { gpa, flags } = KvmRunMemoryFault.decodeLoose(vm.run(index).subarray(0, KvmRunMemoryFault.size));
    vm.setAttributes(gpa, PAGE_SIZE, flags !== 0n);
  }
}

describe('a hostile guest and a hostile VMM', () => {
  it(`get an architectural outcome for each of ${ROUNDS} events, and memory stays flat`, () => {
    let total = 0;
    let warmBytes = Number.POSITIVE_INFINITY;
    for (let seed = FIRST_SEED; total < ROUNDS; seed++) {
      if (total >= ROUNDS / 4) {
        warmBytes = Math.min(warmBytes, process.memoryUsage().rss);
      }
      const given = Math.min(PER_VM, ROUNDS - total);
      const events = { left: given };
      const { host, vm } = launchHostile(seed, events);
      const dice = new Dice(seed ^ 0x5a5a5a5a);
      // A guest that sleeps, spins or has no VMSA left is at its end, which is an outcome too.
      let idle = 0;
      while (events.left > 0 && idle < IDLE_CALLS) {
        hostileVmm(dice, host, vm);
        const before = events.left;
        const index = dice.below(2);
        expectOutcome(vm, index, `seed ${seed}`);
        idle = events.left === before ? idle + 1 : 0;
      }
      expect(host.hw.memory.touchedPages, `seed ${seed}`).toBeLessThan(RAM_SIZE / PAGE_SIZE + 2000);
      const fresh = host.user();
      vm.user.process.exit();
      expect(new TestVm(fresh).init2(), `seed ${seed}: the host is damaged`).toBe(0);
      total += given - events.left;
    }
    // The process too, not only the modelled memory; the slack is garbage V8 has not looked at yet, whatever ROUNDS is.
    expect(process.memoryUsage().rss - warmBytes).toBeLessThan(128 * 2 ** 20);
  }, 600_000);
});

/** Any ioctl on any descriptor, with arguments that are nearly right. */
function hostileIoctl(dice: Dice, user: TestUser, fds: number[]): void {
  const fd = dice.below(20) === 0 ? dice.below(100) : dice.one(fds);
  const nr = dice.below(20) === 0 ? dice.u32() : dice.one([...Object.values(KvmIoctl), 0xc0105300]);
  const struct = new Uint8Array(320);
  const view = new DataView(struct.buffer);
  for (let at = 0; at < struct.length; at += 8) {
    const pick = dice.below(8);
    const word =
      pick === 0
        ? dice.u64()
        : pick === 1
          ? user.scratch + 0x800n + BigInt(dice.below(512) * 8)
          : pick === 2
            ? BigInt(dice.below(16)) << 12n
            : BigInt(dice.below(32));
    view.setBigUint64(at, word, true);
  }
  if (nr === KvmIoctl.KVM_MEMORY_ENCRYPT_OP) {
    view.setUint32(0, dice.one([22, 100, 101, 102, 103, dice.below(110)]), true);
    view.setBigUint64(8, user.scratch + 0x800n, true);
    view.setUint32(20, dice.below(4) === 0 ? dice.below(20) : user.sev, true);
    user.put(dice.below(2) === 0 ? struct.slice(0, 128) : new Uint8Array(128), 0x800);
  }
  user.put(struct);
  const arg = dice.below(10) === 0 ? value(dice) : dice.below(3) === 0 ? BigInt(dice.below(8)) : user.scratch;
  const ret = user.process.ioctl(fd, nr, arg);
  expect(Number.isInteger(ret)).toBe(true);
  const makesDescriptor: readonly number[] = [
    KvmIoctl.KVM_CREATE_VM,
    KvmIoctl.KVM_CREATE_VCPU,
    KvmIoctl.KVM_CREATE_GUEST_MEMFD,
  ];
  if (ret > 2 && makesDescriptor.includes(nr)) {
    fds.push(ret);
  }
  if (fds.length > 40) {
    user.process.close(fds.splice(2 + dice.below(fds.length - 2), 1)[0]!);
  }
}

describe('a hostile process', () => {
  it(`gets a result for each of ${ROUNDS} ioctls, and the host works afterwards`, () => {
    for (let round = 0; round * PER_VM < ROUNDS; round++) {
      const dice = new Dice(FIRST_SEED + round);
      const host = new TestHost(NOTHING);
      const user = host.user();
      const fds = [user.kvm, user.sev];
      for (let i = 0; i < Math.min(PER_VM, ROUNDS); i++) {
        hostileIoctl(dice, user, fds);
      }
      user.process.exit();
      expect(new TestVm(host.user()).init2(), `seed ${FIRST_SEED + round}`).toBe(0);
    }
  }, 600_000);
});
