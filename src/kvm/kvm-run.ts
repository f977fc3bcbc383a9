// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_RUN: from the checks at its start to the guest and back.
 *
 * Source   [KVM] "KVM_RUN order of operations"; [LINUX] x86.c kvm_arch_vcpu_ioctl_run, vcpu_run, vcpu_block
 */
import { Errno } from '../abi/errno.ts';
import type { GuestOp, VcpuEngine } from '../abi/guest-ops.ts';
import { KVM_FAIL_ENTRY_INVALID_VMSA, KvmExit, KvmMp } from '../abi/kvm.ts';
import { KvmRun, KvmRunFailEntry } from '../abi/kvm-run.ts';
import { readU64, writeU32, writeU64 } from '../lib/bytes.ts';
import type { RunOutcome } from './contract.ts';
import { EXIT, RESUME, unmapGhcb } from './ghcb/mapping.ts';
import { LAST_CPU } from './ghcb/termination.ts';
import { handleVmgexit } from './ghcb/vmgexit.ts';
import type { HostProcess } from './host-process.ts';
import { acceptApicEvents, hasWakeUp } from './lapic.ts';
import { SYNC_REGS_MASK } from './limits.ts';
import { guestRdmsr, guestWrmsr } from './msrs.ts';
import { STUCK } from './nested-paging.ts';
import { cr8IsValid } from './registers.ts';
import { hasEncryptedState } from './sev/state.ts';
import type { CurrentVmsa, Vcpu } from './vcpu.ts';
import { installPendingVmsa, loadVmsa } from './vmsa.ts';

/** The guest left for the hypervisor with an event that is handled. */
const NEXT_ENTRY = 3;
/** The guest has used its slice up. */
const SLICE_OVER = 4;

// Fields every KVM_RUN touches, read and written where they are.
const IMMEDIATE_EXIT = KvmRun.offsetOf('immediate_exit');
const EXIT_REASON = KvmRun.offsetOf('exit_reason');
const CR8 = KvmRun.offsetOf('cr8');
const APIC_BASE = KvmRun.offsetOf('apic_base');
const VALID_REGS = KvmRun.offsetOf('kvm_valid_regs');
const DIRTY_REGS = KvmRun.offsetOf('kvm_dirty_regs');

const BLOCKED_FOR_EVENT: RunOutcome = Object.freeze({ blocked: true, wakeAtMs: null });

/** KVM_RUN, or the continuation of one whose thread slept. */
export function kvmRun(vcpu: Vcpu, process: HostProcess): RunOutcome {
  const { vm } = vcpu;
  if (process !== vm.owner || vm.dead) {
    vcpu.inKernel = 'nowhere';
    return { ret: -Errno.EIO };
  }
  const outcome = vcpu.inKernel === 'nowhere' ? begin(vcpu) : proceed(vcpu);
  if (outcome.blocked === undefined) {
    vcpu.inKernel = 'nowhere';
    writeU64(vcpu.run, CR8, vcpu.registers.cr8);
    writeU64(vcpu.run, APIC_BASE, vcpu.registers.apicBase);
  }
  return outcome;
}

/** Steps 4 to 10: everything before the run loop. */
function begin(vcpu: Vcpu): RunOutcome {
  const { run, vm } = vcpu;
  const wantsToRun = run[IMMEDIATE_EXIT] === 0;
  if (vcpu.mpState === KvmMp.KVM_MP_STATE_UNINITIALIZED) {
    if (!wantsToRun) {
      return { ret: -Errno.EINTR };
    }
    vcpu.inKernel = 'waiting-for-init';
    return proceed(vcpu);
  }
  const syncRegs = readU64(run, VALID_REGS) | readU64(run, DIRTY_REGS);
  const offered = hasEncryptedState(vm.type) || vm.sev.es ? 0 : SYNC_REGS_MASK;
  if ((syncRegs & ~BigInt(offered)) !== 0n) {
    return { ret: -Errno.EINVAL };
  }
  if (!vm.irqchip) {
    const cr8 = readU64(run, CR8);
    if (!cr8IsValid(cr8)) {
      return { ret: -Errno.EINVAL };
    }
    vcpu.registers.cr8 = cr8;
  }
  const { completion } = vcpu;
  if (completion !== null) {
    vcpu.completion = null;
    const result = completion();
    if (result <= EXIT) {
      return { ret: result };
    }
  }
  if (!wantsToRun) {
    return { ret: -Errno.EINTR };
  }
  if (vm.sev.needsInit) {
    return { ret: -Errno.EINVAL };
  }
  writeU32(run, EXIT_REASON, KvmExit.KVM_EXIT_UNKNOWN);
  vcpu.inKernel = 'run-loop';
  return proceed(vcpu);
}

function proceed(vcpu: Vcpu): RunOutcome {
  return vcpu.inKernel === 'waiting-for-init' ? waitForInit(vcpu) : runLoop(vcpu);
}

/**
 * An AP nobody has started. Whatever ends the wait, userspace has to call again.
 *
 * Differs  an AP creation starts the AP; KVM leaves it UNINITIALIZED until an INIT, which a guest's firmware
 *          sends before its kernel creates APs (docs/limitations.md#ap-creation)
 */
function waitForInit(vcpu: Vcpu): RunOutcome {
  const { lapic } = vcpu;
  const hasEvent = lapic.initPending || lapic.sipiPending || vcpu.updateRequested;
  if (!hasEvent && !vcpu.signalPending) {
    return BLOCKED_FOR_EVENT;
  }
  if (vcpu.updateRequested) {
    vcpu.updateRequested = false;
    installPendingVmsa(vcpu);
  }
  acceptApicEvents(vcpu);
  return vcpu.signalPending ? interrupted(vcpu) : { ret: -Errno.EAGAIN };
}

function interrupted(vcpu: Vcpu): RunOutcome {
  vcpu.signalPending = false;
  writeU32(vcpu.run, EXIT_REASON, KvmExit.KVM_EXIT_INTR);
  return { ret: -Errno.EINTR };
}

/** vcpu_run: enters the guest until something is for userspace, or the thread would sleep. */
function runLoop(vcpu: Vcpu): RunOutcome {
  const { services } = vcpu.vm;
  const slice = { left: services.sliceOps };
  // A timer ends only a sleep that began in an earlier call: each HLT gives the other vCPUs a turn.
  let timerMayFire = true;
  for (;;) {
    if (vcpu.signalPending) {
      return interrupted(vcpu);
    }
    if (vcpu.mpState !== KvmMp.KVM_MP_STATE_RUNNABLE) {
      if (!wakesUp(vcpu, timerMayFire)) {
        return vcpu.wakeAtMs === null ? BLOCKED_FOR_EVENT : { blocked: true, wakeAtMs: vcpu.wakeAtMs };
      }
      continue;
    }
    if (!prepareEntry(vcpu)) {
      continue;
    }
    const current = loadVmsa(vcpu);
    if (current === null) {
      return failEntry(vcpu);
    }
    unmapGhcb(vcpu);
    const result = runGuest(vcpu, current, slice);
    if (result <= EXIT) {
      return { ret: result };
    }
    if (result === STUCK) {
      return BLOCKED_FOR_EVENT;
    }
    if (result === SLICE_OVER) {
      return { blocked: true, wakeAtMs: services.clock.monotonicMs() };
    }
    timerMayFire = false;
  }
}

/** vcpu_block: true when the vCPU's state may have changed. */
function wakesUp(vcpu: Vcpu, timerMayFire: boolean): boolean {
  const { lapic } = vcpu;
  if (vcpu.mpState === KvmMp.KVM_MP_STATE_INIT_RECEIVED) {
    if (!lapic.initPending && !lapic.sipiPending) {
      return false;
    }
    acceptApicEvents(vcpu);
    return true;
  }
  const timer =
    timerMayFire && vcpu.wakeAtMs !== null && vcpu.vm.services.clock.monotonicMs() >= vcpu.wakeAtMs;
  if (!timer && !hasWakeUp(vcpu)) {
    return false;
  }
  vcpu.wakeAtMs = null;
  lapic.wakeUpPending = false;
  acceptApicEvents(vcpu);
  if (vcpu.mpState === KvmMp.KVM_MP_STATE_HALTED || vcpu.mpState === KvmMp.KVM_MP_STATE_AP_RESET_HOLD) {
    vcpu.mpState = KvmMp.KVM_MP_STATE_RUNNABLE;
  }
  return true;
}

/** Requests to be seen to before VMRUN; false when the vCPU is not to run after all. */
function prepareEntry(vcpu: Vcpu): boolean {
  if (vcpu.updateRequested) {
    vcpu.updateRequested = false;
    installPendingVmsa(vcpu);
  }
  if (vcpu.lapic.initPending || vcpu.lapic.sipiPending) {
    acceptApicEvents(vcpu);
  }
  return vcpu.mpState === KvmMp.KVM_MP_STATE_RUNNABLE;
}

function failEntry(vcpu: Vcpu): RunOutcome {
  const { run } = vcpu;
  writeU32(run, EXIT_REASON, KvmExit.KVM_EXIT_FAIL_ENTRY);
  KvmRunFailEntry.set(run, 'hardware_entry_failure_reason', KVM_FAIL_ENTRY_INVALID_VMSA);
  KvmRunFailEntry.set(run, 'cpu', LAST_CPU);
  return { ret: EXIT };
}

/** Runs the guest's code up to the next thing that leaves it. */
function runGuest(vcpu: Vcpu, current: CurrentVmsa, slice: { left: number }): number {
  while (slice.left > 0) {
    slice.left -= 1;
    vcpu.op ??= nextOp(vcpu, current.engine);
    if (vcpu.op === null) {
      writeU32(vcpu.run, EXIT_REASON, KvmExit.KVM_EXIT_SHUTDOWN);
      return EXIT;
    }
    const result = perform(vcpu, vcpu.op);
    if (result !== RESUME) {
      return result;
    }
    vcpu.op = null;
  }
  return SLICE_OVER;
}

function nextOp(vcpu: Vcpu, engine: VcpuEngine): GuestOp | null {
  const { exception, answer } = vcpu;
  vcpu.exception = null;
  vcpu.answer = undefined;
  return exception === null ? engine.next(answer) : engine.raise(exception);
}

/**
 * One operation. RESUME: done, the answer or an exception waits for the engine. What leaves the guest has
 * been taken off the vCPU if it is done, and stays if it is to be tried again.
 */
function perform(vcpu: Vcpu, op: GuestOp): number {
  const { paging } = vcpu.vm;
  switch (op.op) {
    case 'read':
    case 'write':
      return paging.readOrWrite(vcpu, op);
    case 'pvalidate':
      return paging.pvalidate(vcpu, op);
    case 'rmpadjust':
      return paging.rmpadjust(vcpu, op);
    case 'rdmsr': {
      const value = guestRdmsr(vcpu, op.msr);
      if (typeof value === 'bigint') {
        vcpu.answer = value;
      } else {
        vcpu.exception = value;
      }
      return RESUME;
    }
    case 'wrmsr':
      vcpu.exception = guestWrmsr(vcpu, op.msr, op.value);
      return RESUME;
    case 'vmgexit': {
      vcpu.op = null;
      const result = handleVmgexit(vcpu);
      return result === RESUME ? NEXT_ENTRY : result;
    }
    case 'hlt':
      vcpu.op = null;
      return halt(vcpu, op.wakeAfterMs);
  }
}

/** HLT: sleeps in the kernel, or leaves to whoever has the APIC. */
function halt(vcpu: Vcpu, wakeAfterMs: number | undefined): number {
  if (!vcpu.vm.irqchip) {
    writeU32(vcpu.run, EXIT_REASON, KvmExit.KVM_EXIT_HLT);
    return EXIT;
  }
  vcpu.mpState = KvmMp.KVM_MP_STATE_HALTED;
  vcpu.wakeAtMs =
    wakeAfterMs === undefined || !Number.isFinite(wakeAfterMs)
      ? null
      : vcpu.vm.services.clock.monotonicMs() + Math.max(0, wakeAfterMs);
  return NEXT_ENTRY;
}
