// SPDX-License-Identifier: Apache-2.0
/** A virtual CPU: its state, and what its file descriptor reaches. KVM_RUN is in kvm-run.ts. */
import { Errno } from '../abi/errno.ts';
import { GHCB_PROTOCOL_MIN } from '../abi/ghcb.ts';
import { ghcbMsrSevInfoResp } from '../abi/ghcb-msr.ts';
import type { GuestAnswer, GuestException, GuestOp, VcpuEngine } from '../abi/guest-ops.ts';
import { KVM_VCPU_MMAP_SIZE, KvmIoctl, KvmMp } from '../abi/kvm.ts';
import type { Pfn, Vmpl } from '../lib/addresses.ts';
import { CpuidTable } from './cpuid.ts';
import type { KernelFile } from './files.ts';
import type { GhcbMapping } from './ghcb/mapping.ts';
import type { HostProcess } from './host-process.ts';
import { kvmRun } from './kvm-run.ts';
import { newLapic } from './lapic.ts';
import { type Registers, resetRegisters } from './registers.ts';
import { vcpuIoctl } from './vcpu-ioctls.ts';
import type { Vm } from './vm.ts';

/** Where a KVM_RUN that has not returned is. */
export type InKernel = 'nowhere' | 'waiting-for-init' | 'run-loop';

/** Back half of a userspace exit: above 0 goes on to the guest, 0 is another exit, below 0 an errno. */
export type Completion = () => number;

/** What KVM holds of a protected guest's registers: the ones of the last VMGEXIT. */
export interface ShadowRegisters {
  rax: bigint;
  rbx: bigint;
  rcx: bigint;
  rdx: bigint;
  rsi: bigint;
  cpl: number;
  xcr0: bigint;
}

/** The VMSA the vCPU runs on. */
export interface CurrentVmsa {
  readonly frame: Pfn;
  readonly vmpl: Vmpl;
  readonly sevFeatures: bigint;
  readonly engine: VcpuEngine;
}

export class Vcpu implements KernelFile {
  readonly vm: Vm;
  readonly id: number;
  /** The pages the VMM maps: kvm_run, PIO data, coalesced MMIO. */
  readonly run = new Uint8Array(KVM_VCPU_MMAP_SIZE);
  /** KVM's own VMSA page; null where registers are not encrypted. */
  readonly vmsaFrame: Pfn | null;
  readonly registers: Registers;
  readonly cpuid = new CpuidTable();
  readonly lapic = newLapic();
  readonly shadow: ShadowRegisters = { rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n, rsi: 0n, cpl: 0, xcr0: 1n };
  mpState: number;
  /** LAUNCH_FINISH has encrypted the registers. */
  isProtected = false;

  inKernel: InKernel = 'nowhere';
  signalPending = false;
  completion: Completion | null = null;
  /** Time at which a halted vCPU wakes; null: only by an event. */
  wakeAtMs: number | null = null;

  /** Page VMRUN gets; null after an AP destroy. */
  vmsaInUse: Pfn | null;
  /** Set up at the first VMRUN of the page. */
  current: CurrentVmsa | null = null;
  /** An AP creation or destruction that the vCPU has not acted on. */
  apUpdate: { readonly vmsaGpa: bigint | null } | null = null;
  /** KVM_REQ_UPDATE_PROTECTED_GUEST_STATE. */
  updateRequested = false;

  /** What the guest is doing; null once it is done. */
  op: GuestOp | null = null;
  answer: GuestAnswer = undefined;
  /** Raised in the guest at the next entry. */
  exception: GuestException | null = null;

  ghcbMsr: bigint;
  registeredGhcb = 0n;
  ghcb: GhcbMapping | null = null;
  /** How the guest asked for the AP reset hold it is in. */
  resetHold: 'none' | 'page' | 'msr' = 'none';
  /** The first SIPI starts a vCPU as it was launched, each later one ends a reset hold. */
  hadSipi = false;

  constructor(vm: Vm, id: number, vmsaFrame: Pfn | null) {
    this.vm = vm;
    this.id = id;
    this.vmsaFrame = vmsaFrame;
    this.vmsaInUse = vmsaFrame;
    this.registers = resetRegisters(this.isBsp);
    this.mpState = !vm.irqchip || this.isBsp ? KvmMp.KVM_MP_STATE_RUNNABLE : KvmMp.KVM_MP_STATE_UNINITIALIZED;
    this.ghcbMsr = ghcbMsrSevInfoResp(vm.sev.ghcbVersion, GHCB_PROTOCOL_MIN, vm.services.asids.cpu.cBit);
  }

  get isBsp(): boolean {
    return this.id === this.vm.bootCpuId;
  }

  /** Inside KVM_RUN: its lock is taken. */
  get isRunning(): boolean {
    return this.inKernel !== 'nowhere';
  }

  ioctl(process: HostProcess, nr: number, arg: bigint): number {
    if (process !== this.vm.owner || this.vm.dead) {
      return -Errno.EIO;
    }
    // The lock of a vCPU inside KVM_RUN is not free; waiting for it ends as if the caller had been killed.
    if (this.isRunning) {
      return -Errno.EINTR;
    }
    if (nr === KvmIoctl.KVM_RUN) {
      return arg === 0n ? this.#runWithoutSleep(process) : -Errno.EINVAL;
    }
    return vcpuIoctl(this, process, nr, arg);
  }

  release(): void {
    this.vm.release();
  }

  /** KVM_RUN for callers that cannot wait: a sleep ends at once, as by a signal. */
  #runWithoutSleep(process: HostProcess): number {
    let outcome = kvmRun(this, process);
    if (outcome.blocked) {
      this.signalPending = true;
      outcome = kvmRun(this, process);
    }
    return outcome.ret ?? -Errno.EINTR;
  }
}
