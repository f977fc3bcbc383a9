// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpGuestStatus, SnpGuestState, SnpGuestStatusOut } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';

/** Policy, ASID and state of a guest. [SNP-ABI] SNP_GUEST_STATUS */
export function snpGuestStatus(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpGuestStatus);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_GUEST_STATUS');
  if (typeof guest === 'number') {
    return guest;
  }
  const refused = platform.checkOutput(buffer.status_paddr, SnpGuestStatusOut.size);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  platform.deliver(
    buffer.status_paddr,
    SnpGuestStatusOut.encode({ policy: guest.policy, asid: guest.asid, state: SnpGuestState[guest.state] }),
  );
  return SevRet.SEV_RET_SUCCESS;
}
