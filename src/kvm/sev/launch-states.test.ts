// SPDX-License-Identifier: Apache-2.0
/** [KVM] "Launch state machine" and "Command ids", every cell. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { KvmExit, KvmVmType } from '../../abi/kvm.ts';
import { KvmRunFailEntry } from '../../abi/kvm-run.ts';
import { KvmSevCmdId } from '../../abi/kvm-sev.ts';
import { SevCmd } from '../../abi/snp-commands.ts';
import { launched, NOTHING, TestHost, TestVm } from '../testing.ts';
import { KVM_6_12 } from '../uapi/generation.ts';

type StateName = 'created' | 'inited' | 'launching' | 'running, no vCPU' | 'running, 1 vCPU';
type CommandName = 'INIT2' | 'START' | 'UPDATE' | 'FINISH' | 'ENABLE_REQ_CERTS' | 'CREATE_VCPU' | 'KVM_RUN';

const { EINVAL, EPERM, EIO, ENOTTY } = Errno;
const ok = 0;

const TABLE: Readonly<Record<StateName, Readonly<Record<CommandName, number>>>> = {
  created: {
    INIT2: ok,
    START: -ENOTTY,
    UPDATE: -EINVAL,
    FINISH: -ENOTTY,
    ENABLE_REQ_CERTS: -EINVAL,
    CREATE_VCPU: ok,
    KVM_RUN: -EINVAL,
  },
  inited: {
    INIT2: -EPERM,
    START: ok,
    UPDATE: -EINVAL,
    FINISH: -EINVAL,
    ENABLE_REQ_CERTS: ok,
    CREATE_VCPU: ok,
    KVM_RUN: ok,
  },
  launching: {
    INIT2: -EPERM,
    START: -EINVAL,
    UPDATE: ok,
    FINISH: ok,
    ENABLE_REQ_CERTS: ok,
    CREATE_VCPU: ok,
    KVM_RUN: ok,
  },
  'running, no vCPU': {
    INIT2: -EPERM,
    START: -EINVAL,
    UPDATE: -EIO,
    FINISH: -EIO,
    ENABLE_REQ_CERTS: ok,
    CREATE_VCPU: ok,
    KVM_RUN: ok,
  },
  'running, 1 vCPU': {
    INIT2: -EPERM,
    START: -EINVAL,
    UPDATE: -EIO,
    FINISH: -EINVAL,
    ENABLE_REQ_CERTS: -EINVAL,
    CREATE_VCPU: ok,
    KVM_RUN: ok,
  },
};

function inState(name: StateName): TestVm {
  const vm = new TestVm(new TestHost().user());
  if (name !== 'created') {
    expect(vm.init2()).toBe(0);
    vm.addMemory();
  }
  if (name !== 'created' && name !== 'inited') {
    expect(vm.launchStart()).toBe(0);
  }
  if (name === 'running, 1 vCPU') {
    vm.createVcpu();
  }
  if (name.startsWith('running')) {
    expect(vm.launchFinish()).toBe(0);
  }
  return vm;
}

const COMMANDS: Readonly<Record<CommandName, (vm: TestVm) => number>> = {
  INIT2: (vm) => vm.init2(),
  START: (vm) => vm.launchStart(),
  UPDATE: (vm) => vm.launchUpdate({ uaddr: vm.ram === 0n ? 1n : vm.ram, len: 0x1000n }),
  FINISH: (vm) => vm.launchFinish(),
  ENABLE_REQ_CERTS: (vm) => vm.enableReqCerts(),
  CREATE_VCPU: (vm) => Math.min(vm.createVcpu(), 0),
  KVM_RUN: (vm) => {
    if (vm.vcpus.length === 0) {
      vm.createVcpu();
    }
    return vm.enter().ret!;
  },
};

describe('the launch state machine', () => {
  for (const [state, row] of Object.entries(TABLE)) {
    it.each(Object.entries(row))(`${state}: %s gives %i`, (command, expected) => {
      expect(COMMANDS[command as CommandName](inState(state as StateName))).toBe(expected);
    });
  }

  it('reports INVALID_GUEST_STATE for LAUNCH_UPDATE after LAUNCH_FINISH', () => {
    const vm = inState('running, no vCPU');
    expect(COMMANDS.UPDATE(vm)).toBe(-EIO);
    expect(vm.fwStatus).toBe(2);
  });

  it.each(['inited', 'launching', 'running, no vCPU'] as const)(
    'KVM_RUN of a vCPU without a measured VMSA (%s) is a failed entry, reason 0xffffffff',
    (state) => {
      const vm = inState(state);
      vm.createVcpu();
      expect(vm.enter()).toEqual({ ret: 0 });
      expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
      expect(KvmRunFailEntry.get(vm.run(), 'hardware_entry_failure_reason')).toBe(0xffffffffn);
    },
  );

  it('a vCPU created before INIT2 blocks INIT2 for good', () => {
    const vm = inState('created');
    vm.createVcpu();
    expect(vm.init2()).toBe(-EINVAL);
  });
});

describe('SNP commands on other VMs', () => {
  const types = [
    KvmVmType.KVM_X86_DEFAULT_VM,
    KvmVmType.KVM_X86_SW_PROTECTED_VM,
    KvmVmType.KVM_X86_SEV_VM,
    KvmVmType.KVM_X86_SEV_ES_VM,
  ];

  it.each(types)('type %i: START ENOTTY, UPDATE EINVAL, FINISH ENOTTY, ENABLE_REQ_CERTS EINVAL', (type) => {
    const vm = new TestVm(new TestHost().user(), type);
    const answers = () => [
      vm.launchStart(),
      vm.launchUpdate({ len: 0x1000n }),
      vm.launchFinish(),
      vm.enableReqCerts(),
    ];
    const expected = [-ENOTTY, -EINVAL, -ENOTTY, -EINVAL];
    expect(answers()).toEqual(expected);
    const encrypted = type >= KvmVmType.KVM_X86_SEV_VM;
    expect(vm.init2()).toBe(encrypted ? 0 : -EINVAL);
    expect(answers()).toEqual(expected);
  });
});

describe('legacy commands', () => {
  const UNKNOWN = [10, 14, 19];

  it.each(Array.from({ length: 100 }, (_, id) => id))('id %i: EPERM for an SNP guest', (id) => {
    const vm = inState('inited');
    expect(vm.sevOp(id, null)).toBe(-EPERM);
    expect(vm.fwStatus).toBeNull();
  });

  it.each(Array.from({ length: 22 }, (_, id) => id))('id %i on a type 4 VM before INIT2', (id) => {
    const expected = id <= 1 || id === 13 || UNKNOWN.includes(id) ? -EINVAL : -ENOTTY;
    expect(inState('created').sevOp(id, null)).toBe(expected);
  });

  it.each([23, 50, 99, 104, 0xffffffff])('id %i before INIT2: EINVAL, nothing copied back', (id) => {
    const vm = inState('created');
    expect(vm.sevOp(id, null)).toBe(-EINVAL);
    expect(vm.fwStatus).toBeNull();
  });

  it('id 103 is unknown to Linux 6.12', () => {
    const vm = new TestVm(new TestHost(NOTHING, { generation: KVM_6_12 }).user());
    vm.init2();
    expect(vm.enableReqCerts()).toBe(-EINVAL);
  });

  it('ES_INIT where there are no ASIDs for it: ENOTTY, and types 3 and 4 are unknown', () => {
    const cpu = { cBit: 51, physAddrReduction: 5, maxAsid: 15, minSevAsid: 1 };
    const user = new TestHost(NOTHING, { cpu }).user();
    expect([3, 4].map((type) => user.createVm(type))).toEqual([-EINVAL, -EINVAL]);
    const vm = new TestVm(user, KvmVmType.KVM_X86_DEFAULT_VM);
    expect(vm.sevOp(KvmSevCmdId.KVM_SEV_ES_INIT, null)).toBe(-ENOTTY);
    expect(vm.sevOp(KvmSevCmdId.KVM_SEV_INIT, null)).toBe(0);
  });

  it('reach a firmware that refuses them, on a VM that is SEV-ES', () => {
    const vm = new TestVm(new TestHost().user(), KvmVmType.KVM_X86_SEV_ES_VM);
    vm.init2();
    expect(vm.sevOp(KvmSevCmdId.KVM_SEV_LAUNCH_START, new Uint8Array(40))).toBe(-EIO);
    expect(vm.fwStatus).toBe(0x15);
    expect(vm.sevOp(KvmSevCmdId.KVM_SEV_LAUNCH_START, null)).toBe(-Errno.EFAULT);
  });
});

describe('the envelope', () => {
  it('answers 0 for a null argument and EFAULT for an unreadable one', () => {
    const vm = inState('created');
    const op = 0xc008aeba;
    expect(vm.user.process.ioctl(vm.fd, op, 0n)).toBe(0);
    expect(vm.user.process.ioctl(vm.fd, op, 0x1234_5000n)).toBe(-Errno.EFAULT);
  });

  it('keeps error when no firmware command ran, and the padding always', () => {
    const vm = inState('inited');
    const envelope = new Uint8Array(24);
    new DataView(envelope.buffer).setUint32(0, 100, true);
    new DataView(envelope.buffer).setUint32(4, 0xabcdef01, true);
    new DataView(envelope.buffer).setUint32(16, 0x99, true);
    const at = vm.user.put(envelope);
    expect(vm.user.process.ioctl(vm.fd, 0xc008aeba, at)).toBe(-Errno.EFAULT);
    expect(vm.user.take(24)).toEqual(envelope);
  });

  it.each([
    ['a number nobody has', (_: TestVm) => 999],
    ['another kind of file', (vm: TestVm) => vm.user.kvm],
  ])('LAUNCH_START with %s as sev_fd: ENOTTY, error untouched, and it can be repeated', (_, fd) => {
    const vm = inState('inited');
    expect(vm.launchStart(0x30000n, {}, fd(vm))).toBe(-ENOTTY);
    expect(vm.fwStatus).toBeNull();
    expect(vm.launchStart()).toBe(0);
  });

  it('LAUNCH_UPDATE with a bad sev_fd: EIO, error 0, and the page can be launched later', () => {
    const vm = inState('launching');
    const update = { gfn_start: 2n, uaddr: vm.ram, len: 0x1000n };
    expect(vm.launchUpdate(update, 999)).toBe(-EIO);
    expect(vm.sevError).toBe(0);
    expect(vm.launchUpdate(update)).toBe(0);
  });

  it('LAUNCH_FINISH uses the descriptor of LAUNCH_START: EBADF once that is closed', () => {
    const vm = inState('launching');
    const other = vm.user.process.openDevSev({ write: true });
    vm.user.process.close(vm.user.sev);
    vm.createVcpu();
    expect(vm.launchFinish({}, other)).toBe(-Errno.EBADF);
    expect(vm.launchFinish({}, other)).toBe(-EINVAL);
  });

  it('LAUNCH_FINISH launches VMSAs with the descriptor of the envelope', () => {
    const vm = inState('launching');
    vm.createVcpu();
    expect(vm.launchFinish({}, 999)).toBe(-Errno.EBADF);
    expect(vm.launchFinish()).toBe(0);
  });
});

describe('firmware failures', () => {
  it('a failed LAUNCH_START leaves no context: EIO with the status, then it works', () => {
    const vm = inState('inited');
    const { psp } = vm.user.host;
    psp.intercept = (id) => (id === SevCmd.SEV_CMD_SNP_ACTIVATE ? 0x0c : null);
    expect(vm.launchStart()).toBe(-EIO);
    expect(vm.fwStatus).toBe(0x0c);
    psp.intercept = () => null;
    expect(vm.launchStart()).toBe(0);
  });

  it('a secure processor that does not answer: ETIMEDOUT with error 0, then EBUSY', () => {
    const vm = inState('launching');
    vm.user.host.psp.intercept = () => 'timeout';
    expect(vm.launchFinish()).toBe(-Errno.ETIMEDOUT);
    expect(vm.sevError).toBe(0);
    vm.user.host.psp.intercept = () => null;
    expect(vm.launchFinish()).toBe(-Errno.EBUSY);
    expect(vm.fwStatus).toBeNull();
  });

  it('a page the firmware will not give back kills the VM: EIO ever after', () => {
    const vm = inState('launching');
    const { psp } = vm.user.host;
    psp.intercept = (id) => (id === SevCmd.SEV_CMD_SNP_PAGE_RECLAIM || id === 0xa1 ? 0x1a : null);
    expect(vm.launchUpdate({ gfn_start: 2n, uaddr: vm.ram, len: 0x1000n })).toBe(-EIO);
    psp.intercept = () => null;
    expect(vm.launchUpdate({ gfn_start: 3n, uaddr: vm.ram, len: 0x1000n })).toBe(-EIO);
    expect(vm.createVcpu()).toBe(-EIO);
  });

  it('a host without a secure processor knows no SEV', () => {
    const user = new TestHost(NOTHING, { psp: null }).user();
    expect([2, 3, 4].map((type) => user.createVm(type))).toEqual([-EINVAL, -EINVAL, -EINVAL]);
    expect(new TestVm(user, 0).sevOp(16, null)).toBe(-ENOTTY);
  });

  it('INIT2 brings SNP up when the driver did not: EIO with the status, then it works', () => {
    const vm = new TestVm(new TestHost(NOTHING, { initOnProbe: false }).user());
    const { psp } = vm.user.host;
    psp.intercept = (id) => (id === SevCmd.SEV_CMD_SNP_INIT_EX ? 0x26 : null);
    expect(vm.init2()).toBe(-EIO);
    expect(vm.fwStatus).toBe(0x26);
    psp.intercept = () => null;
    expect(vm.init2()).toBe(0);
  });
});

describe('LAUNCH_UPDATE', () => {
  it('len 0: EINVAL, a no-op on Linux 6.12', () => {
    expect(inState('launching').launchUpdate({ len: 0n })).toBe(-EINVAL);
    const vm = new TestVm(new TestHost(NOTHING, { generation: KVM_6_12 }).user());
    vm.init2();
    vm.addMemory();
    vm.launchStart();
    expect(vm.launchUpdate({ gfn_start: 7n, len: 0n, uaddr: 5n })).toBe(0);
    expect(vm.launchUpdateLeft).toMatchObject({ gfn_start: 7n, len: 0n, uaddr: 5n });
  });

  it('a zero page takes no uaddr and leaves it alone; other types refuse a null one', () => {
    const vm = inState('launching');
    expect(vm.launchUpdate({ gfn_start: 1n, len: 0x2000n, type: 3 })).toBe(0);
    expect(vm.launchUpdateLeft).toMatchObject({ gfn_start: 3n, len: 0n, uaddr: 0n });
    expect(vm.launchUpdate({ gfn_start: 4n, len: 0x1000n, type: 1 })).toBe(-EIO);
  });

  it('is clipped at the end of the slot', () => {
    const vm = inState('launching');
    expect(vm.launchUpdate({ gfn_start: 4094n, len: 0x3000n, type: 3 })).toBe(0);
    expect(vm.launchUpdateLeft).toMatchObject({ gfn_start: 4096n, len: 0x1000n });
    expect(vm.launchUpdate(vm.launchUpdateLeft)).toBe(-EINVAL);
  });

  it('an unreadable source: EIO, error 0', () => {
    const vm = inState('launching');
    expect(vm.launchUpdate({ gfn_start: 1n, len: 0x1000n, uaddr: 0x77_0000n })).toBe(-EIO);
    expect(vm.sevError).toBe(0);
  });

  it('a GFN outside every slot, or in one without guest_memfd: EINVAL', () => {
    const vm = inState('launching');
    vm.setRegion({
      slot: 1,
      guest_phys_addr: 1n << 32n,
      memory_size: 0x1000n,
      userspace_addr: vm.user.scratch,
    });
    expect(vm.launchUpdate({ gfn_start: 1n << 40n, len: 0x1000n, type: 3 })).toBe(-EINVAL);
    expect(vm.launchUpdate({ gfn_start: 0xffff_ffff_ffff_ffffn, len: 0x1000n, type: 3 })).toBe(-EINVAL);
    expect(vm.launchUpdate({ gfn_start: 1n << 20n, len: 0x1000n, type: 3 })).toBe(-EINVAL);
  });
});

describe('LAUNCH_FINISH', () => {
  it('refuses while a vCPU is inside KVM_RUN, so that no register changes under it (CVE-2026-31591)', () => {
    const host = new TestHost();
    const vm = new TestVm(host.user());
    vm.irqchip();
    vm.init2();
    vm.addMemory();
    vm.launchStart();
    vm.createVcpu();
    vm.createVcpu();
    expect(vm.enter(1)).toEqual({ blocked: true, wakeAtMs: null });
    expect(vm.launchFinish()).toBe(-Errno.EINTR);
    vm.user.process.signal(vm.vcpus[1]!);
    expect(vm.enter(1)).toEqual({ ret: -Errno.EINTR });
    expect(vm.launchFinish()).toBe(0);
  });

  it.each([
    ['no ID block pointer', { id_block_en: 1, id_auth_uaddr: 1n }, -EINVAL],
    ['an unreadable ID block', { id_block_en: 1, id_block_uaddr: 0x1000n, id_auth_uaddr: 1n }, -Errno.EFAULT],
  ])('%s: the launch can be finished afterwards', (_, fields, expected) => {
    const vm = inState('launching');
    expect(vm.launchFinish(fields)).toBe(expected);
    expect(vm.launchFinish()).toBe(0);
  });

  it('no ID authentication pointer: EINVAL', () => {
    const vm = inState('launching');
    expect(vm.launchFinish({ id_block_en: 1, id_block_uaddr: vm.ram })).toBe(-EINVAL);
    expect(vm.launchFinish({ id_block_en: 1, id_block_uaddr: vm.ram, id_auth_uaddr: vm.ram })).toBe(-EIO);
  });

  it('vCPUs created afterwards cannot run', () => {
    const { vm } = launched(NOTHING);
    vm.createVcpu();
    vm.setMpState(1, 0);
    expect(vm.enter(1)).toEqual({ ret: 0 });
    expect(vm.exitReason(1)).toBe(KvmExit.KVM_EXIT_FAIL_ENTRY);
  });
});
