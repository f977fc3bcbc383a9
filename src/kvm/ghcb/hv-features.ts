// SPDX-License-Identifier: Apache-2.0
import { GHCB_HV_FT_SNP, GHCB_HV_FT_SNP_AP_CREATION } from '../../abi/ghcb.ts';

/** Features KVM offers, whatever the VM and in both protocols. */
export const HV_FEATURES = GHCB_HV_FT_SNP | GHCB_HV_FT_SNP_AP_CREATION;
