// SPDX-License-Identifier: Apache-2.0
/** Why a VM runs no further. An SNP guest cannot be reset: every one of these is final. */
import { errnoName } from '../abi/errno.ts';
import { GHCB_MSR_TERM_REQ, GhcbMsrTermReq, ghcbMsrCode, terminationName } from '../abi/ghcb-msr.ts';
import { kvmExitName } from '../abi/kvm.ts';

export type VmStop =
  /** The guest asked for it; set and code are known only when it used the MSR protocol. */
  | { readonly kind: 'terminated'; readonly reasonSet: number | null; readonly reasonCode: number | null }
  /** Triple fault, or guest code that ended. */
  | { readonly kind: 'shutdown' }
  /** KVM could not enter the guest: an invalid save area. */
  | { readonly kind: 'fail-entry'; readonly hardwareReason: bigint }
  /** KVM_RUN failed. */
  | { readonly kind: 'run-failed'; readonly errno: number }
  /** An exit this VMM has no answer to. */
  | { readonly kind: 'unhandled-exit'; readonly exitReason: number }
  /** The machine was told to stop. */
  | { readonly kind: 'closed' };

/** A VmStop and the vCPU it happened on; null when it was none of them. */
export interface VmEnd {
  readonly stop: VmStop;
  readonly vcpu: number | null;
}

/** Decodes the value KVM hands out with KVM_SYSTEM_EVENT_SEV_TERM. */
export function terminationOf(ghcbMsr: bigint): VmStop {
  if (ghcbMsrCode(ghcbMsr) !== GHCB_MSR_TERM_REQ) {
    return { kind: 'terminated', reasonSet: null, reasonCode: null };
  }
  const { reason_set: reasonSet, reason_code: reasonCode } = GhcbMsrTermReq.fromWord(ghcbMsr);
  return { kind: 'terminated', reasonSet, reasonCode };
}

/** One sentence for people. */
export function formatStop({ stop, vcpu }: VmEnd): string {
  const where = vcpu === null ? '' : `vCPU ${vcpu}: `;
  switch (stop.kind) {
    case 'terminated':
      return stop.reasonSet === null || stop.reasonCode === null
        ? `${where}the guest asked to be terminated`
        : `${where}the guest asked to be terminated, reason ${terminationName(stop.reasonSet, stop.reasonCode)}`;
    case 'shutdown':
      return `${where}the guest shut down`;
    case 'fail-entry':
      return `${where}KVM could not enter the guest, reason 0x${stop.hardwareReason.toString(16)}`;
    case 'run-failed':
      return `${where}KVM_RUN failed with ${errnoName(stop.errno)}`;
    case 'unhandled-exit':
      return `${where}nobody answers ${kvmExitName(stop.exitReason)}`;
    case 'closed':
      return 'the machine was stopped';
  }
}
