// SPDX-License-Identifier: Apache-2.0
/** Model-specific registers of SEV. [APM2] "SEV_STATUS MSR" and appendix A; Linux asm/msr-index.h. */
import { bits64 } from '../lib/struct.ts';

export const Msr = Object.freeze({
  MSR_AMD64_SYSCFG: 0xc0010010,
  MSR_AMD64_VM_PAGE_FLUSH: 0xc001011e,
  MSR_AMD64_SEV_ES_GHCB: 0xc0010130,
  MSR_AMD64_SEV: 0xc0010131,
  MSR_AMD64_RMP_BASE: 0xc0010132,
  MSR_AMD64_RMP_END: 0xc0010133,
  /** A convention of SVSM guests, not a register of the CPU. */
  MSR_SVSM_CAA: 0xc001f000,
} as const);

/** MSR_AMD64_SEV (SEV_STATUS). Bit n + 2 is bit n of a VMSA's `sev_features`. */
export const SevStatusMsr = bits64(
  {
    sev: [0, 1],
    sev_es: [1, 1],
    sev_snp: [2, 1],
    vtom: [3, 1],
    reflect_vc: [4, 1],
    restricted_injection: [5, 1],
    alternate_injection: [6, 1],
    debug_swap: [7, 1],
    prevent_host_ibs: [8, 1],
    btb_isolation: [9, 1],
    vmpl_sss: [10, 1],
    secure_tsc: [11, 1],
    vmgexit_parameter: [12, 1],
    ibs_virtualization: [14, 1],
    vmsa_reg_prot: [16, 1],
    smt_protection: [17, 1],
    ibpb_on_entry: [23, 1],
  },
  [],
  'ignore',
);
export type SevStatusMsr = ReturnType<typeof SevStatusMsr.fromWord>;

/** MSR_AMD64_SYSCFG, the bits that SEV needs. */
export const SyscfgMsr = bits64(
  { mfdm: [19, 1], sme_en: [23, 1], snp_en: [24, 1], snp_vmpl_en: [25, 1] },
  [],
  'ignore',
);
export type SyscfgMsr = ReturnType<typeof SyscfgMsr.fromWord>;
