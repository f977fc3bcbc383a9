// SPDX-License-Identifier: Apache-2.0
import { GuestPolicy } from '../../abi/guest-policy.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpDbg } from '../../abi/snp-commands.ts';
import { type Asid, PAGE_SIZE, pfnOf, type Spa } from '../../lib/addresses.ts';
import type { GuestContext } from '../guest-context.ts';
import type { Platform } from '../platform.ts';
import type { GuestCmdName } from '../states.ts';

const HOST = 0 as Asid;

/**
 * Copies a page of a debuggable guest out in clear. [SNP-ABI] SNP_DBG_DECRYPT
 *
 * Returns  SEV_RET_POLICY_FAILURE unless the policy allows debugging; SEV_RET_INVALID_PAGE_OWNER when the source
 *          is not the guest's
 */
export function snpDbgDecrypt(platform: Platform, bufferAt: bigint): SevStatus {
  const request = debugRequest(platform, bufferAt, 'SEV_CMD_SNP_DBG_DECRYPT');
  if (typeof request === 'number') {
    return request;
  }
  const { guest, from, to } = request;
  if (!owns(platform, guest, from)) {
    return SevRet.SEV_RET_INVALID_PAGE_OWNER;
  }
  const refused = platform.checkOutput(to, PAGE_SIZE);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  platform.deliver(to, platform.hw.memory.read(from, PAGE_SIZE, guest.asid));
  return SevRet.SEV_RET_SUCCESS;
}

/** Writes a page of a debuggable guest. [SNP-ABI] SNP_DBG_ENCRYPT */
export function snpDbgEncrypt(platform: Platform, bufferAt: bigint): SevStatus {
  const request = debugRequest(platform, bufferAt, 'SEV_CMD_SNP_DBG_ENCRYPT');
  if (typeof request === 'number') {
    return request;
  }
  const { guest, from, to } = request;
  if (!owns(platform, guest, to)) {
    return SevRet.SEV_RET_INVALID_PAGE_OWNER;
  }
  const { memory } = platform.hw;
  memory.write(to, memory.read(from, PAGE_SIZE, HOST), guest.asid);
  return SevRet.SEV_RET_SUCCESS;
}

function debugRequest(
  platform: Platform,
  bufferAt: bigint,
  command: GuestCmdName,
): { readonly guest: GuestContext; readonly from: Spa; readonly to: Spa } | SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpDbg);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, command);
  if (typeof guest === 'number') {
    return guest;
  }
  if (!platform.isPage(buffer.src_paddr) || !platform.isPage(buffer.dst_paddr)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  if (GuestPolicy.fromWord(guest.policy).debug === 0) {
    return SevRet.SEV_RET_POLICY_FAILURE;
  }
  return guest.asid === 0
    ? SevRet.SEV_RET_INACTIVE
    : { guest, from: buffer.src_paddr as Spa, to: buffer.dst_paddr as Spa };
}

function owns(platform: Platform, guest: GuestContext, page: Spa): boolean {
  return platform.hw.rmp.asidOf(pfnOf(page)) === guest.asid;
}
