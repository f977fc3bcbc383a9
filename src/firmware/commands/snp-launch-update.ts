// SPDX-License-Identifier: Apache-2.0
import { PageType } from '../../abi/page-info.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpLaunchUpdate } from '../../abi/snp-commands.ts';
import { type Asid, gpaOf, PAGE_SIZE, PAGES_PER_2M, type Pfn, pfnOf, type Spa } from '../../lib/addresses.ts';
import { checkCpuidPage } from '../cpuid-policy.ts';
import type { GuestContext } from '../guest-context.ts';
import { extendLaunchDigest, type LaunchPerms } from '../launch-digest.ts';
import { isAligned, pageStateOf } from '../page-state.ts';
import type { Platform } from '../platform.ts';
import { secretsPage } from '../secrets-page.ts';

const HOST = 0 as Asid;
const UNMEASURED = new Uint8Array(48);

/** What each PAGE_TYPE puts into memory and into the digest. */
const PAGE_TYPES: Readonly<Record<number, { readonly large: boolean; readonly measured: boolean }>> = {
  [PageType.NORMAL]: { large: true, measured: true },
  [PageType.VMSA]: { large: false, measured: true },
  [PageType.ZERO]: { large: true, measured: false },
  [PageType.UNMEASURED]: { large: true, measured: false },
  [PageType.SECRETS]: { large: false, measured: false },
  [PageType.CPUID]: { large: false, measured: false },
};

/**
 * Encrypts one page into the guest and extends the launch digest. [SNP-ABI] SNP_LAUNCH_UPDATE
 *
 * Returns  SEV_RET_INVALID_PARAM for a reserved page type, 2 MiB of a type that has only 4 KiB pages, or a CPUID
 *          table that is not acceptable (the corrected one is then in the page); SEV_RET_INACTIVE without an ASID;
 *          SEV_RET_INVALID_PAGE_SIZE, SEV_RET_INVALID_PAGE_STATE, SEV_RET_INVALID_PAGE_OWNER by the RMP
 */
export function snpLaunchUpdate(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpLaunchUpdate);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_LAUNCH_UPDATE');
  if (typeof guest === 'number') {
    return guest;
  }
  const { page_size, page_type, imi_page } = buffer.flags;
  const perms: LaunchPerms = [buffer.vmpl1_perms, buffer.vmpl2_perms, buffer.vmpl3_perms];
  const kind = PAGE_TYPES[page_type];
  if (
    kind === undefined ||
    (page_size === 1 && !kind.large) ||
    (imi_page === 1 && !guest.imiEn) ||
    perms.some((perm) => perm > 0xf)
  ) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const npages = page_size === 1 ? PAGES_PER_2M : 1;
  const at = buffer.page_paddr as Spa;
  if (!isAligned(at, npages * PAGE_SIZE) || !platform.hw.memory.contains(at, npages * PAGE_SIZE)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const refused = checkPreGuest(platform, guest, pfnOf(at), page_size as 0 | 1);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  const { hw, crypto } = platform;
  const entry = hw.rmp.lookup(pfnOf(at));
  if (page_type === PageType.CPUID) {
    const verdict = checkCpuidPage(hw.memory.read(at, PAGE_SIZE, HOST));
    if (verdict !== 'ok') {
      if (verdict !== 'malformed') {
        hw.memory.write(at, verdict, HOST);
      }
      return SevRet.SEV_RET_INVALID_PARAM;
    }
  }
  for (let i = 0; i < npages; i++) {
    const here = (at + BigInt(i * PAGE_SIZE)) as Spa;
    const data = contentsOf(platform, guest, page_type, here);
    hw.memory.write(here, data, guest.asid);
    guest.launchDigest = extendLaunchDigest(crypto, guest.launchDigest, {
      pageType: page_type,
      imiPage: imi_page === 1,
      perms,
      gpa: gpaOf(entry.gfn) + BigInt(i * PAGE_SIZE),
      contents: kind.measured ? crypto.sha384(data) : UNMEASURED,
    });
  }
  hw.rmp.store(pfnOf(at), {
    ...entry,
    immutable: false,
    validated: true,
    vmsa: page_type === PageType.VMSA,
    perms: [0xf, ...perms],
  });
  platform.advance(guest, 'SEV_CMD_SNP_LAUNCH_UPDATE');
  return SevRet.SEV_RET_SUCCESS;
}

function checkPreGuest(platform: Platform, guest: GuestContext, pfn: Pfn, pagesize: 0 | 1): SevStatus {
  if (guest.asid === 0) {
    return SevRet.SEV_RET_INACTIVE;
  }
  const entry = platform.hw.rmp.lookup(pfn);
  if (pageStateOf(entry) !== 'Pre-Guest') {
    return SevRet.SEV_RET_INVALID_PAGE_STATE;
  }
  if (entry.asid !== guest.asid) {
    return SevRet.SEV_RET_INVALID_PAGE_OWNER;
  }
  return entry.pagesize === pagesize ? SevRet.SEV_RET_SUCCESS : SevRet.SEV_RET_INVALID_PAGE_SIZE;
}

function contentsOf(platform: Platform, guest: GuestContext, pageType: number, at: Spa): Uint8Array {
  switch (pageType) {
    case PageType.ZERO:
      return new Uint8Array(PAGE_SIZE);
    case PageType.SECRETS:
      return secretsPage(platform, guest);
    default:
      return platform.hw.memory.read(at, PAGE_SIZE, HOST);
  }
}
