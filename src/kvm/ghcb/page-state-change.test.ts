// SPDX-License-Identifier: Apache-2.0
/** [GHCB] "Page state change", and fault 57: a hostile buffer never reaches beyond its scratch area. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import type { GuestProgram } from '../../abi/guest-ops.ts';
import { KvmExit } from '../../abi/kvm.ts';
import { KvmRunHypercall } from '../../abi/kvm-run.ts';
import {
  PscEntry,
  pscCurEntry,
  pscEntryAt,
  pscEntryCurPage,
  pscWriteEntry,
  pscWriteHeader,
} from '../../abi/psc.ts';
import { gpa } from '../../lib/addresses.ts';
import {
  DATA_GPA,
  GHCB_GPA,
  GHCB_SHARED_BUFFER,
  type GhcbAnswer,
  ghcbCall,
  type LaunchedOptions,
  launched,
  pscCall,
  registerGhcb,
  type TestVm,
} from '../testing.ts';
import { KVM_6_12 } from '../uapi/generation.ts';

const DONE = 0n;
const INVALID_HDR = 0x1_0000_0001n;
const INVALID_ENTRY = 0x1_0000_0002n;
const GENERIC = 0x100_0000_0000n;

interface Entry {
  readonly gfn: number;
  readonly operation?: number;
  readonly is2M?: boolean;
  readonly curPage?: number;
}

function bufferOf(entries: readonly Entry[], header: { cur?: number; end?: number } = {}): Uint8Array {
  const buffer = new Uint8Array(0x7f0);
  pscWriteHeader(buffer, 0, header.cur ?? 0, header.end ?? entries.length - 1);
  entries.forEach(({ gfn, operation = 2, is2M = false, curPage = 0 }, i) => {
    const at = pscEntryAt(0, i);
    pscWriteEntry(buffer, at, gfn, operation, is2M ? 1 : 0);
    buffer[at] = curPage & 0xff;
    buffer[at + 1]! |= curPage >> 8;
  });
  return buffer;
}

/** What userspace is asked: [gfn, npages, attributes]. */
type Range = readonly [gfn: number, npages: number, attributes: number];

interface Run {
  readonly ranges: Range[];
  readonly info2: bigint;
  readonly infos: readonly [bigint, bigint];
  readonly curEntry: number;
  readonly curPages: number[];
  readonly vm: TestVm;
}

/** Sends one buffer, answering each exit with `ret`. */
function change(
  buffer: Uint8Array,
  options: LaunchedOptions & {
    ret?: bigint;
    scratch?: bigint;
    atExit?: (vm: TestVm, nth: number) => void;
  } = {},
): Run {
  const answers: GhcbAnswer[] = [];
  const { vm } = launched(
    () =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        answers.push(yield* ghcbCall(pscCall(buffer, options.scratch)));
      })(),
    options,
  );
  const ranges: Range[] = [];
  for (;;) {
    expect(vm.enter()).toEqual({ ret: 0 });
    if (vm.exitReason() !== KvmExit.KVM_EXIT_HYPERCALL) {
      break;
    }
    const { nr, args, ret } = KvmRunHypercall.decodeLoose(vm.run().subarray(0, 2352));
    expect([nr, ret]).toEqual([12n, 0n]);
    options.atExit?.(vm, ranges.length);
    ranges.push([Number(args[0]! >> 12n), Number(args[1]), Number(args[2])]);
    KvmRunHypercall.set(vm.run(), 'ret', options.ret ?? 0n);
    expect(ranges.length).toBeLessThan(300);
  }
  const after = vm.peek(GHCB_SHARED_BUFFER, 0x7f0);
  const count = Math.min(buffer[2]! | (buffer[3]! << 8), 252) + 1;
  return {
    ranges,
    infos: answers[0]!.infos,
    info2: answers[0]!.info2,
    curEntry: pscCurEntry(after, 0),
    curPages: Array.from({ length: count }, (_, i) => pscEntryCurPage(after, pscEntryAt(0, i))),
    vm,
  };
}

describe('page state change', () => {
  it('one 4 KiB entry: one exit, size code 0, bit 4 for private', () => {
    expect(change(bufferOf([{ gfn: 0x400 }]))).toMatchObject({
      ranges: [[0x400, 1, 0]],
      info2: DONE,
      curEntry: 1,
      curPages: [1],
    });
    expect(change(bufferOf([{ gfn: 0x400, operation: 1 }])).ranges).toEqual([[0x400, 1, 0x10]]);
  });

  it('one 2 MiB entry: one exit of 512 pages, size code 1', () => {
    expect(change(bufferOf([{ gfn: 0x400, operation: 1, is2M: true }]))).toMatchObject({
      ranges: [[0x400, 512, 0x11]],
      curPages: [512],
    });
  });

  it('adjacent 2 MiB entries are one exit', () => {
    const entries = [0x400, 0x600, 0x800].map((gfn) => ({ gfn, is2M: true }));
    expect(change(bufferOf(entries))).toMatchObject({
      ranges: [[0x400, 1536, 1]],
      curEntry: 3,
      curPages: [512, 512, 512],
    });
  });

  it('contiguous ascending 4 KiB entries of one operation are one exit', () => {
    const entries = [5, 6, 7, 9, 8, 10].map((gfn) => ({ gfn }));
    expect(change(bufferOf(entries)).ranges).toEqual([
      [5, 3, 0],
      [9, 1, 0],
      [8, 1, 0],
      [10, 1, 0],
    ]);
  });

  it('another operation or another size begins a new range', () => {
    const entries = [
      { gfn: 0x5ff },
      { gfn: 0x600, is2M: true },
      { gfn: 0x800 },
      { gfn: 0x801, operation: 1 },
    ];
    expect(change(bufferOf(entries)).ranges).toEqual([
      [0x5ff, 1, 0],
      [0x600, 512, 1],
      [0x800, 1, 0],
      [0x801, 1, 0x10],
    ]);
  });

  it('253 entries fit', () => {
    const entries = Array.from({ length: 253 }, (_, i) => ({ gfn: 0x400 + i }));
    expect(change(bufferOf(entries))).toMatchObject({
      ranges: [[0x400, 253, 0]],
      info2: DONE,
      curEntry: 253,
    });
  });

  it('a 2 MiB entry that is partly done goes on in 4 KiB pages, under its own size code', () => {
    const entries = [{ gfn: 0x400, is2M: true, curPage: 500 }, { gfn: 0x40c }, { gfn: 0x600, is2M: true }];
    expect(change(bufferOf(entries))).toMatchObject({
      ranges: [
        [0x5f4, 13, 1],
        [0x600, 512, 1],
      ],
      curPages: [512, 1, 512],
    });
  });

  it('entries that are done are passed over, cur_entry with them', () => {
    const entries = [{ gfn: 1, curPage: 1 }, { gfn: 0x400, is2M: true, curPage: 512 }, { gfn: 3 }];
    expect(change(bufferOf(entries))).toMatchObject({ ranges: [[3, 1, 0]], curEntry: 3 });
    expect(change(bufferOf(entries.slice(0, 2)))).toMatchObject({ ranges: [], info2: DONE, curEntry: 2 });
  });

  it('starts at cur_entry; cur_entry above end_entry has nothing to do', () => {
    const entries = [{ gfn: 1 }, { gfn: 3 }];
    expect(change(bufferOf(entries, { cur: 1 })).ranges).toEqual([[3, 1, 0]]);
    expect(change(bufferOf(entries, { cur: 2 }))).toMatchObject({ ranges: [], info2: DONE, curEntry: 2 });
    expect(change(bufferOf(entries, { cur: 65535 }))).toMatchObject({ ranges: [], info2: DONE });
  });

  it.each([0, 3, 4, 15])('operation %i is marked done without an exit', (operation) => {
    const entries = [{ gfn: 7, operation }, { gfn: 8, operation }, { gfn: 9 }];
    expect(change(bufferOf(entries))).toMatchObject({
      ranges: [[9, 1, 0]],
      curPages: [1, 1, 1],
      info2: DONE,
      curEntry: 3,
    });
  });

  it.each([
    ['cur_page above the size of the entry', { gfn: 8, curPage: 2 }],
    ['cur_page 513 of 2 MiB', { gfn: 0x400, is2M: true, curPage: 513 }],
    ['an unaligned 2 MiB frame', { gfn: 0x401, is2M: true }],
  ])('%s: invalid entry, named by cur_entry, after what came before it', (_, bad) => {
    expect(change(bufferOf([{ gfn: 1 }, { gfn: 5, curPage: 1 }, bad, { gfn: 9 }]))).toMatchObject({
      ranges: [[1, 1, 0]],
      infos: [0n, INVALID_ENTRY],
      curEntry: 2,
    });
  });

  it('ret other than 0: generic error; the batch and cur_entry stay as they were', () => {
    const run = change(bufferOf([{ gfn: 1, curPage: 1 }, { gfn: 5 }, { gfn: 6 }]), { ret: 5n });
    expect(run).toMatchObject({
      ranges: [[5, 2, 0]],
      infos: [0n, GENERIC],
      curEntry: 1,
      curPages: [1, 0, 0],
    });
  });

  it('without the hypercall exit: generic error', () => {
    expect(change(bufferOf([{ gfn: 1 }]), { hypercalls: false })).toMatchObject({
      ranges: [],
      info2: GENERIC,
    });
  });

  it('a page that is in the wanted state already exits all the same', () => {
    expect(change(bufferOf([{ gfn: 0x400, operation: 1 }])).ranges).toHaveLength(1);
  });

  it('a buffer the guest changes between the rounds is read anew', () => {
    const run = change(bufferOf([{ gfn: 1 }, { gfn: 5 }, { gfn: 9 }]), {
      atExit: (vm, nth) => {
        if (nth === 0) {
          const word = PscEntry.toWord({ cur_page: 0, gfn: 0x777, operation: 1, pagesize: 0 });
          const bytes = new Uint8Array(8);
          new DataView(bytes.buffer).setBigUint64(0, word, true);
          vm.poke(GHCB_SHARED_BUFFER + 16n, bytes);
        }
      },
    });
    expect(run.ranges).toEqual([
      [1, 1, 0],
      [0x777, 1, 0x10],
      [9, 1, 0],
    ]);
  });

  it('marks entries by the size they have at the end, and survives an end_entry that grows', () => {
    const run = change(bufferOf([{ gfn: 0x400 }, { gfn: 0x800 }]), {
      atExit: (vm, nth) => {
        if (nth === 0) {
          vm.poke(GHCB_SHARED_BUFFER + 8n + 7n, Uint8Array.of(1));
          vm.poke(GHCB_SHARED_BUFFER + 2n, Uint8Array.of(0xff, 0xff));
        }
      },
    });
    expect(run).toMatchObject({ ranges: [[0x400, 1, 0]], info2: INVALID_HDR });
    expect(run.curPages[0]).toBe(512);
  });

  it('hypercall.ret keeps its old value on Linux 6.12', () => {
    const { vm } = launched(
      () =>
        (function* program(): GuestProgram {
          yield* registerGhcb();
          yield* ghcbCall(pscCall(bufferOf([{ gfn: 1 }])));
        })(),
      { host: { generation: KVM_6_12 } },
    );
    KvmRunHypercall.set(vm.run(), 'ret', 0x77n);
    vm.enter();
    expect(KvmRunHypercall.get(vm.run(), 'ret')).toBe(0x77n);
  });
});

describe('hostile page state change buffers', () => {
  it.each([253, 254, 65535])('end_entry %i: invalid header', (end) => {
    expect(change(bufferOf([{ gfn: 1 }], { end }))).toMatchObject({ ranges: [], infos: [0n, INVALID_HDR] });
  });

  it('the bound is what the scratch area holds: at 0xfe0 there is room for one entry', () => {
    const scratch = GHCB_GPA + 0xfe0n;
    const at = 0xfe0 - 0x800;
    const header = (end: number) => {
      const buffer = new Uint8Array(0x7f0);
      pscWriteHeader(buffer, at, 0, end);
      pscWriteEntry(buffer, at + 8, 5, 2, 0);
      return buffer;
    };
    expect(change(header(0), { scratch })).toMatchObject({ ranges: [[5, 1, 0]], info2: DONE });
    expect(change(header(1), { scratch })).toMatchObject({ ranges: [], info2: INVALID_HDR });
  });

  it('at 0xfe8 there is room for a header alone: every end_entry is invalid', () => {
    expect(change(bufferOf([]), { scratch: GHCB_GPA + 0xfe8n })).toMatchObject({ info2: INVALID_HDR });
  });

  it.each([
    ['null', 0n],
    ['before the shared buffer', GHCB_GPA + 0x7f8n],
    ['across its end', GHCB_GPA + 0xfe9n],
    ['past its end', GHCB_GPA + 0xff8n],
    ['in another page', DATA_GPA],
    ['wrapping around', 0xffff_ffff_ffff_fffcn],
  ])('scratch %s: malformed input, invalid scratch area', (_, scratch) => {
    expect(change(bufferOf([{ gfn: 1 }]), { scratch })).toMatchObject({ ranges: [], infos: [2n, 3n] });
  });

  it('a version 1 VM may have the scratch area elsewhere, where it holds a header only', () => {
    const run = change(bufferOf([{ gfn: 1 }]), { scratch: DATA_GPA, ghcbVersion: 1 });
    expect(run).toMatchObject({ ranges: [], infos: [0n, INVALID_HDR] });
  });

  it('a version 1 VM with a scratch area nobody has: EFAULT', () => {
    const { vm } = launched(
      () =>
        (function* program(): GuestProgram {
          yield* registerGhcb();
          yield* ghcbCall(pscCall(bufferOf([{ gfn: 1 }]), gpa(1n << 40n)));
        })(),
      { ghcbVersion: 1 },
    );
    expect(vm.enter()).toEqual({ ret: -Errno.EFAULT });
  });
});
