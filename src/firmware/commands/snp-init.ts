// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataRange, SevDataRangeList, SevDataSnpInitEx } from '../../abi/snp-commands.ts';
import { PAGE_SIZE, type Pfn } from '../../lib/addresses.ts';
import { readU32 } from '../../lib/bytes.ts';
import { isAligned, pageStateOf } from '../page-state.ts';
import type { Platform } from '../platform.ts';

interface Range {
  readonly from: number;
  readonly end: number;
}

/** Initialises SNP and the RMP. [SNP-ABI] SNP_INIT: SNP_INIT_EX with INIT_RMP and nothing else. */
export function snpInit(platform: Platform): SevStatus {
  initializeRmp(platform);
  start(platform);
  return SevRet.SEV_RET_SUCCESS;
}

/**
 * Initialises SNP with options. [SNP-ABI] SNP_INIT_EX
 *
 * Returns  SEV_RET_RMP_INIT_REQUIRED without INIT_RMP on an RMP nobody set up; SEV_RET_INVALID_PARAM for an option
 *          the platform does not have; SEV_RET_INVALID_PAGE_STATE for a listed page that is in use
 */
export function snpInitEx(platform: Platform, bufferAt: bigint): SevStatus {
  const options = platform.readBuffer(bufferAt, SevDataSnpInitEx);
  if (typeof options === 'number') {
    return options;
  }
  const { init_rmp, list_paddr_en, rapl_dis, ciphertext_hiding_en, tio_en } = options.flags;
  if (tio_en === 1 || (ciphertext_hiding_en === 1 && !platform.chip.ciphertextHidingCapable)) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const maxSnpAsid = ciphertext_hiding_en === 1 ? options.max_snp_asid : platform.chip.maxAsid;
  if (maxSnpAsid < 1 || maxSnpAsid > platform.chip.maxAsid) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const ranges = list_paddr_en === 1 ? readRanges(platform, options.list_paddr) : [];
  if (typeof ranges === 'number') {
    return ranges;
  }
  if (init_rmp === 0) {
    if (!platform.rmpInitialized) {
      return SevRet.SEV_RET_RMP_INIT_REQUIRED;
    }
    if (!ranges.every((range) => mayBeFixed(platform, range))) {
      return SevRet.SEV_RET_INVALID_PAGE_STATE;
    }
  } else {
    initializeRmp(platform);
  }
  for (const { from, end } of ranges) {
    platform.hw.rmp.fix(from as Pfn, end - from);
  }
  platform.maxSnpAsid = maxSnpAsid;
  platform.raplDisabled = platform.chip.raplDisabled || rapl_dis === 1;
  platform.ciphertextHiding = ciphertext_hiding_en === 1;
  start(platform);
  return SevRet.SEV_RET_SUCCESS;
}

function initializeRmp(platform: Platform): void {
  platform.hw.rmp.reset();
  platform.rmpInitialized = true;
}

function start(platform: Platform): void {
  // Whatever ran before may have left data of any ASID in the caches.
  platform.markUsed(null);
  platform.changed();
}

/** The list in ascending order without overlaps, so that each page is marked once whatever the list repeats. */
function readRanges(platform: Platform, listPaddr: bigint): readonly Range[] | SevStatus {
  const head = platform.readBuffer(listPaddr, SevDataRangeList);
  if (typeof head === 'number') {
    return head;
  }
  const size = SevDataRangeList.size + SevDataRange.size * head.num_elements;
  if (Number(listPaddr & 0xfffn) + size > PAGE_SIZE) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const list = platform.readBytes(listPaddr, size);
  if (list === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const ranges: Range[] = [];
  for (let at = SevDataRangeList.size; at < size; at += SevDataRange.size) {
    const { base, page_count } = SevDataRange.decodeLoose(list.subarray(at, at + SevDataRange.size));
    if (readU32(list, at + 12) !== 0) {
      return SevRet.SEV_RET_INVALID_PARAM;
    }
    if (!isAligned(base) || !platform.hw.memory.contains(base, page_count * PAGE_SIZE)) {
      return SevRet.SEV_RET_INVALID_ADDRESS;
    }
    const from = Number(base >> 12n);
    ranges.push({ from, end: from + page_count });
  }
  return merged(ranges);
}

function merged(ranges: readonly Range[]): readonly Range[] {
  const out: Range[] = [];
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = out.at(-1);
    if (last !== undefined && range.from <= last.end) {
      out[out.length - 1] = { from: last.from, end: Math.max(last.end, range.end) };
    } else {
      out.push(range);
    }
  }
  return out;
}

function mayBeFixed(platform: Platform, { from, end }: Range): boolean {
  const { rmp } = platform.hw;
  for (let pfn = from; pfn < end; pfn++) {
    // An untouched region is one zero entry: skip it whole.
    if (pfn % 512 === 0 && end - pfn >= 512 && !rmp.isSplit(pfn) && !rmp.isAssigned(pfn as Pfn)) {
      pfn += 511;
      continue;
    }
    const state = pageStateOf(rmp.lookup(pfn as Pfn));
    if (state !== 'Hypervisor' && state !== 'HV-Fixed') {
      return false;
    }
  }
  return true;
}
