// SPDX-License-Identifier: Apache-2.0
/** What the kernel model shares with whoever runs it: outcomes, the engine factory, events. */
import type { VcpuEngine } from '../abi/guest-ops.ts';
import type { TraceStep, TraceValue } from '../lib/trace.ts';

/**
 * How a call of KVM_RUN ended.
 *
 * `ret` is the system call's result: 0, or -errno. `blocked` takes the place of a sleeping thread: the
 * vCPU is inside the kernel (HLT, an AP nobody has started, the end of its time slice). Call again, at the
 * earliest at `wakeAtMs` of Clock.monotonicMs (null: only an event ends it); the same KVM_RUN goes on, so
 * kvm_run is not looked at anew. A `wakeAtMs` that is not in the future means the vCPU can run on at once.
 */
export type RunOutcome =
  | { readonly ret: number; readonly blocked?: undefined }
  | { readonly blocked: true; readonly wakeAtMs: number | null; readonly ret?: undefined };

export interface VmName {
  readonly id: number;
  /** Name of the process that created the VM. */
  readonly name: string;
}

/** Makes the code of a vCPU; called at the first VMRUN of a VMSA page, with the page as the guest sees it. */
export type EngineFactory = (vm: VmName, vcpuId: number, vmsa: Uint8Array) => VcpuEngine;

/** Steps 2 and 4 of an attestation request, in the form Tracer.emit takes. */
export interface KvmEvent {
  readonly vm: VmName;
  readonly vcpu: number;
  readonly step: Extract<TraceStep, 'ext-guest-request' | 'complete-req-certs'>;
  readonly decided: string;
  readonly detail: Readonly<Record<string, TraceValue>>;
}

export type KvmEvents = (event: KvmEvent) => void;
