// SPDX-License-Identifier: Apache-2.0
/**
 * VMGEXIT: which protocol, is the page registered, is the event known and complete, and who handles it.
 *
 * Source   [GHCB] "Which protocol is used", "Generic validation", "Table of accepted exit codes";
 *          [LINUX] svm/sev.c sev_handle_vmgexit, sev_es_validate_vmgexit
 */
import { Errno } from '../../abi/errno.ts';
import {
  ApCreation,
  GHCB_DEFAULT_USAGE,
  GhcbExit,
  type GhcbField,
  type GhcbMalformed,
} from '../../abi/ghcb.ts';
import { GuestException, VECTOR_GP, VECTOR_UD } from '../../abi/guest-ops.ts';
import type { Vcpu } from '../vcpu.ts';
import { apCreation } from './ap-creation.ts';
import { apJumpTable } from './ap-jump-table.ts';
import { apResetHoldPage } from './ap-reset-hold.ts';
import { cpuidEvent } from './cpuid-event.ts';
import { extGuestRequest, guestRequest } from './guest-request.ts';
import { HV_FEATURES } from './hv-features.ts';
import { ioioEvent, isIoIn, isStringIo } from './ioio.ts';
import { type GhcbMapping, isValid, malformed, mapGhcb, RESUME, succeed } from './mapping.ts';
import { mmioRead, mmioWrite } from './mmio.ts';
import { msrEvent } from './msr-event.ts';
import { msrProtocol } from './msr-protocol.ts';
import { pageStateChange } from './page-state-change.ts';
import { terminationEvent, unexpectedExit } from './termination.ts';
import { vmmcallEvent } from './vmmcall.ts';

/** CPUID function whose answer depends on XCR0. */
const CPUID_XSTATE = 0xdn;

/** Handles an event. Answers RESUME, EXIT or an errno. */
type Handler = (vcpu: Vcpu, ghcb: GhcbMapping) => number;

interface EventRow {
  readonly handle: Handler;
  /** Fields the guest must have filled, beside the exit code and infos. */
  readonly needs?: readonly GhcbField[];
  /** Further conditions; false: GHCB_ERR_MISSING_INPUT. */
  readonly accepts?: (vcpu: Vcpu, ghcb: GhcbMapping) => boolean;
}

const resume: Handler = () => RESUME;

const raises =
  (vector: number): Handler =>
  (vcpu) => {
    vcpu.exception = new GuestException(vector, 0);
    return RESUME;
  };

const isSnp = (vcpu: Vcpu): boolean => vcpu.vm.sev.snp;

/** Request and response are two different pages. */
const hasRequestPages = (vcpu: Vcpu, { exitInfo1, exitInfo2 }: GhcbMapping): boolean =>
  isSnp(vcpu) && ((exitInfo1 | exitInfo2) & 0xfffn) === 0n && exitInfo1 !== exitInfo2;

/** Every event KVM accepts. [GHCB] table 7.1 */
const EVENTS: ReadonlyMap<number, EventRow> = new Map<number, EventRow>([
  // Debug registers are swapped by the processor or not there at all.
  [GhcbExit.SVM_EXIT_READ_DR7, { handle: resume }],
  [GhcbExit.SVM_EXIT_WRITE_DR7, { handle: resume, needs: ['rax'] }],
  [GhcbExit.SVM_EXIT_RDTSC, { handle: unexpectedExit }],
  // There is no virtual PMU: each counter is one that does not exist.
  [GhcbExit.SVM_EXIT_RDPMC, { handle: raises(VECTOR_GP), needs: ['rcx'] }],
  [
    GhcbExit.SVM_EXIT_CPUID,
    {
      handle: cpuidEvent,
      needs: ['rax', 'rcx'],
      accepts: (vcpu, ghcb) => vcpu.shadow.rax !== CPUID_XSTATE || isValid(ghcb, 'xcr0'),
    },
  ],
  [GhcbExit.SVM_EXIT_INVD, { handle: resume }],
  [
    GhcbExit.SVM_EXIT_IOIO,
    {
      handle: ioioEvent,
      accepts: (_, ghcb) =>
        isStringIo(ghcb) ? isValid(ghcb, 'sw_scratch') : isIoIn(ghcb) || isValid(ghcb, 'rax'),
    },
  ],
  [
    GhcbExit.SVM_EXIT_MSR,
    {
      handle: msrEvent,
      needs: ['rcx'],
      accepts: (_, ghcb) => ghcb.exitInfo1 === 0n || (isValid(ghcb, 'rax') && isValid(ghcb, 'rdx')),
    },
  ],
  [GhcbExit.SVM_EXIT_VMMCALL, { handle: vmmcallEvent, needs: ['rax', 'cpl'] }],
  [GhcbExit.SVM_EXIT_RDTSCP, { handle: raises(VECTOR_UD) }],
  [GhcbExit.SVM_EXIT_WBINVD, { handle: resume }],
  [GhcbExit.SVM_EXIT_MONITOR, { handle: resume, needs: ['rax', 'rcx', 'rdx'] }],
  [GhcbExit.SVM_EXIT_MWAIT, { handle: resume, needs: ['rax', 'rcx'] }],
  [GhcbExit.SVM_VMGEXIT_MMIO_READ, { handle: mmioRead, needs: ['sw_scratch'] }],
  [GhcbExit.SVM_VMGEXIT_MMIO_WRITE, { handle: mmioWrite, needs: ['sw_scratch'] }],
  [GhcbExit.SVM_VMGEXIT_NMI_COMPLETE, { handle: resume }],
  [GhcbExit.SVM_VMGEXIT_AP_HLT_LOOP, { handle: apResetHoldPage }],
  [GhcbExit.SVM_VMGEXIT_AP_JUMP_TABLE, { handle: apJumpTable }],
  [GhcbExit.SVM_VMGEXIT_PSC, { handle: pageStateChange, needs: ['sw_scratch'], accepts: isSnp }],
  [GhcbExit.SVM_VMGEXIT_GUEST_REQUEST, { handle: guestRequest, accepts: hasRequestPages }],
  [GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST, { handle: extGuestRequest, accepts: hasRequestPages }],
  [
    GhcbExit.SVM_VMGEXIT_AP_CREATION,
    {
      handle: apCreation,
      accepts: (vcpu, ghcb) =>
        isSnp(vcpu) &&
        ((ghcb.exitInfo1 & 0xffff_ffffn) === BigInt(ApCreation.SVM_VMGEXIT_AP_DESTROY) ||
          isValid(ghcb, 'rax')),
    },
  ],
  [GhcbExit.SVM_VMGEXIT_HV_FEATURES, { handle: (vcpu, ghcb) => succeed(vcpu, ghcb, BigInt(HV_FEATURES)) }],
  [GhcbExit.SVM_VMGEXIT_TERM_REQUEST, { handle: terminationEvent }],
  [GhcbExit.SVM_VMGEXIT_UNSUPPORTED_EVENT, { handle: () => -Errno.EINVAL }],
]);

/** What the guest's VMGEXIT comes to: RESUME, EXIT or an errno. */
export function handleVmgexit(vcpu: Vcpu): number {
  const gpa = vcpu.ghcbMsr;
  if ((gpa & 0xfffn) !== 0n) {
    return msrProtocol(vcpu);
  }
  if (gpa === 0n) {
    return RESUME;
  }
  const ghcb = mapGhcb(vcpu, gpa);
  if (ghcb === null) {
    return RESUME;
  }
  vcpu.ghcb = ghcb;
  if (vcpu.vm.sev.snp && gpa !== vcpu.registeredGhcb) {
    return -Errno.EINVAL;
  }
  // Compared as 64 bits: a code with anything in its upper half is none of them.
  const row = ghcb.exitCode < 2n ** 32n ? EVENTS.get(Number(ghcb.exitCode)) : undefined;
  const wrong = objection(vcpu, ghcb, row);
  if (wrong !== null || row === undefined) {
    return malformed(vcpu, ghcb, wrong ?? 'GHCB_ERR_INVALID_EVENT');
  }
  succeed(vcpu, ghcb, 0n);
  return row.handle(vcpu, ghcb);
}

/** Why an event is not even looked at; null when it may be handled. */
function objection(
  vcpu: Vcpu,
  ghcb: GhcbMapping,
  row: EventRow | undefined,
): keyof typeof GhcbMalformed | null {
  if (ghcb.usage !== GHCB_DEFAULT_USAGE) {
    return 'GHCB_ERR_INVALID_USAGE';
  }
  const complete =
    isValid(ghcb, 'sw_exit_code') && isValid(ghcb, 'sw_exit_info_1') && isValid(ghcb, 'sw_exit_info_2');
  if (!complete) {
    return 'GHCB_ERR_MISSING_INPUT';
  }
  if (row === undefined) {
    return 'GHCB_ERR_INVALID_EVENT';
  }
  const needs = row.needs ?? [];
  const accepted = needs.every((field) => isValid(ghcb, field)) && (row.accepts?.(vcpu, ghcb) ?? true);
  return accepted ? null : 'GHCB_ERR_MISSING_INPUT';
}
