// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpPageReclaim } from '../../abi/snp-commands.ts';
import { PAGE_SIZE, PAGES_PER_2M, type Pfn } from '../../lib/addresses.ts';
import { isAligned, pageStateOf, RECLAIM_TRANSITIONS } from '../page-state.ts';
import type { Platform } from '../platform.ts';

/**
 * Gives a page that firmware holds back towards the hypervisor. [SNP-ABI] SNP_PAGE_RECLAIM
 *
 * Returns  SEV_RET_INVALID_PAGE_STATE for a page firmware does not hold; SEV_RET_INVALID_PAGE_SIZE when the entry
 *          is of the other size
 */
export function snpPageReclaim(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpPageReclaim);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const page = sizedPage(platform, buffer.paddr);
  if (typeof page === 'number') {
    return page;
  }
  const { rmp } = platform.hw;
  const entry = rmp.lookup(page.pfn);
  const next = RECLAIM_TRANSITIONS[pageStateOf(entry)];
  if (next === undefined) {
    return SevRet.SEV_RET_INVALID_PAGE_STATE;
  }
  if (entry.pagesize !== page.pagesize) {
    return SevRet.SEV_RET_INVALID_PAGE_SIZE;
  }
  rmp.store(page.pfn, { ...entry, immutable: false });
  return SevRet.SEV_RET_SUCCESS;
}

/** Reads a page address that carries the page size in bit 0. */
function sizedPage(
  platform: Platform,
  paddr: bigint,
): { readonly pfn: Pfn; readonly pagesize: 0 | 1 } | SevStatus {
  const pagesize = Number(paddr & 1n) as 0 | 1;
  const address = paddr & ~1n;
  if (!isAligned(address)) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const size = pagesize === 1 ? PAGES_PER_2M * PAGE_SIZE : PAGE_SIZE;
  return isAligned(address, size) && platform.hw.memory.contains(address, size)
    ? { pfn: Number(address >> 12n) as Pfn, pagesize }
    : SevRet.SEV_RET_INVALID_ADDRESS;
}
