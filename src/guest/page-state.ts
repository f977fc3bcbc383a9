// SPDX-License-Identifier: Apache-2.0
/**
 * Page state changes as Linux makes them: to private first by PSC, then by PVALIDATE; to shared the other
 * way round. 2 MiB entries where the range allows, and as many entries as the shared buffer holds.
 */
import { GHCB_SHARED_BUFFER_OFFSET, GhcbExit } from '../abi/ghcb.ts';
import type { PvalidateResult } from '../abi/guest-ops.ts';
import {
  PSC_HEADER_SIZE,
  PscOp,
  pscCurEntry,
  pscEndEntry,
  pscEntryAt,
  pscWriteEntry,
  pscWriteHeader,
  VMGEXIT_PSC_MAX_ENTRY,
} from '../abi/psc.ts';
import { type Gfn, type Gpa, gpa, PAGE_SIZE, PAGES_PER_2M } from '../lib/addresses.ts';
import { readU32 } from '../lib/bytes.ts';
import { type Guest, PVALIDATE_FAIL_SIZEMISMATCH, pvalidate } from './cpu.ts';
import { changePageStateByMsr, EsResult, type GhcbPage, terminateLinux } from './ghcb.ts';

/** A run of page frames, [from, to). Page numbers fit 52 bits, so they are plain numbers. */
export interface FrameRange {
  readonly from: number;
  readonly to: number;
}

const frameGpa = (frame: number): Gpa => gpa(BigInt(frame * PAGE_SIZE));

const pagesAt = (frame: number, to: number): number =>
  frame % PAGES_PER_2M === 0 && to - frame >= PAGES_PER_2M ? PAGES_PER_2M : 1;

/** Frame after the last one that a full buffer of entries starting at `frame` covers. */
function batchEnd(frame: number, to: number): number {
  let next = frame;
  for (let entries = 0; entries < VMGEXIT_PSC_MAX_ENTRY && next < to; entries++) {
    next += pagesAt(next, to);
  }
  return next;
}

/** Makes pages of the range the guest's own and validates them; terminates when that fails. */
export function* setMemoryPrivate(ghcb: GhcbPage, { from, to }: FrameRange): Guest<void> {
  for (let frame = from; frame < to; ) {
    const end = batchEnd(frame, to);
    yield* changePageState(ghcb, frame, end, to, PscOp.SNP_PAGE_STATE_PRIVATE);
    yield* validatePages(frame, end, to, true);
    frame = end;
  }
}

/** Gives pages of the range to the hypervisor; terminates when that fails. */
export function* setMemoryShared(ghcb: GhcbPage, { from, to }: FrameRange): Guest<void> {
  for (let frame = from; frame < to; ) {
    const end = batchEnd(frame, to);
    yield* validatePages(frame, end, to, false);
    yield* changePageState(ghcb, frame, end, to, PscOp.SNP_PAGE_STATE_SHARED);
    frame = end;
  }
}

/** Makes one page private and valid before there is a GHCB. */
export function* setPagePrivateEarly(frame: Gfn): Guest<void> {
  yield* changePageStateByMsr(frame, PscOp.SNP_PAGE_STATE_PRIVATE);
  if ((yield* pvalidate(frameGpa(frame), 0, true)) !== 0) {
    yield* terminateLinux('GHCB_TERM_PVALIDATE');
  }
}

/** Gives one private page to the hypervisor before there is a GHCB. */
export function* setPageSharedEarly(frame: Gfn): Guest<void> {
  if ((yield* pvalidate(frameGpa(frame), 0, false)) !== 0) {
    yield* terminateLinux('GHCB_TERM_PVALIDATE');
  }
  yield* changePageStateByMsr(frame, PscOp.SNP_PAGE_STATE_SHARED);
}

const BUFFER = GHCB_SHARED_BUFFER_OFFSET;

/** One buffer of entries for [from, end), cut as the range that goes on to `to` is cut. */
function* changePageState(
  ghcb: GhcbPage,
  from: number,
  end: number,
  to: number,
  operation: number,
): Guest<void> {
  let count = 0;
  for (let frame = from; frame < end; count++) {
    const pages = pagesAt(frame, to);
    pscWriteEntry(ghcb.image, pscEntryAt(BUFFER, count), frame, operation, pages === 1 ? 0 : 1);
    frame += pages;
  }
  const last = count - 1;
  pscWriteHeader(ghcb.image, BUFFER, 0, last);

  // Everything the guest sends goes out in one write; a hypervisor that wants to be asked again must find
  // its own progress in the buffer, so from then on only the part before the buffer is written.
  let part: Uint8Array = ghcb.image;
  for (let current = 0; current <= last; ) {
    ghcb.invalidate();
    ghcb.put('sw_scratch', ghcb.gpa + BigInt(BUFFER));
    const result = yield* ghcb.callWithBuffer(GhcbExit.SVM_VMGEXIT_PSC, part, BUFFER + PSC_HEADER_SIZE);
    const header = ghcb.answerBytes(BUFFER);
    const next = pscCurEntry(header, 0);
    if (
      result !== EsResult.ES_OK ||
      ghcb.answer('sw_exit_info_2') !== 0n ||
      readU32(header, 4) !== 0 ||
      pscEndEntry(header, 0) > last ||
      next < current
    ) {
      yield* terminateLinux('GHCB_TERM_PSC');
    }
    // An end_entry the hypervisor lowered ends the loop in Linux too: it reads the header, not its own copy.
    if (next > pscEndEntry(header, 0)) {
      return;
    }
    current = next;
    part = ghcb.image.subarray(0, BUFFER);
  }
}

/** PVALIDATE over [from, end); the hottest loop of a boot, hence one op object and no helper calls. */
function* validatePages(from: number, end: number, to: number, validate: boolean): Guest<void> {
  const op = { op: 'pvalidate' as const, gpa: gpa(0n), size: 0 as 0 | 1, validate };
  for (let frame = from; frame < end; ) {
    const pages = pagesAt(frame, to);
    op.gpa = frameGpa(frame);
    op.size = pages === 1 ? 0 : 1;
    const { rc, unchanged } = (yield op) as PvalidateResult;
    if (rc === PVALIDATE_FAIL_SIZEMISMATCH && pages !== 1) {
      op.size = 0;
      for (let small = frame; small < frame + pages; small++) {
        op.gpa = frameGpa(small);
        const single = (yield op) as PvalidateResult;
        if (single.rc !== 0 || single.unchanged) {
          yield* terminateLinux('GHCB_TERM_PVALIDATE');
        }
      }
    } else if (rc !== 0 || unchanged) {
      yield* terminateLinux('GHCB_TERM_PVALIDATE');
    }
    frame += pages;
  }
}
