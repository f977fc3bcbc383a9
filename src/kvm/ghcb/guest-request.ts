// SPDX-License-Identifier: Apache-2.0
/**
 * Guest messages to the firmware, and the certificates an extended request asks for.
 *
 * Messages pass through two pages of the VM, so that neither the guest nor the firmware sees the other's
 * memory: the request is copied once, right before the firmware reads it.
 *
 * Source   [GHCB] "SNP guest request and extended guest request"; [KVM-CERTS-V7] patch 1/2
 */
import { Errno, errnoName } from '../../abi/errno.ts';
import { snpGuestErr } from '../../abi/ghcb.ts';
import { GuestMessageHeader, SnpMsg } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { SevCmd, SevDataSnpGuestRequest } from '../../abi/snp-commands.ts';
import { isPageAligned, PAGE_SIZE, spaOf } from '../../lib/addresses.ts';
import { writeU64 } from '../../lib/bytes.ts';
import { invariant } from '../../lib/errors.ts';
import type { TraceValue } from '../../lib/trace.ts';
import { issueWithFd } from '../sev/sev-op.ts';
import type { ReqCerts } from '../uapi/req-certs.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping, isValid, malformed, succeed } from './mapping.ts';

const MSG_TYPE_OFFSET = BigInt(GuestMessageHeader.offsetOf('msg_type'));
/** Filled anew for each request: its three fields are all of it. */
const COMMAND = new Uint8Array(SevDataSnpGuestRequest.size);
const GCTX_PADDR = SevDataSnpGuestRequest.offsetOf('gctx_paddr');
const REQ_PADDR = SevDataSnpGuestRequest.offsetOf('req_paddr');
const RSP_PADDR = SevDataSnpGuestRequest.offsetOf('rsp_paddr');
/** An empty certificate table: its terminator. */
const EMPTY_TABLE = new Uint8Array(24);

/** SNP guest request. */
export function guestRequest(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const { vm } = vcpu;
  const { sev, services, memory } = vm;
  const { frames } = services;
  const { context, requestPage, responsePage } = sev;
  invariant(
    context !== null && requestPage !== null && responsePage !== null,
    'a guest runs without its context or bounce pages',
  );
  const { message } = sev;
  if (!memory.readSharedInto(message, ghcb.exitInfo1)) {
    return -Errno.EIO;
  }
  frames.write(requestPage, 0, message);
  const command = COMMAND;
  writeU64(command, GCTX_PADDR, spaOf(context));
  writeU64(command, REQ_PADDR, spaOf(requestPage));
  writeU64(command, RSP_PADDR, spaOf(responsePage));
  const result = issueWithFd(vm, vm.owner, sev.fd, SevCmd.SEV_CMD_SNP_GUEST_REQUEST, command);
  const status = result.status ?? SevRet.SEV_RET_SUCCESS;
  if (result.errno !== 0 && status === SevRet.SEV_RET_SUCCESS) {
    return result.errno;
  }
  // The firmware's refusals are the guest's business; it gets the page as it is.
  frames.readInto(message, 0, responsePage, 0, PAGE_SIZE);
  if (!memory.writeShared(ghcb.exitInfo2, message)) {
    return -Errno.EIO;
  }
  return succeed(vcpu, ghcb, snpGuestErr(0, status));
}

/** SNP extended guest request: a guest request with room for certificates. */
export function extGuestRequest(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const { memory, services, sev } = vcpu.vm;
  const type = memory.readShared(ghcb.exitInfo1 + MSG_TYPE_OFFSET, 1);
  if (type === null) {
    return -Errno.EIO;
  }
  const msgType = type[0]!;
  const { rax: gpa, rbx: npages } = vcpu.shadow;
  const trace = (decided: string): void => {
    emit(vcpu, 'ext-guest-request', decided, () => ({
      msg_type: msgType,
      gpa: hex(gpa),
      npages: hex(npages),
    }));
  };
  if (msgType !== SnpMsg.SNP_MSG_REPORT_REQ) {
    trace('no certificates go with this message: straight to the firmware');
    return guestRequest(vcpu, ghcb);
  }
  if (!isValid(ghcb, 'rax') || !isValid(ghcb, 'rbx') || !isPageAligned(gpa)) {
    trace('RAX or RBX missing, or RAX not page aligned: GHCB_ERR_INVALID_INPUT');
    return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
  }
  const { reqCerts } = services.generation;
  if (sev.certsEnabled && reqCerts !== null) {
    trace('exit to userspace: KVM_EXIT_SNP_REQ_CERTS');
    reqCerts.begin(vcpu.run, { gpa, npages });
    vcpu.completion = () => completeReqCerts(vcpu, ghcb, reqCerts);
    return EXIT;
  }
  trace('certificates are not enabled for this VM: empty table, then the firmware');
  if (npages !== 0n && !memory.writeShared(gpa, EMPTY_TABLE)) {
    return -Errno.EIO;
  }
  return guestRequest(vcpu, ghcb);
}

/** What userspace made of the request for certificates. */
function completeReqCerts(vcpu: Vcpu, ghcb: GhcbMapping, reqCerts: ReqCerts): number {
  const { userRet, answer } = reqCerts.answer(vcpu.run);
  const detail = () => ({ ret: hex(userRet), sw_exit_info_2: null, rbx: hex(vcpu.shadow.rbx) });
  switch (answer.kind) {
    case 'proceed':
      emit(vcpu, 'complete-req-certs', 'certificates are in place: on to the firmware', detail);
      return guestRequest(vcpu, ghcb);
    case 'guest-error': {
      const exitInfo2 = snpGuestErr(answer.vmmError, 0);
      vcpu.shadow.rbx = answer.npages ?? vcpu.shadow.rbx;
      emit(vcpu, 'complete-req-certs', 'no report: the guest is told why', () => ({
        ...detail(),
        sw_exit_info_2: hex(exitInfo2),
      }));
      return succeed(vcpu, ghcb, exitInfo2);
    }
    case 'errno':
      emit(
        vcpu,
        'complete-req-certs',
        `not an answer: KVM_RUN fails with ${errnoName(answer.errno)}`,
        detail,
      );
      return -answer.errno;
  }
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

function emit(
  vcpu: Vcpu,
  step: 'ext-guest-request' | 'complete-req-certs',
  decided: string,
  detail: () => Readonly<Record<string, TraceValue>>,
): void {
  const { vm, id } = vcpu;
  vm.services.onEvent?.({ vm: vm.name, vcpu: id, step, decided, detail: detail() });
}
