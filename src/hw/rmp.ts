// SPDX-License-Identifier: Apache-2.0
/**
 * The reverse map table: who owns each page of physical memory.
 *
 * An entry is three words, 12 bytes. The first two are the low quadword of the architectural entry:
 * assigned 0, page size 1, immutable 2, GPA 50:12, ASID 60:51, VMSA 61, validated 62. The third holds one
 * byte of permissions for each VMPL. A 2 MiB region keeps one entry for as long as all its pages agree (a 2 MiB
 * page, or nothing assigned) and 512 once it is split.
 *
 * Source   [APM2] "RMP Entry Fields", "VMPL Permission Masks"
 * Differs  the table is not itself part of physical memory (docs/limitations.md#rmp)
 */
import { type Asid, type Gfn, PAGES_PER_2M, type Pfn, type Vmpl } from '../lib/addresses.ts';
import { PHYSICAL_PAGES } from './memory.ts';

export const ENTRY_ASSIGNED = 1 << 0;
export const ENTRY_2M = 1 << 1;
export const ENTRY_IMMUTABLE = 1 << 2;
/** In the second word. */
export const ENTRY_VMSA = 1 << 29;
/** In the second word. */
export const ENTRY_VALIDATED = 1 << 30;

/** GPA bits 50:12 as a frame number. */
export const MAX_GFN = 2 ** 39 - 1;

/** All VMPL0 permissions and none for the others: what assignment gives. */
export const PERMS_VMPL0_ONLY = 0x0f;

const WORDS = 3;
const REGIONS = 512;
const PAGES_PER_BLOCK = REGIONS * PAGES_PER_2M;

/** One gibibyte of physical memory. */
interface Block {
  /** The entry of each region that is not split. */
  readonly whole: Int32Array;
  readonly split: (Int32Array | null)[];
  /** Entries of a split region that are not all zero. */
  readonly used: Uint16Array;
}

/** An entry in full. `perms` are for VMPL 0 to 3: bit 0 read, 1 write, 2 execute user, 3 execute supervisor. */
export interface RmpState {
  readonly assigned: boolean;
  readonly pagesize: 0 | 1;
  readonly immutable: boolean;
  readonly gfn: Gfn;
  readonly asid: Asid;
  readonly vmsa: boolean;
  readonly validated: boolean;
  readonly perms: readonly [number, number, number, number];
}

const NOTHING = new Int32Array(WORDS);

export class Rmp {
  readonly #blocks: (Block | undefined)[] = new Array(PHYSICAL_PAGES / PAGES_PER_BLOCK);
  /** Zeroed tables of regions that were split once, for the next split. */
  readonly #spare: Int32Array[] = [];
  #blockCount = 0;
  #splitCount = 0;

  /** Where the last `seek` ended: the entry is words[base], words[base + 1], words[base + 2]. */
  words: Int32Array = NOTHING;
  base = 0;

  covers(pfn: number): boolean {
    return pfn >= 0 && pfn < PHYSICAL_PAGES;
  }

  /** Finds the entry that covers the page, for reading or for changing bits that are not zero. */
  seek(pfn: number): void {
    const block = this.#blocks[(pfn / PAGES_PER_BLOCK) | 0];
    if (block === undefined) {
      this.words = NOTHING;
      this.base = 0;
      return;
    }
    const region = (pfn >>> 9) & (REGIONS - 1);
    const table = block.split[region]!;
    if (table === null) {
      this.words = block.whole;
      this.base = region * WORDS;
    } else {
      this.words = table;
      this.base = (pfn & (PAGES_PER_2M - 1)) * WORDS;
    }
  }

  /** True when the region of the page has 512 entries of its own. */
  isSplit(pfn: number): boolean {
    const block = this.#blocks[(pfn / PAGES_PER_BLOCK) | 0];
    return block !== undefined && block.split[(pfn >>> 9) & (REGIONS - 1)] !== null;
  }

  /** Writes the entry of one 4 KiB page. */
  put4K(pfn: number, word0: number, word1: number, word2: number): void {
    const block = this.#blockOf(pfn);
    const region = (pfn >>> 9) & (REGIONS - 1);
    const table = block.split[region] ?? this.#split(block, region);
    const at = (pfn & (PAGES_PER_2M - 1)) * WORDS;
    const before = table[at] !== 0;
    table[at] = word0;
    table[at + 1] = word1;
    table[at + 2] = word2;
    if (before !== (word0 !== 0)) {
      const used = block.used[region]! + (before ? -1 : 1);
      block.used[region] = used;
      if (used === 0) {
        block.split[region] = null;
        this.#spare.push(table);
        this.#splitCount -= 1;
      }
    }
  }

  /** Writes one entry for the whole region; what its 4 KiB entries were is gone. */
  put2M(pfn: number, word0: number, word1: number, word2: number): void {
    const block = this.#blockOf(pfn);
    const region = (pfn >>> 9) & (REGIONS - 1);
    const table = block.split[region]!;
    if (table !== null) {
      table.fill(0);
      block.split[region] = null;
      block.used[region] = 0;
      this.#spare.push(table);
      this.#splitCount -= 1;
    }
    const at = region * WORDS;
    block.whole[at] = word0;
    block.whole[at + 1] = word1;
    block.whole[at + 2] = word2;
  }

  /** Writes an entry in full, as firmware does; `pagesize` 1 covers the whole region. */
  store(pfn: Pfn, entry: RmpState): void {
    const flags =
      (entry.assigned ? ENTRY_ASSIGNED : 0) |
      (entry.pagesize === 1 ? ENTRY_2M : 0) |
      (entry.immutable ? ENTRY_IMMUTABLE : 0);
    const word0 = entryWord0(flags, entry.gfn);
    const word1 = entryWord1(
      entry.gfn,
      entry.asid,
      (entry.vmsa ? ENTRY_VMSA : 0) | (entry.validated ? ENTRY_VALIDATED : 0),
    );
    const [vmpl0, vmpl1, vmpl2, vmpl3] = entry.perms;
    const word2 = vmpl0 | (vmpl1 << 8) | (vmpl2 << 16) | (vmpl3 << 24);
    if (entry.pagesize === 1) {
      this.put2M(pfn, word0, word1, word2);
    } else {
      this.put4K(pfn, word0, word1, word2);
    }
  }

  /** Marks a range of hypervisor pages as HV-Fixed: they can never be given to a guest. */
  fix(from: Pfn, count: number): void {
    const end = from + count;
    let pfn: number = from;
    while (pfn < end) {
      if ((pfn & (PAGES_PER_2M - 1)) === 0 && end - pfn >= PAGES_PER_2M && !this.isSplit(pfn)) {
        this.put2M(pfn, ENTRY_IMMUTABLE, 0, 0);
        pfn += PAGES_PER_2M;
      } else {
        this.put4K(pfn, ENTRY_IMMUTABLE, 0, 0);
        pfn += 1;
      }
    }
  }

  /** Gives each page of an unsplit region its own entry, equal to the common one. */
  split(pfn: number): void {
    const block = this.#blockOf(pfn);
    const region = (pfn >>> 9) & (REGIONS - 1);
    if (block.split[region] === null) {
      this.#split(block, region);
    }
  }

  /** Every page becomes a hypervisor page. */
  reset(): void {
    this.#blocks.fill(undefined);
    this.#spare.length = 0;
    this.#blockCount = 0;
    this.#splitCount = 0;
  }

  isAssigned(pfn: Pfn): boolean {
    this.seek(pfn);
    return (this.words[this.base]! & ENTRY_ASSIGNED) !== 0;
  }

  isImmutable(pfn: Pfn): boolean {
    this.seek(pfn);
    return (this.words[this.base]! & ENTRY_IMMUTABLE) !== 0;
  }

  isVmsa(pfn: Pfn): boolean {
    this.seek(pfn);
    return (this.words[this.base + 1]! & ENTRY_VMSA) !== 0;
  }

  isValidated(pfn: Pfn): boolean {
    this.seek(pfn);
    return (this.words[this.base + 1]! & ENTRY_VALIDATED) !== 0;
  }

  /** 1 when the entry that covers the page is one of 2 MiB. */
  pagesizeOf(pfn: Pfn): 0 | 1 {
    this.seek(pfn);
    return (this.words[this.base]! & ENTRY_2M) === 0 ? 0 : 1;
  }

  asidOf(pfn: Pfn): Asid {
    this.seek(pfn);
    return ((this.words[this.base + 1]! >>> 19) & 0x3ff) as Asid;
  }

  /** Guest frame of this page, also inside a 2 MiB entry of a guest; 0 for pages of firmware. */
  gfnOf(pfn: Pfn): Gfn {
    this.seek(pfn);
    const word0 = this.words[this.base]!;
    const word1 = this.words[this.base + 1]!;
    return (entryGfn(word0, word1) + (countsFrames(word0, word1) ? pfn & (PAGES_PER_2M - 1) : 0)) as Gfn;
  }

  permsOf(pfn: Pfn, vmpl: Vmpl): number {
    this.seek(pfn);
    return (this.words[this.base + 2]! >>> (8 * vmpl)) & 0xf;
  }

  lookup(pfn: Pfn): RmpState {
    return {
      assigned: this.isAssigned(pfn),
      pagesize: this.pagesizeOf(pfn),
      immutable: this.isImmutable(pfn),
      gfn: this.gfnOf(pfn),
      asid: this.asidOf(pfn),
      vmsa: this.isVmsa(pfn),
      validated: this.isValidated(pfn),
      perms: [this.permsOf(pfn, 0), this.permsOf(pfn, 1), this.permsOf(pfn, 2), this.permsOf(pfn, 3)],
    };
  }

  /** Bytes the table takes now. */
  get memoryBytes(): number {
    const perBlock = 4 * WORDS * REGIONS + 8 * REGIONS + 2 * REGIONS;
    const perSplit = 4 * WORDS * PAGES_PER_2M;
    return (
      8 * this.#blocks.length +
      this.#blockCount * perBlock +
      (this.#splitCount + this.#spare.length) * perSplit
    );
  }

  #blockOf(pfn: number): Block {
    const index = (pfn / PAGES_PER_BLOCK) | 0;
    let block = this.#blocks[index];
    if (block === undefined) {
      block = {
        whole: new Int32Array(WORDS * REGIONS),
        split: new Array(REGIONS).fill(null),
        used: new Uint16Array(REGIONS),
      };
      this.#blocks[index] = block;
      this.#blockCount += 1;
    }
    return block;
  }

  #split(block: Block, region: number): Int32Array {
    const table = this.#spare.pop() ?? new Int32Array(WORDS * PAGES_PER_2M);
    const at = region * WORDS;
    const word0 = block.whole[at]!;
    if (word0 !== 0) {
      const word1 = block.whole[at + 1]!;
      const word2 = block.whole[at + 2]!;
      // A 2 MiB entry's frame number ends in nine zero bits, so adding an index never carries out of word 0.
      const step = countsFrames(word0, word1) ? 1 << 12 : 0;
      const first = word0 & ~ENTRY_2M;
      for (let i = 0; i < PAGES_PER_2M; i++) {
        table[i * WORDS] = first + i * step;
        table[i * WORDS + 1] = word1;
        table[i * WORDS + 2] = word2;
      }
      block.whole.fill(0, at, at + WORDS);
      block.used[region] = PAGES_PER_2M;
    }
    block.split[region] = table;
    this.#splitCount += 1;
    return table;
  }
}

/** First word: flags and the low 20 bits of the guest frame. */
export function entryWord0(flags: number, gfn: number): number {
  return flags | (gfn << 12);
}

/** Second word: the high 19 bits of the guest frame, the ASID, the VMSA and validated bits. */
export function entryWord1(gfn: number, asid: number, flags: number): number {
  return (gfn / 0x100000) | 0 | (asid << 19) | flags;
}

/** Whether the pages under one entry have guest frames of their own: a 2 MiB entry of a guest. */
function countsFrames(word0: number, word1: number): boolean {
  return (word0 & ENTRY_2M) !== 0 && ((word1 >>> 19) & 0x3ff) !== 0;
}

function entryGfn(word0: number, word1: number): number {
  return (word1 & 0x7ffff) * 0x100000 + (word0 >>> 12);
}
