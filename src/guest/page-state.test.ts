// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { GhcbExit } from '../abi/ghcb.ts';
import { PscOp, PscResult, pscCurEntry, pscEndEntry, pscSetCurEntry, pscWriteHeader } from '../abi/psc.ts';
import { gfn, gpa } from '../lib/addresses.ts';
import { writeU32 } from '../lib/bytes.ts';
import { GhcbPage } from './ghcb.ts';
import { setMemoryPrivate, setMemoryShared, setPagePrivateEarly, setPageSharedEarly } from './page-state.ts';
import { ScriptedHost } from './testing.ts';

const PRIVATE = PscOp.SNP_PAGE_STATE_PRIVATE;
const SHARED = PscOp.SNP_PAGE_STATE_SHARED;
const ghcbAt = () => new GhcbPage(gpa(0x1000n), 2);
const PSC_TERMINATION = { reason_set: 1, reason_code: 1 };
const PVALIDATE_TERMINATION = { reason_set: 1, reason_code: 2 };

describe('setMemoryPrivate', () => {
  it('uses 4 KiB entries up to a 2 MiB boundary, 2 MiB entries between, 4 KiB entries after', () => {
    const host = new ScriptedHost();
    host.run(setMemoryPrivate(ghcbAt(), { from: 0x3fe, to: 0x803 }));
    expect(host.pscCalls).toEqual([
      [
        { gfn: 0x3fe, operation: PRIVATE, pagesize: 0 },
        { gfn: 0x3ff, operation: PRIVATE, pagesize: 0 },
        { gfn: 0x400, operation: PRIVATE, pagesize: 1 },
        { gfn: 0x600, operation: PRIVATE, pagesize: 1 },
        { gfn: 0x800, operation: PRIVATE, pagesize: 0 },
        { gfn: 0x801, operation: PRIVATE, pagesize: 0 },
        { gfn: 0x802, operation: PRIVATE, pagesize: 0 },
      ],
    ]);
    expect(host.validated.size).toBe(0x803 - 0x3fe);
  });

  it('fills a buffer with 253 entries and validates each batch before the next', () => {
    const host = new ScriptedHost();
    host.run(setMemoryPrivate(ghcbAt(), { from: 1, to: 1 + 300 }));
    expect(host.pscCalls.map((entries) => entries.length)).toEqual([253, 47]);
    const order = host.log.map((line) => line.split(' ')[0]);
    expect(order).toEqual(['page', ...Array(253).fill('pvalidate'), 'page', ...Array(47).fill('pvalidate')]);
  });

  it('validates 512 single pages where PVALIDATE answers FAIL_SIZEMISMATCH', () => {
    const host = new ScriptedHost();
    host.smallFrames = (frame) => frame === 0x400;
    host.run(setMemoryPrivate(ghcbAt(), { from: 0x200, to: 0x600 }));
    expect(host.terminated).toBeNull();
    expect(host.log.filter((line) => line.startsWith('pvalidate'))).toHaveLength(1 + 512);
    expect(host.validated.size).toBe(0x400);
  });

  it('terminates with GHCB_TERM_PVALIDATE for a page that was valid already', () => {
    const host = new ScriptedHost();
    host.validated.add(0x11);
    host.run(setMemoryPrivate(ghcbAt(), { from: 0x10, to: 0x20 }));
    expect(host.terminated).toEqual(PVALIDATE_TERMINATION);
  });

  it('asks again, buffer untouched, when the hypervisor stopped half-way', () => {
    const host = new ScriptedHost();
    const seen: number[] = [];
    host.onPsc = (buffer) => {
      seen.push(pscCurEntry(buffer, 0));
      pscSetCurEntry(buffer, 0, Math.min(pscCurEntry(buffer, 0) + 4, pscEndEntry(buffer, 0) + 1));
      return 0n;
    };
    host.run(setMemoryPrivate(ghcbAt(), { from: 1, to: 11 }));
    expect(seen).toEqual([0, 4, 8]);
    expect(host.validated.size).toBe(10);
  });

  const tricks: Record<string, (buffer: Uint8Array) => bigint> = {
    'an error in SW_EXITINFO2': () => PscResult.VMGEXIT_PSC_ERROR_GENERIC,
    'an invalid entry': () => PscResult.VMGEXIT_PSC_ERROR_INVALID_ENTRY,
    'a reserved word that is not zero': (buffer) => {
      writeU32(buffer, 4, 1);
      return 0n;
    },
    'an end_entry above the one submitted': (buffer) => {
      pscWriteHeader(buffer, 0, 2, 200);
      return 0n;
    },
    'a cur_entry that goes back': (buffer) => {
      pscSetCurEntry(buffer, 0, pscCurEntry(buffer, 0) === 0 ? 3 : 2);
      return 0n;
    },
  };
  for (const [trick, onPsc] of Object.entries(tricks)) {
    it(`terminates with GHCB_TERM_PSC on ${trick}`, () => {
      const host = new ScriptedHost();
      host.onPsc = onPsc;
      host.run(setMemoryPrivate(ghcbAt(), { from: 1, to: 11 }));
      expect(host.terminated).toEqual(PSC_TERMINATION);
      expect(host.validated.size).toBe(0);
    });
  }

  it('terminates with GHCB_TERM_PSC when the hypervisor calls the request malformed', () => {
    const host = new ScriptedHost();
    host.onExit = ({ put }) => put('sw_exit_info_1', 2n);
    host.run(setMemoryPrivate(ghcbAt(), { from: 1, to: 2 }));
    expect(host.terminated).toEqual(PSC_TERMINATION);
  });
});

describe('setMemoryShared', () => {
  it('rescinds validation before the page state change', () => {
    const host = new ScriptedHost();
    host.validated.add(5).add(6);
    host.run(setMemoryShared(ghcbAt(), { from: 5, to: 7 }));
    expect(host.log).toEqual([
      'pvalidate 0x5 0 false',
      'pvalidate 0x6 0 false',
      `page 0x${GhcbExit.SVM_VMGEXIT_PSC.toString(16)}`,
    ]);
    expect(host.pscCalls[0]).toEqual([
      { gfn: 5, operation: SHARED, pagesize: 0 },
      { gfn: 6, operation: SHARED, pagesize: 0 },
    ]);
  });
});

describe('the MSR protocol', () => {
  it('accepts a page, then gives it away, in Linux order', () => {
    const host = new ScriptedHost();
    host.run(setPagePrivateEarly(gfn(7)));
    host.run(setPageSharedEarly(gfn(7)));
    expect(host.log).toEqual([
      'msr 0x14',
      'psc private 0x7',
      'pvalidate 0x7 0 true',
      'pvalidate 0x7 0 false',
      'msr 0x14',
      'psc shared 0x7',
    ]);
  });

  it('terminates with GHCB_TERM_PSC on an error or another response code', () => {
    for (const answer of [0x8000_0000_0000_0015n, 0x14n]) {
      const host = new ScriptedHost();
      host.msrAnswers = { 20: answer };
      host.run(setPagePrivateEarly(gfn(7)));
      expect(host.terminated).toEqual(PSC_TERMINATION);
    }
  });

  it('terminates with GHCB_TERM_PVALIDATE when there is nothing to rescind', () => {
    const host = new ScriptedHost();
    host.run(setPageSharedEarly(gfn(7)));
    expect(host.terminated).toEqual(PVALIDATE_TERMINATION);
  });
});
