// SPDX-License-Identifier: Apache-2.0
/**
 * One bit per page over an address space nobody fills: memory attributes, pages of a guest_memfd.
 *
 * A gibibyte whose pages agree takes one map entry, any other 32 KiB. Bits are read and written millions
 * of times a second in neighbouring places, so the last gibibyte stays at hand.
 */

const REGION_PAGES = 2 ** 18;
const REGION_WORDS = REGION_PAGES / 32;
const CHUNK_WORDS = 512 / 32;

type Region = Uint32Array | 'set' | undefined;

export class PageBitmap {
  readonly #regions = new Map<number, Region>();
  #at = -1;
  #region: Region;

  has(page: number): boolean {
    const region = this.#regionOf(page);
    if (region === undefined || region === 'set') {
      return region === 'set';
    }
    const bit = page % REGION_PAGES;
    return ((region[bit >>> 5]! >>> (bit & 31)) & 1) === 1;
  }

  /** True when all 512 pages of the aligned 2 MiB around the page are set. */
  chunkIsSet(page: number): boolean {
    return this.#chunkIs(page, 0xffffffff);
  }

  /** True when none of the 512 pages is set. */
  chunkIsClear(page: number): boolean {
    return this.#chunkIs(page, 0);
  }

  set(from: number, count: number, value: boolean): void {
    const end = from + count;
    let page = from;
    while (page < end) {
      const index = Math.floor(page / REGION_PAGES);
      const first = page - index * REGION_PAGES;
      const last = Math.min(REGION_PAGES, end - index * REGION_PAGES);
      this.#setInRegion(index, first, last, value);
      page = (index + 1) * REGION_PAGES;
    }
  }

  #chunkIs(page: number, word: number): boolean {
    const region = this.#regionOf(page);
    if (region === undefined || region === 'set') {
      return (region === 'set') === (word !== 0);
    }
    const from = ((page % REGION_PAGES) >>> 9) * CHUNK_WORDS;
    for (let i = from; i < from + CHUNK_WORDS; i++) {
      if (region[i] !== word) {
        return false;
      }
    }
    return true;
  }

  #regionOf(page: number): Region {
    const index = Math.floor(page / REGION_PAGES);
    if (index !== this.#at) {
      this.#at = index;
      this.#region = this.#regions.get(index);
    }
    return this.#region;
  }

  #setInRegion(index: number, first: number, last: number, value: boolean): void {
    const before = this.#regionOf(index * REGION_PAGES);
    if (before === (value ? 'set' : undefined)) {
      return;
    }
    if (first === 0 && last === REGION_PAGES) {
      this.#store(index, value ? 'set' : undefined);
      return;
    }
    let words: Uint32Array;
    if (before === undefined || before === 'set') {
      words = new Uint32Array(REGION_WORDS);
      if (before === 'set') {
        words.fill(0xffffffff);
      }
      this.#store(index, words);
    } else {
      words = before;
    }
    fillBits(words, first, last, value);
  }

  #store(index: number, region: Region): void {
    if (region === undefined) {
      this.#regions.delete(index);
    } else {
      this.#regions.set(index, region);
    }
    this.#region = region;
  }
}

function fillBits(words: Uint32Array, first: number, last: number, value: boolean): void {
  const fromWord = first >>> 5;
  const toWord = (last - 1) >>> 5;
  const head = (0xffffffff << (first & 31)) >>> 0;
  const tail = 0xffffffff >>> (31 - ((last - 1) & 31));
  if (fromWord === toWord) {
    const mask = head & tail;
    words[fromWord] = value ? words[fromWord]! | mask : words[fromWord]! & ~mask;
    return;
  }
  words[fromWord] = value ? words[fromWord]! | head : words[fromWord]! & ~head;
  words.fill(value ? 0xffffffff : 0, fromWord + 1, toWord);
  words[toWord] = value ? words[toWord]! | tail : words[toWord]! & ~tail;
}
