// SPDX-License-Identifier: Apache-2.0
import { KvmExit, KvmInternalError, KvmSystemEvent } from '../../abi/kvm.ts';
import { KvmRun, KvmRunInternalError, KvmRunSystemEvent } from '../../abi/kvm-run.ts';
import { writeU64 } from '../../lib/bytes.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping } from './mapping.ts';

const SYSTEM_EVENT_DATA = KvmRunSystemEvent.offsetOf('data');
const INTERNAL_ERROR_DATA = KvmRunInternalError.offsetOf('data');

/** KVM_SYSTEM_EVENT_SEV_TERM; KVM itself does not stop the guest. */
export function sevTermExit(vcpu: Vcpu, data: bigint): number {
  const { run } = vcpu;
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_SYSTEM_EVENT);
  KvmRunSystemEvent.set(run, 'type', KvmSystemEvent.KVM_SYSTEM_EVENT_SEV_TERM);
  KvmRunSystemEvent.set(run, 'ndata', 1);
  writeU64(run, SYSTEM_EVENT_DATA, data);
  return EXIT;
}

/** Termination through the page: userspace learns where the GHCB is, not why. */
export function terminationEvent(vcpu: Vcpu, ghcb: GhcbMapping): number {
  return sevTermExit(vcpu, ghcb.gpa);
}

/** An event that passes validation but has no handler. */
export function unexpectedExit(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const { run } = vcpu;
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_INTERNAL_ERROR);
  KvmRunInternalError.set(run, 'suberror', KvmInternalError.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
  KvmRunInternalError.set(run, 'ndata', 2);
  writeU64(run, INTERNAL_ERROR_DATA, ghcb.exitCode);
  writeU64(run, INTERNAL_ERROR_DATA + 8, BigInt(LAST_CPU));
  return EXIT;
}

/** The physical CPU a vCPU last ran on: the model has one. */
export const LAST_CPU = 0;
