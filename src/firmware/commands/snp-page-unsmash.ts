// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpPageUnsmash } from '../../abi/snp-commands.ts';
import { PAGE_SIZE, PAGES_PER_2M, type Pfn } from '../../lib/addresses.ts';
import { isAligned } from '../page-state.ts';
import type { Platform } from '../platform.ts';

/**
 * Joins the 512 entries of a 2 MiB region into one. [SNP-ABI] SNP_PAGE_UNSMASH
 *
 * Returns  SEV_RET_INVALID_PAGE_SIZE when it is one already; SEV_RET_INVALID_PAGE_STATE when the entries are not
 *          pages of one guest, in order, alike in everything
 */
export function snpPageUnsmash(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpPageUnsmash);
  if (typeof buffer === 'number') {
    return buffer;
  }
  // The result has one size, so bit 0 says nothing.
  const address = buffer.paddr & ~1n;
  const size = PAGES_PER_2M * PAGE_SIZE;
  if (!isAligned(address, size) || !platform.hw.memory.contains(address, size)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const { rmp } = platform.hw;
  const first = Number(address >> 12n) as Pfn;
  const entry = rmp.lookup(first);
  if (entry.pagesize === 1) {
    return SevRet.SEV_RET_INVALID_PAGE_SIZE;
  }
  const joinable = entry.assigned && entry.asid !== 0 && !entry.vmsa && entry.gfn % PAGES_PER_2M === 0;
  if (!joinable) {
    return SevRet.SEV_RET_INVALID_PAGE_STATE;
  }
  for (let i = 1; i < PAGES_PER_2M; i++) {
    const other = rmp.lookup((first + i) as Pfn);
    const alike =
      other.assigned &&
      other.asid === entry.asid &&
      other.gfn === entry.gfn + i &&
      other.immutable === entry.immutable &&
      other.validated === entry.validated &&
      !other.vmsa &&
      other.perms.every((perm, vmpl) => perm === entry.perms[vmpl]);
    if (!alike) {
      return SevRet.SEV_RET_INVALID_PAGE_STATE;
    }
  }
  rmp.store(first, { ...entry, pagesize: 1 });
  return SevRet.SEV_RET_SUCCESS;
}
