// SPDX-License-Identifier: Apache-2.0
/**
 * Page state change through the GHCB page.
 *
 * Each round takes one run of entries that make a contiguous range, asks userspace to change it, and marks
 * the entries done. The buffer is the guest's: it is read anew each round, indices are checked against what
 * the scratch area really holds, and a guest that changes it meanwhile confuses only itself.
 *
 * Source   [GHCB] "Page state change"; [LINUX] svm/sev.c snp_begin_psc, snp_complete_one_psc
 */
import { KvmHypercall } from '../../abi/kvm.ts';
import { KvmRunHypercall } from '../../abi/kvm-run.ts';
import {
  PSC_ENTRY_SIZE,
  PSC_HEADER_SIZE,
  PscOp,
  PscResult,
  pscCurEntry,
  pscEndEntry,
  pscEntryAt,
  pscEntryCurPage,
  pscEntryGfn,
  pscEntryOperation,
  pscEntryPagesize,
  pscSetCurEntry,
  pscSetEntryCurPage,
} from '../../abi/psc.ts';
import { PAGES_PER_2M } from '../../lib/addresses.ts';
import { exitForMapGpaRange } from '../hypercall-exit.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping, RESUME, succeed } from './mapping.ts';
import { type Scratch, setUpScratch } from './scratch.ts';

/** Entries one exit to userspace covers. */
interface Batch {
  readonly first: number;
  readonly count: number;
}

export function pageStateChange(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const refused = setUpScratch(vcpu, ghcb, true, PSC_HEADER_SIZE);
  return refused ?? nextRange(vcpu, ghcb, ghcb.scratch!);
}

/** Sends the next range to userspace, or ends the event. */
function nextRange(vcpu: Vcpu, ghcb: GhcbMapping, scratch: Scratch): number {
  if (!vcpu.vm.exitsOnHypercall(KvmHypercall.KVM_HC_MAP_GPA_RANGE)) {
    return succeed(vcpu, ghcb, PscResult.VMGEXIT_PSC_ERROR_GENERIC);
  }
  const held = Math.floor((scratch.length - PSC_HEADER_SIZE) / PSC_ENTRY_SIZE);
  const limit = Math.min(held, vcpu.vm.services.generation.pscMaxEntries);
  for (;;) {
    const buffer = scratch.read(0, scratch.length);
    const end = pscEndEntry(buffer, 0);
    if (end >= limit) {
      return succeed(vcpu, ghcb, PscResult.VMGEXIT_PSC_ERROR_INVALID_HDR);
    }
    let index = pscCurEntry(buffer, 0);
    const from = index;
    let npages = 0;
    for (; index <= end; index++) {
      npages = pagesLeft(buffer, index);
      if (npages !== 0) {
        break;
      }
    }
    if (index !== from) {
      pscSetCurEntry(buffer, 0, index);
      scratch.write(0, buffer.subarray(0, PSC_HEADER_SIZE));
    }
    if (npages < 0) {
      return succeed(vcpu, ghcb, PscResult.VMGEXIT_PSC_ERROR_INVALID_ENTRY);
    }
    if (index > end) {
      return succeed(vcpu, ghcb, PscResult.VMGEXIT_PSC_DONE);
    }
    const result = beginRange(vcpu, ghcb, scratch, buffer, index, end, npages);
    if (result === EXIT) {
      return EXIT;
    }
  }
}

/** 4 KiB pages of an entry that are not done; -1 when the entry cannot be. */
function pagesLeft(buffer: Uint8Array, index: number): number {
  const at = pscEntryAt(0, index);
  const npages = pscEntryPagesize(buffer, at) === 1 ? PAGES_PER_2M : 1;
  const done = pscEntryCurPage(buffer, at);
  return done > npages || pscEntryGfn(buffer, at) % npages !== 0 ? -1 : npages - done;
}

/** Gathers the entries that continue the one at `index` and leaves to userspace, or skips them. */
function beginRange(
  vcpu: Vcpu,
  ghcb: GhcbMapping,
  scratch: Scratch,
  buffer: Uint8Array,
  index: number,
  end: number,
  left: number,
): number {
  const start = pscEntryAt(0, index);
  const operation = pscEntryOperation(buffer, start);
  const gfn = pscEntryGfn(buffer, start);
  const done = pscEntryCurPage(buffer, start);
  const is2M = pscEntryPagesize(buffer, start) === 1;
  // The rest of a 2 MiB entry that was partly done goes on in 4 KiB pages.
  const step = is2M && done === 0 ? PAGES_PER_2M : 1;
  let npages = left;
  let count = 1;
  for (let i = index + 1; i <= end; i++) {
    const at = pscEntryAt(0, i);
    const continues =
      pscEntryOperation(buffer, at) === operation &&
      pscEntryGfn(buffer, at) === gfn + npages &&
      pscEntryCurPage(buffer, at) === 0 &&
      (pscEntryPagesize(buffer, at) === 1) === (step === PAGES_PER_2M);
    if (!continues) {
      break;
    }
    npages += step;
    count += 1;
  }
  const batch = { first: index, count };
  const isPrivate = operation === PscOp.SNP_PAGE_STATE_PRIVATE;
  if (!isPrivate && operation !== PscOp.SNP_PAGE_STATE_SHARED) {
    completeBatch(scratch, batch);
    return RESUME;
  }
  exitForMapGpaRange(vcpu, { gfn: gfn + done, npages, isPrivate, is2M });
  vcpu.completion = () => {
    if (KvmRunHypercall.get(vcpu.run, 'ret') !== 0n) {
      return succeed(vcpu, ghcb, PscResult.VMGEXIT_PSC_ERROR_GENERIC);
    }
    completeBatch(scratch, batch);
    return nextRange(vcpu, ghcb, scratch);
  };
  return EXIT;
}

/** Marks a batch's entries done, by the page size they have now. */
function completeBatch(scratch: Scratch, { first, count }: Batch): void {
  const at = pscEntryAt(0, first);
  const entries = scratch.read(at, count * PSC_ENTRY_SIZE);
  for (let entry = 0; entry < entries.length; entry += PSC_ENTRY_SIZE) {
    pscSetEntryCurPage(entries, entry, pscEntryPagesize(entries, entry) === 1 ? PAGES_PER_2M : 1);
  }
  scratch.write(at, entries);
  const header = scratch.read(0, PSC_HEADER_SIZE);
  pscSetCurEntry(header, 0, first + count);
  scratch.write(0, header);
}
