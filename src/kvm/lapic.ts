// SPDX-License-Identifier: Apache-2.0
/**
 * As much of a local APIC as starting, waking and holding vCPUs takes.
 *
 * Source   [GHCB] "AP Reset Hold"; [LINUX] arch/x86/kvm/lapic.c kvm_apic_accept_events
 * Differs  interrupts wake a vCPU but no vector is delivered (docs/limitations.md#interrupts)
 */
import { Errno } from '../abi/errno.ts';
import { KvmMp } from '../abi/kvm.ts';
import type { KvmMsi } from '../abi/kvm-structs.ts';
import { deliverSipi } from './ghcb/ap-reset-hold.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';
import { installPendingVmsa } from './vmsa.ts';

export interface Lapic {
  initPending: boolean;
  sipiPending: boolean;
  /** An interrupt or NMI. It stays until it ends a sleep, as for a guest that halts with interrupts masked. */
  wakeUpPending: boolean;
  spurious: number;
  icr: bigint;
}

export const newLapic = (): Lapic => ({
  initPending: false,
  sipiPending: false,
  wakeUpPending: false,
  spurious: 0xff,
  icr: 0n,
});

/** Delivery modes of an interrupt command. */
const DELIVERY_INIT = 5;
const DELIVERY_SIPI = 6;

/** Destination shorthands of an interrupt command. */
const SHORTHAND_SELF = 1;
const SHORTHAND_ALL = 2;
const SHORTHAND_OTHERS = 3;

const BROADCAST = 0xffff_ffff;

/** Acts on a pending INIT, then on a pending SIPI. */
export function acceptApicEvents(vcpu: Vcpu): void {
  const { lapic } = vcpu;
  if (lapic.initPending) {
    lapic.initPending = false;
    installPendingVmsa(vcpu);
    vcpu.mpState = vcpu.isBsp ? KvmMp.KVM_MP_STATE_RUNNABLE : KvmMp.KVM_MP_STATE_INIT_RECEIVED;
  }
  if (lapic.sipiPending) {
    lapic.sipiPending = false;
    if (vcpu.mpState === KvmMp.KVM_MP_STATE_INIT_RECEIVED) {
      deliverSipi(vcpu);
      vcpu.mpState = KvmMp.KVM_MP_STATE_RUNNABLE;
    }
  }
}

/** Anything that ends the sleep of a vCPU in `state`. */
export function hasWakeUp(vcpu: Vcpu): boolean {
  const { lapic } = vcpu;
  return lapic.initPending || lapic.sipiPending || lapic.wakeUpPending || vcpu.updateRequested;
}

/** A write of the x2APIC interrupt command register. */
export function writeIcr(sender: Vcpu, value: bigint): void {
  sender.lapic.icr = value;
  const low = Number(value & 0xffff_ffffn);
  const destination = Number(value >> 32n);
  const mode = (low >>> 8) & 7;
  const isLogical = ((low >>> 11) & 1) === 1;
  const isAssert = ((low >>> 14) & 1) === 1;
  const isLevel = ((low >>> 15) & 1) === 1;
  if (mode === DELIVERY_INIT && isLevel && !isAssert) {
    // INIT level de-assert only synchronises arbitration ids.
    return;
  }
  const shorthand = (low >>> 18) & 3;
  for (const target of sender.vm.vcpus) {
    if (isTarget(sender, target, shorthand, destination, isLogical)) {
      deliver(target, mode);
    }
  }
}

function isTarget(
  sender: Vcpu,
  target: Vcpu,
  shorthand: number,
  destination: number,
  isLogical: boolean,
): boolean {
  switch (shorthand) {
    case SHORTHAND_SELF:
      return target === sender;
    case SHORTHAND_ALL:
      return true;
    case SHORTHAND_OTHERS:
      return target !== sender;
    default:
      return (
        destination === BROADCAST ||
        (isLogical ? inCluster(target.id, destination) : target.id === destination)
      );
  }
}

/** Logical x2APIC destination: the cluster in the high half, one bit for each of its 16 members below. */
function inCluster(apicId: number, destination: number): boolean {
  return apicId >>> 4 === destination >>> 16 && ((destination >>> (apicId & 15)) & 1) === 1;
}

function deliver(target: Vcpu, mode: number): void {
  if (mode === DELIVERY_INIT) {
    target.lapic.initPending = true;
    target.lapic.sipiPending = false;
  } else if (mode === DELIVERY_SIPI) {
    target.lapic.sipiPending = true;
  } else {
    target.lapic.wakeUpPending = true;
  }
}

/** KVM_SIGNAL_MSI: 1 when a vCPU takes the interrupt, 0 when none has that APIC id. */
export function signalMsi(vm: Vm, msi: KvmMsi): number {
  if (!vm.irqchip || msi.flags !== 0) {
    return -Errno.EINVAL;
  }
  const destination = ((msi.address_lo >>> 12) & 0xff) | (msi.address_hi & 0xffff_ff00);
  const target = vm.vcpuById(destination >>> 0);
  if (target === undefined) {
    return 0;
  }
  deliver(target, (msi.data >>> 8) & 7);
  return 1;
}
