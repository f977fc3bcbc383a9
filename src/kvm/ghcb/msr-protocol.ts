// SPDX-License-Identifier: Apache-2.0
/**
 * What a guest says in the GHCB MSR itself.
 *
 * Source   [GHCB] "KVM behaviour per request", "MSR page state change"
 */
import { GHCB_PROTOCOL_MIN } from '../../abi/ghcb.ts';
import {
  GHCB_MSR_AP_RESET_HOLD_REQ,
  GHCB_MSR_CPUID_REQ,
  GHCB_MSR_GFN_NONE,
  GHCB_MSR_HV_FT_REQ,
  GHCB_MSR_PREF_GPA_REQ,
  GHCB_MSR_PSC_REQ,
  GHCB_MSR_PSC_RESP,
  GHCB_MSR_REG_GPA_REQ,
  GHCB_MSR_REG_GPA_RESP,
  GHCB_MSR_SEV_INFO_REQ,
  GHCB_MSR_TERM_REQ,
  GhcbMsrCpuidReq,
  GhcbMsrPscReq,
  ghcbMsrCode,
  ghcbMsrCpuidResp,
  ghcbMsrHvFtResp,
  ghcbMsrPrefGpaResp,
  ghcbMsrPscResp,
  ghcbMsrSevInfoResp,
} from '../../abi/ghcb-msr.ts';
import { KvmHypercall } from '../../abi/kvm.ts';
import { KvmRunHypercall } from '../../abi/kvm-run.ts';
import { PscOp } from '../../abi/psc.ts';
import { exitForMapGpaRange } from '../hypercall-exit.ts';
import type { Vcpu } from '../vcpu.ts';
import { apResetHoldMsr } from './ap-reset-hold.ts';
import { HV_FEATURES } from './hv-features.ts';
import { EXIT, RESUME } from './mapping.ts';
import { sevTermExit } from './termination.ts';

/** Error for a page state change that was not made: bit 63 of the answer. */
const PSC_ERROR = 0x8000_0000;

export function msrProtocol(vcpu: Vcpu): number {
  const request = vcpu.ghcbMsr;
  const { sev, services } = vcpu.vm;
  switch (ghcbMsrCode(request)) {
    case GHCB_MSR_SEV_INFO_REQ:
      return answer(vcpu, ghcbMsrSevInfoResp(sev.ghcbVersion, GHCB_PROTOCOL_MIN, services.asids.cpu.cBit));
    case GHCB_MSR_CPUID_REQ:
      return answer(vcpu, ghcbMsrCpuidResp(request, cpuidRegister(vcpu, request)));
    case GHCB_MSR_AP_RESET_HOLD_REQ:
      return apResetHoldMsr(vcpu);
    case GHCB_MSR_HV_FT_REQ:
      return answer(vcpu, ghcbMsrHvFtResp(HV_FEATURES));
    case GHCB_MSR_PREF_GPA_REQ:
      return sev.snp ? answer(vcpu, ghcbMsrPrefGpaResp(GHCB_MSR_GFN_NONE)) : sevTermExit(vcpu, request);
    case GHCB_MSR_REG_GPA_REQ:
      return sev.snp ? registerGhcb(vcpu, request) : sevTermExit(vcpu, request);
    case GHCB_MSR_PSC_REQ:
      return sev.snp ? pageStateChangeMsr(vcpu, request) : sevTermExit(vcpu, request);
    case GHCB_MSR_TERM_REQ:
      return sevTermExit(vcpu, request);
    default:
      // Not a request KVM knows: the guest finds its own value and can tell.
      return RESUME;
  }
}

function answer(vcpu: Vcpu, response: bigint): number {
  vcpu.ghcbMsr = response;
  return RESUME;
}

function cpuidRegister(vcpu: Vcpu, request: bigint): number {
  const { fn, reg } = GhcbMsrCpuidReq.fromWord(request);
  const { shadow } = vcpu;
  const result = vcpu.cpuid.execute(fn, 0, shadow.xcr0);
  const values = [result.eax, result.ebx, result.ecx, result.edx] as const;
  shadow.rax = BigInt(result.eax);
  shadow.rbx = BigInt(result.ebx);
  shadow.rcx = BigInt(result.ecx);
  shadow.rdx = BigInt(result.edx);
  return values[reg]!;
}

/** Any address will do: a page that is not there shows when it is used. */
function registerGhcb(vcpu: Vcpu, request: bigint): number {
  vcpu.registeredGhcb = request & ~0xfffn;
  return answer(vcpu, vcpu.registeredGhcb | BigInt(GHCB_MSR_REG_GPA_RESP));
}

function pageStateChangeMsr(vcpu: Vcpu, request: bigint): number {
  const { gfn, operation } = GhcbMsrPscReq.fromWord(request);
  const isPrivate = operation === PscOp.SNP_PAGE_STATE_PRIVATE;
  const known = isPrivate || operation === PscOp.SNP_PAGE_STATE_SHARED;
  if (!known || !vcpu.vm.exitsOnHypercall(KvmHypercall.KVM_HC_MAP_GPA_RANGE)) {
    return answer(vcpu, ghcbMsrPscResp(PSC_ERROR));
  }
  exitForMapGpaRange(vcpu, { gfn, npages: 1, isPrivate, is2M: false });
  vcpu.completion = () => {
    const failed = KvmRunHypercall.get(vcpu.run, 'ret') !== 0n;
    return answer(vcpu, failed ? ghcbMsrPscResp(PSC_ERROR) : BigInt(GHCB_MSR_PSC_RESP));
  };
  return EXIT;
}
