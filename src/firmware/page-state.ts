// SPDX-License-Identifier: Apache-2.0
/**
 * Page states: what the bits of an RMP entry mean to firmware.
 *
 * Source   [SNP-ABI] "Page States"
 */
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import type { Rmp, RmpState } from '../hw/rmp.ts';
import { type Asid, type Gfn, PAGE_SIZE, type Pfn } from '../lib/addresses.ts';

export const PAGE_STATES = [
  'Hypervisor',
  'HV-Fixed',
  'Firmware',
  'Reclaim',
  'Context',
  'Metadata',
  'Pre-Guest',
  'Guest-Invalid',
  'Pre-Swap',
  'Guest-Valid',
] as const;
export type PageState = (typeof PAGE_STATES)[number];

/** State of the page an entry describes. */
export function pageStateOf(entry: RmpState): PageState {
  if (!entry.assigned) {
    return entry.immutable ? 'HV-Fixed' : 'Hypervisor';
  }
  if (entry.asid === 0) {
    if (!entry.immutable) {
      return 'Reclaim';
    }
    return entry.vmsa ? 'Context' : entry.gfn === 0 ? 'Firmware' : 'Metadata';
  }
  if (entry.validated) {
    return entry.immutable ? 'Pre-Swap' : 'Guest-Valid';
  }
  return entry.immutable ? 'Pre-Guest' : 'Guest-Invalid';
}

/** Where SNP_PAGE_RECLAIM leads from each state; absent: SEV_RET_INVALID_PAGE_STATE. */
export const RECLAIM_TRANSITIONS: Readonly<Partial<Record<PageState, PageState>>> = {
  Firmware: 'Reclaim',
  Metadata: 'Reclaim',
  // The host reclaims after every command that may have written the page, done or failed.
  Reclaim: 'Reclaim',
  'Pre-Guest': 'Guest-Invalid',
  'Pre-Swap': 'Guest-Valid',
};

const FIRMWARE_ENTRY = {
  assigned: true,
  gfn: 0 as Gfn,
  asid: 0 as Asid,
  validated: false,
  perms: [0xf, 0, 0, 0],
} as const;

/** Makes a page one of firmware's own states. */
export function setFirmwarePage(
  rmp: Rmp,
  pfn: Pfn,
  pagesize: 0 | 1,
  state: 'Firmware' | 'Reclaim' | 'Context',
): void {
  rmp.store(pfn, {
    ...FIRMWARE_ENTRY,
    pagesize,
    immutable: state !== 'Reclaim',
    vmsa: state === 'Context',
  });
}

/**
 * Whether firmware may write its output into the page.
 *
 * Returns  SEV_RET_SUCCESS; SEV_RET_INVALID_PAGE_SIZE or SEV_RET_INVALID_PAGE_STATE
 */
export function checkFirmwarePage(rmp: Rmp, pfn: Pfn): SevStatus {
  const entry = rmp.lookup(pfn);
  if (pageStateOf(entry) !== 'Firmware') {
    return SevRet.SEV_RET_INVALID_PAGE_STATE;
  }
  return entry.pagesize === 0 ? SevRet.SEV_RET_SUCCESS : SevRet.SEV_RET_INVALID_PAGE_SIZE;
}

export const isAligned = (address: bigint, alignment: number = PAGE_SIZE): boolean =>
  (address & BigInt(alignment - 1)) === 0n;
