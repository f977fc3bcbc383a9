// SPDX-License-Identifier: Apache-2.0
import { KvmExit, KvmHypercall, KvmMapGpaRange } from '../abi/kvm.ts';
import { KvmRun, KvmRunHypercall } from '../abi/kvm-run.ts';
import { writeU64 } from '../lib/bytes.ts';
import type { Vcpu } from './vcpu.ts';

const ARGS_OFFSET = KvmRunHypercall.offsetOf('args');

/** Pages whose state the guest wants changed. */
export interface MapGpaRange {
  readonly gfn: number;
  /** In 4 KiB pages. */
  readonly npages: number;
  readonly isPrivate: boolean;
  /** The guest asked in 2 MiB pages. */
  readonly is2M: boolean;
}

/**
 * Fills KVM_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE; args 3 to 5 and flags stay as they were.
 *
 * Source   [KVM] "Page state change upstream"
 */
export function exitForMapGpaRange(vcpu: Vcpu, { gfn, npages, isPrivate, is2M }: MapGpaRange): void {
  const { run } = vcpu;
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_HYPERCALL);
  KvmRunHypercall.set(run, 'nr', BigInt(KvmHypercall.KVM_HC_MAP_GPA_RANGE));
  writeU64(run, ARGS_OFFSET, BigInt(gfn) << 12n);
  writeU64(run, ARGS_OFFSET + 8, BigInt(npages));
  writeU64(
    run,
    ARGS_OFFSET + 16,
    BigInt(
      (isPrivate ? KvmMapGpaRange.KVM_MAP_GPA_RANGE_ENCRYPTED : KvmMapGpaRange.KVM_MAP_GPA_RANGE_DECRYPTED) |
        (is2M ? KvmMapGpaRange.KVM_MAP_GPA_RANGE_PAGE_SZ_2M : KvmMapGpaRange.KVM_MAP_GPA_RANGE_PAGE_SZ_4K),
    ),
  );
  if (vcpu.vm.services.generation.hypercallRetZeroed) {
    KvmRunHypercall.set(run, 'ret', 0n);
  }
}
