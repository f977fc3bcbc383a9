// SPDX-License-Identifier: Apache-2.0
/** The conformance list of [KVM] "Minimal conformance checks", row by row. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import type { GuestProgram } from '../abi/guest-ops.ts';
import { KvmExit, KvmIoctl } from '../abi/kvm.ts';
import { KvmRun, KvmRunMemoryFault, KvmRunSnpReqCerts } from '../abi/kvm-run.ts';
import { KvmSevCmdId } from '../abi/kvm-sev.ts';
import { KvmDeviceAttr } from '../abi/kvm-structs.ts';
import { gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { readU32, writeU32 } from '../lib/bytes.ts';
import {
  DATA_GPA,
  ghcbCall,
  launched,
  NOTHING,
  POLICY,
  PRIVATE_GPA,
  type Program,
  registerGhcb,
  SHARED_AT,
  TestHost,
  TestVm,
} from './testing.ts';
import { KVM_6_12 } from './uapi/generation.ts';

const EINVAL = -Errno.EINVAL;

/** A VM after INIT2 with memory. */
function initialised(options = {}): TestVm {
  const vm = new TestVm(new TestHost(NOTHING, options).user());
  expect(vm.init2()).toBe(0);
  vm.addMemory();
  return vm;
}

/** The same after LAUNCH_START. */
function launching(options = {}): TestVm {
  const vm = initialised(options);
  expect(vm.launchStart()).toBe(0);
  return vm;
}

const reads =
  (at: bigint, encrypted: boolean): Program =>
  () =>
    (function* read(): GuestProgram {
      yield { op: 'read', gpa: gpa(at), length: 8, encrypted };
    })();

describe('conformance', () => {
  it('CREATE_VM(9): EINVAL', () => {
    expect(new TestHost().user().createVm(9)).toBe(EINVAL);
  });

  it('INIT2 after CREATE_VCPU: EINVAL', () => {
    const vm = new TestVm(new TestHost().user());
    expect(vm.createVcpu()).toBeGreaterThan(0);
    expect(vm.init2()).toBe(EINVAL);
  });

  it.each([
    ['flags=1', { flags: 1 }],
    ['vmsa_features=1', { vmsa_features: 1n }],
    ['ghcb_version=3', { ghcb_version: 3 }],
  ])('INIT2 %s: EINVAL, and a correct INIT2 still works', (_, fields) => {
    const vm = new TestVm(new TestHost().user());
    expect(vm.init2(fields)).toBe(EINVAL);
    expect(vm.init2()).toBe(0);
  });

  it('INIT2 twice on SNP: EPERM', () => {
    expect(initialised().init2()).toBe(-Errno.EPERM);
  });

  it.each([0x10000n, 0x20000n, 0x130000n, 0x70000n])('LAUNCH_START policy 0x%s on 6.12: EINVAL', (policy) => {
    expect(initialised({ generation: KVM_6_12 }).launchStart(policy)).toBe(EINVAL);
  });

  it.each([
    [0x10000n, EINVAL],
    [0x20000n, -Errno.EIO],
    [0x130000n, 0],
    [0x70000n, EINVAL],
    [0x30000n | (1n << 26n), EINVAL],
  ])('LAUNCH_START policy 0x%s on the kernel with policy attributes: %i', (policy, expected) => {
    // Without SMT the policy passes KVM and fails in firmware, because this host has SMT on.
    expect(initialised().launchStart(policy)).toBe(expected);
  });

  it('LAUNCH_START policy 0x30000 twice: ok, EINVAL', () => {
    const vm = initialised();
    expect([vm.launchStart(POLICY), vm.launchStart(POLICY)]).toEqual([0, EINVAL]);
  });

  it('LAUNCH_UPDATE before START: EINVAL', () => {
    expect(initialised().launchUpdate({ len: 0x1000n })).toBe(EINVAL);
  });

  it.each([
    ['type 2', { type: 2, len: 0x1000n }],
    ['type 0', { type: 0, len: 0x1000n }],
    ['type 7', { type: 7, len: 0x1000n }],
    ['len 4095', { len: 4095n }],
    ['flags 1', { flags: 1, len: 0x1000n }],
  ])('LAUNCH_UPDATE %s: EINVAL', (_, fields) => {
    const vm = launching();
    expect(vm.launchUpdate({ uaddr: vm.ram, ...fields })).toBe(EINVAL);
    expect(vm.fwStatus).toBeNull();
  });

  it('LAUNCH_UPDATE on shared GFN: EIO, error 0', () => {
    const vm = launching();
    const gfn_start = BigInt(SHARED_AT / PAGE_SIZE);
    expect(vm.launchUpdate({ gfn_start, uaddr: vm.ram, len: 0x1000n })).toBe(-Errno.EIO);
    expect(vm.sevError).toBe(0);
  });

  it('LAUNCH_UPDATE same GFN again: EIO, error 0', () => {
    const vm = launching();
    const update = { gfn_start: 5n, uaddr: vm.ram, len: 0x1000n };
    expect(vm.launchUpdate(update)).toBe(0);
    expect(vm.launchUpdate(update)).toBe(-Errno.EIO);
    expect(vm.sevError).toBe(0);
  });

  it('LAUNCH_UPDATE 3 pages, third GFN shared: 0 with gfn+2, len 0x1000, uaddr+0x2000; repeat: EIO', () => {
    const vm = launching();
    const first = BigInt(SHARED_AT / PAGE_SIZE) - 2n;
    const update = { gfn_start: first, uaddr: vm.ram, len: 0x3000n };
    expect(vm.launchUpdate(update)).toBe(0);
    expect(vm.launchUpdateLeft).toMatchObject({
      gfn_start: first + 2n,
      len: 0x1000n,
      uaddr: vm.ram + 0x2000n,
    });
    expect(vm.launchUpdate(vm.launchUpdateLeft)).toBe(-Errno.EIO);
  });

  it('LAUNCH_UPDATE type 6 with wrong CPUID: EIO, error 0x16, source page rewritten, then accepted', () => {
    const vm = launching();
    const page = new Uint8Array(PAGE_SIZE);
    writeU32(page, 0, 1);
    // CPUID Fn0000_0001 ECX with the monitor instruction, which no SNP guest has.
    writeU32(page, 0x10, 1);
    writeU32(page, 0x10 + 24 + 8, 0xffffffff);
    vm.poke(0x3000n, page);
    const update = { gfn_start: 3n, uaddr: vm.ram + 0x3000n, len: 0x1000n, type: 6 };
    expect(vm.launchUpdate(update)).toBe(-Errno.EIO);
    expect(vm.sevError).toBe(0x16);
    const corrected = vm.peek(0x3000n, PAGE_SIZE);
    expect(readU32(corrected, 0x10 + 24 + 8)).not.toBe(0xffffffff);
    expect(vm.launchUpdate(update)).toBe(0);
  });

  it('FINISH flags=1: EINVAL', () => {
    expect(launching().launchFinish({ flags: 1 })).toBe(EINVAL);
  });

  it('FINISH twice with one vCPU: EINVAL', () => {
    const vm = launching();
    vm.createVcpu();
    expect([vm.launchFinish(), vm.launchFinish()]).toEqual([0, EINVAL]);
  });

  it('FINISH twice without a vCPU: EIO from the firmware, INVALID_GUEST_STATE', () => {
    const vm = launching();
    expect([vm.launchFinish(), vm.launchFinish()]).toEqual([0, -Errno.EIO]);
    expect(vm.fwStatus).toBe(2);
  });

  it('legacy id 16 after INIT2: EPERM', () => {
    expect(initialised().sevOp(KvmSevCmdId.KVM_SEV_GUEST_STATUS, null)).toBe(-Errno.EPERM);
  });

  it.each([
    [1, 99n],
    [2, 0n],
  ])('attr (%i,%i): ENXIO', (group, attr) => {
    const user = new TestHost().user();
    const request = KvmDeviceAttr.encode({ group, attr });
    expect(user.ioctl(user.kvm, KvmIoctl.KVM_HAS_DEVICE_ATTR, request)).toBe(-Errno.ENXIO);
    expect(user.ioctl(user.kvm, KvmIoctl.KVM_GET_DEVICE_ATTR, request)).toBe(-Errno.ENXIO);
  });

  it('ENABLE_REQ_CERTS after CREATE_VCPU: EINVAL', () => {
    const vm = initialised();
    vm.createVcpu();
    expect(vm.enableReqCerts()).toBe(EINVAL);
  });

  it('KVM_RUN with immediate_exit=1, nothing pending: EINTR, exit_reason stale', () => {
    const { vm } = launched(NOTHING);
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    KvmRun.set(vm.run(), 'exit_reason', 77);
    expect(vm.enter()).toEqual({ ret: -Errno.EINTR });
    expect(vm.exitReason()).toBe(77);
  });

  const requestsCerts: Program = () =>
    (function* program(): GuestProgram {
      yield* registerGhcb();
      const header = new Uint8Array(PAGE_SIZE);
      header[0x34] = 5;
      yield { op: 'write', gpa: DATA_GPA, data: header, encrypted: false };
      yield* ghcbCall({
        code: 0x80000012,
        info1: DATA_GPA,
        info2: DATA_GPA + 0x1000n,
        fields: { rax: DATA_GPA + 0x2000n, rbx: 1n },
      });
    })();

  it('KVM_RUN, certs pending, ret=0, immediate_exit=1: EINTR, INFO2 already set', () => {
    const { vm } = launched(requestsCerts, { certs: true });
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SNP_REQ_CERTS);
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual({ ret: -Errno.EINTR });
    // The message was no message, which the firmware has already said.
    expect(readU32(vm.peek(BigInt(SHARED_AT + 0x3a0), 8), 0)).toBe(0x16);
  });

  it('KVM_RUN, certs pending, ret=22: EINVAL', () => {
    const { vm } = launched(requestsCerts, { certs: true });
    vm.enter();
    KvmRunSnpReqCerts.set(vm.run(), 'ret', 22n);
    expect(vm.enter()).toEqual({ ret: EINVAL });
  });

  it('private access to shared GFN: EFAULT, exit 39, flags 8, size 4096', () => {
    const { vm } = launched(reads(BigInt(SHARED_AT) + 8n, true));
    expect(vm.enter()).toEqual({ ret: -Errno.EFAULT });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_MEMORY_FAULT);
    expect(KvmRunMemoryFault.decodeLoose(vm.run().subarray(0, 2352))).toEqual({
      flags: 8n,
      gpa: BigInt(SHARED_AT),
      size: 4096n,
    });
  });

  it('shared access to private GFN: EFAULT, exit 39, flags 0', () => {
    const { vm } = launched(reads(PRIVATE_GPA, false));
    expect(vm.enter()).toEqual({ ret: -Errno.EFAULT });
    expect(KvmRunMemoryFault.get(vm.run(), 'flags')).toBe(0n);
    expect(KvmRunMemoryFault.get(vm.run(), 'gpa')).toBe(PRIVATE_GPA);
  });
});
