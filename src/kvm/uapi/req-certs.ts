// SPDX-License-Identifier: Apache-2.0
/**
 * How a kernel asks userspace for the certificates that go with an attestation report. Each generation of
 * the API is one implementation: how the exit looks, and what its answer means.
 */

/** The guest's buffer for certificates: RAX and RBX of the extended guest request. */
export interface CertsRequest {
  readonly gpa: bigint;
  readonly npages: bigint;
}

/** What the answer in kvm_run comes to. */
export type CertsAnswer =
  /** The certificates are in guest memory: on to the firmware. */
  | { readonly kind: 'proceed' }
  /** SW_EXITINFO2 := vmm_error << 32; RBX too where the guest is told how many pages it takes. */
  | { readonly kind: 'guest-error'; readonly vmmError: number; readonly npages?: bigint }
  /** KVM_RUN fails. */
  | { readonly kind: 'errno'; readonly errno: number };

export interface ReqCerts {
  /** Messages of these types only are worth an exit; null: every extended request. */
  readonly messageTypes: readonly number[] | null;
  /** Fills kvm_run, exit_reason included. */
  begin(run: Uint8Array, request: CertsRequest): void;
  /** Reads userspace's answer, each field once. `userRet` is what it wrote, for the trace. */
  answer(run: Uint8Array): { readonly userRet: bigint; readonly answer: CertsAnswer };
}
