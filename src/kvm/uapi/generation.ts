// SPDX-License-Identifier: Apache-2.0
/**
 * What differs between kernels that offer the same API. Everything else in this folder's parents is the
 * same for all of them.
 *
 * Source   [KVM] "K6.12 versus later kernels"
 */
import { KvmSevAttr } from '../../abi/kvm.ts';
import { VMGEXIT_PSC_MAX_ENTRY } from '../../abi/psc.ts';
import type { SnpFeatureInfoOut } from '../../abi/snp-commands.ts';
import type { ReqCerts } from './req-certs.ts';
import { reqCertsV7 } from './req-certs-v7.ts';

/** What the firmware of this host can enforce. */
export interface PolicySupport {
  readonly featureInfo: SnpFeatureInfoOut | null;
  /** (major << 8) | minor. */
  readonly apiVersion: number;
}

export interface KernelGeneration {
  readonly name: string;
  /** Attributes of KVM_X86_GRP_SEV that exist. */
  readonly sevAttributes: readonly number[];
  /** Policy bits SNP_LAUNCH_START accepts. */
  policyMask(support: PolicySupport): bigint;
  /** Policy bits SNP_LAUNCH_START demands. */
  readonly policyRequired: bigint;
  /** SNP_LAUNCH_UPDATE of 0 bytes succeeds. */
  readonly emptyLaunchUpdateAllowed: boolean;
  /** SNP_LAUNCH_FINISH excludes KVM_RUN and the other vCPU ioctls (CVE-2026-31591). */
  readonly launchFinishLocksVcpus: boolean;
  /** hypercall.ret is 0 at a KVM_EXIT_HYPERCALL rather than what it was before. */
  readonly hypercallRetZeroed: boolean;
  /** Bits of RAX that must equal the VM's vmsa_features in an AP creation. */
  readonly apFeaturesCompared: bigint;
  /** An AP whose new VMSA page cannot be found becomes RUNNABLE all the same. */
  readonly apRunnableWithoutVmsa: boolean;
  /** Entries of a page state change, beside what the scratch area holds. */
  readonly pscMaxEntries: number;
  /** How userspace is asked for certificates; null: the guest always gets an empty table. */
  readonly reqCerts: ReqCerts | null;
}

const POLICY_ABI = 0xffffn;
const POLICY_SMT = 1n << 16n;
const POLICY_RSVD_MBO = 1n << 17n;
const POLICY_DEBUG = 1n << 19n;
const POLICY_SINGLE_SOCKET = 1n << 20n;
const POLICY_CXL_ALLOW = 1n << 21n;
const POLICY_MEM_AES_256_XTS = 1n << 22n;
const POLICY_RAPL_DIS = 1n << 23n;
const POLICY_CIPHERTEXT_HIDING_DRAM = 1n << 24n;
const POLICY_PAGE_SWAP_DISABLE = 1n << 25n;

/** First API with the PAGE_SWAP_DISABLE policy: 1.58. */
const API_PAGE_SWAP_DISABLE = 0x013a;

/** Restricted and alternate injection. */
const INJECTION_FEATURES = 0x18n;
const ALL_FEATURES = 0xffff_ffff_ffff_ffffn;

/** Linux 6.12. */
export const KVM_6_12: KernelGeneration = Object.freeze({
  name: 'Linux 6.12',
  sevAttributes: [KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES],
  policyMask: () => POLICY_ABI | POLICY_SMT | POLICY_RSVD_MBO | POLICY_DEBUG,
  policyRequired: POLICY_RSVD_MBO | POLICY_SMT,
  emptyLaunchUpdateAllowed: true,
  launchFinishLocksVcpus: false,
  hypercallRetZeroed: false,
  apFeaturesCompared: INJECTION_FEATURES,
  apRunnableWithoutVmsa: true,
  pscMaxEntries: Number.MAX_SAFE_INTEGER,
  reqCerts: null,
});

/** kvm/next of January 2026 with the certificate-fetching series v7 on top. */
export const KVM_2026_CERTS_V7: KernelGeneration = Object.freeze({
  name: 'kvm/next 2026-01 with certificate fetching v7',
  sevAttributes: [
    KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES,
    KvmSevAttr.KVM_X86_SNP_POLICY_BITS,
    KvmSevAttr.KVM_X86_SEV_SNP_REQ_CERTS,
  ],
  policyMask: ({ featureInfo, apiVersion }: PolicySupport) => {
    let mask = POLICY_ABI | POLICY_SMT | POLICY_RSVD_MBO | POLICY_DEBUG | POLICY_SINGLE_SOCKET;
    if (featureInfo !== null) {
      mask |= featureInfo.ecx.cxl_allow === 1 ? POLICY_CXL_ALLOW : 0n;
      mask |= featureInfo.ecx.mem_aes_256_xts === 1 ? POLICY_MEM_AES_256_XTS : 0n;
      mask |= featureInfo.ecx.rapl_dis === 1 ? POLICY_RAPL_DIS : 0n;
      mask |= featureInfo.ecx.ciphertext_hiding_dram === 1 ? POLICY_CIPHERTEXT_HIDING_DRAM : 0n;
      mask |= apiVersion >= API_PAGE_SWAP_DISABLE ? POLICY_PAGE_SWAP_DISABLE : 0n;
    }
    return mask;
  },
  policyRequired: POLICY_RSVD_MBO,
  emptyLaunchUpdateAllowed: false,
  launchFinishLocksVcpus: true,
  hypercallRetZeroed: true,
  apFeaturesCompared: ALL_FEATURES,
  apRunnableWithoutVmsa: false,
  pscMaxEntries: VMGEXIT_PSC_MAX_ENTRY,
  reqCerts: reqCertsV7,
});
