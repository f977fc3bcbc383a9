// SPDX-License-Identifier: Apache-2.0
/**
 * Model-specific registers: those the processor gives a protected guest itself, and those it asks KVM for.
 *
 * Source   [GHCB] "Registers and instructions"; [LINUX] svm/sev.c sev_es_recalc_msr_intercepts, x86.c
 * Differs  KVM's own part is the local APIC and the TSC; every other one is unknown (docs/limitations.md#msrs)
 */

import { GhcbExit } from '../abi/ghcb.ts';
import { GuestException, VECTOR_GP, VECTOR_VC } from '../abi/guest-ops.ts';
import { KvmMsrExitReason } from '../abi/kvm.ts';
import { Msr } from '../abi/msrs.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { type Spa, spaOf } from '../lib/addresses.ts';
import { readU64, writeU64 } from '../lib/bytes.ts';
import { writeIcr } from './lapic.ts';
import { apicBaseIsValid, isX2Apic } from './registers.ts';
import type { Vcpu } from './vcpu.ts';

/** Registers the processor keeps in the VMSA and KVM does not intercept. */
const IN_VMSA: ReadonlyMap<number, number> = new Map([
  [0x0000_0174, Vmsa.offsetOf('sysenter_cs')],
  [0x0000_0175, Vmsa.offsetOf('sysenter_esp')],
  [0x0000_0176, Vmsa.offsetOf('sysenter_eip')],
  [0x0000_0277, Vmsa.offsetOf('g_pat')],
  [0xc000_0080, Vmsa.offsetOf('efer')],
  [0xc000_0081, Vmsa.offsetOf('star')],
  [0xc000_0082, Vmsa.offsetOf('lstar')],
  [0xc000_0083, Vmsa.offsetOf('cstar')],
  [0xc000_0084, Vmsa.offsetOf('sfmask')],
  [0xc000_0100, Vmsa.offsetOf('fs') + 8],
  [0xc000_0101, Vmsa.offsetOf('gs') + 8],
  [0xc000_0102, Vmsa.offsetOf('kernel_gs_base')],
]);

const MSR_IA32_TSC = 0x10;
const MSR_IA32_APICBASE = 0x1b;
const X2APIC_ID = 0x802;
const X2APIC_VERSION = 0x803;
const X2APIC_EOI = 0x80b;
const X2APIC_SPURIOUS = 0x80f;
const X2APIC_ICR = 0x830;
const X2APIC_SELF_IPI = 0x83f;
/** KVM's APIC: version 0x14, six local vector table entries. */
const APIC_VERSION = 0x0005_0014n;
const ICR_SELF = 1n << 18n;
/** SEV_STATUS bits of SEV and SEV-ES; SNP's comes from the VMSA with the other features. */
const SEV_STATUS_SEV_ES = 3n;
/** Ticks of the TSC in a millisecond: 2.45 GHz. */
const TSC_KHZ = 2_450_000;

/** RDMSR in the guest: an answer, or #VC for what KVM intercepts. */
export function guestRdmsr(vcpu: Vcpu, index: number): bigint | GuestException {
  const current = vcpu.current!;
  const offset = IN_VMSA.get(index);
  if (index === Msr.MSR_AMD64_SEV_ES_GHCB) {
    return vcpu.ghcbMsr;
  }
  if (index === Msr.MSR_AMD64_SEV) {
    return (current.sevFeatures << 2n) | SEV_STATUS_SEV_ES;
  }
  if (offset !== undefined) {
    const { memory } = vcpu.vm.services.hw;
    return readU64(memory.read(fieldAt(vcpu, offset), 8, vcpu.vm.sev.asid), 0);
  }
  return new GuestException(VECTOR_VC, GhcbExit.SVM_EXIT_MSR);
}

/** WRMSR in the guest: null when it is done. */
export function guestWrmsr(vcpu: Vcpu, index: number, value: bigint): GuestException | null {
  const word = BigInt.asUintN(64, value);
  const offset = IN_VMSA.get(index);
  if (index === Msr.MSR_AMD64_SEV_ES_GHCB) {
    vcpu.ghcbMsr = word;
    return null;
  }
  if (index === Msr.MSR_AMD64_SEV) {
    return new GuestException(VECTOR_GP, 0);
  }
  if (offset !== undefined) {
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, word);
    vcpu.vm.services.hw.memory.write(fieldAt(vcpu, offset), bytes, vcpu.vm.sev.asid);
    return null;
  }
  return new GuestException(VECTOR_VC, GhcbExit.SVM_EXIT_MSR);
}

const fieldAt = (vcpu: Vcpu, offset: number): Spa => (spaOf(vcpu.current!.frame) + BigInt(offset)) as Spa;

/** KVM's emulation: a value, or why there is none. */
export function readMsr(vcpu: Vcpu, index: number): bigint | number {
  const { lapic, registers } = vcpu;
  if (index === MSR_IA32_TSC) {
    return BigInt(Math.floor(vcpu.vm.services.clock.monotonicMs() * TSC_KHZ));
  }
  if (!vcpu.vm.irqchip) {
    return KvmMsrExitReason.KVM_MSR_EXIT_REASON_UNKNOWN;
  }
  if (index === MSR_IA32_APICBASE) {
    return registers.apicBase;
  }
  if (!isX2ApicRegister(index)) {
    return KvmMsrExitReason.KVM_MSR_EXIT_REASON_UNKNOWN;
  }
  if (!isX2Apic(registers.apicBase)) {
    return KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
  }
  switch (index) {
    case X2APIC_ID:
      return BigInt(vcpu.id);
    case X2APIC_VERSION:
      return APIC_VERSION;
    case X2APIC_SPURIOUS:
      return BigInt(lapic.spurious);
    case X2APIC_ICR:
      return lapic.icr;
    default:
      return KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
  }
}

/** KVM's emulation: null when it is done, or why it is not. */
export function writeMsr(vcpu: Vcpu, index: number, value: bigint): number | null {
  const { lapic, registers } = vcpu;
  if (!vcpu.vm.irqchip || (index !== MSR_IA32_APICBASE && !isX2ApicRegister(index))) {
    return KvmMsrExitReason.KVM_MSR_EXIT_REASON_UNKNOWN;
  }
  if (index === MSR_IA32_APICBASE) {
    if (!apicBaseIsValid(value)) {
      return KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
    }
    registers.apicBase = value;
    return null;
  }
  if (!isX2Apic(registers.apicBase)) {
    return KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
  }
  switch (index) {
    case X2APIC_EOI:
      return value === 0n ? null : KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
    case X2APIC_SPURIOUS:
      lapic.spurious = Number(value & 0x3ffn);
      return null;
    case X2APIC_ICR:
      writeIcr(vcpu, value);
      return null;
    case X2APIC_SELF_IPI:
      writeIcr(vcpu, (value & 0xffn) | ICR_SELF);
      return null;
    default:
      return KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL;
  }
}

const isX2ApicRegister = (index: number): boolean => index >= 0x800 && index <= 0x8ff;
