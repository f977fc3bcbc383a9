// SPDX-License-Identifier: Apache-2.0
import { KeySel } from '../abi/guest-message.ts';
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import type { GuestContext } from './guest-context.ts';
import type { Platform, Signer } from './platform.ts';

/**
 * The endorsement key a request gets.
 *
 * Returns  the key; 'none' where the chip key is masked; SEV_RET_INVALID_PARAM for the reserved KEY_SEL;
 *          SEV_RET_INVALID_KEY where the wanted key is not to be had
 * Source   [SNP-ABI] "MSG_REPORT_REQ" KEY_SEL, VCEK_DIS, MASK_CHIP_KEY
 */
export function selectKey(
  platform: Platform,
  guest: GuestContext,
  keySel: number,
): Signer | 'none' | SevStatus {
  if (keySel > KeySel.KEY_SEL_VLEK) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  if (keySel !== KeySel.KEY_SEL_VCEK) {
    const vlek = platform.signer('VLEK');
    if (vlek !== null) {
      return vlek;
    }
    if (keySel === KeySel.KEY_SEL_VLEK) {
      return SevRet.SEV_RET_INVALID_KEY;
    }
  }
  if (guest.vcekDis) {
    return SevRet.SEV_RET_INVALID_KEY;
  }
  return platform.maskChipKey ? 'none' : (platform.signer('VCEK') ?? SevRet.SEV_RET_INVALID_KEY);
}
