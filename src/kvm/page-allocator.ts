// SPDX-License-Identifier: Apache-2.0
/** Physical page frames of the host: contiguous ranges, first fit, given back in any order. */
import { PAGES_PER_2M, type Pfn, pfn } from '../lib/addresses.ts';
import { invariant } from '../lib/errors.ts';

interface Range {
  from: number;
  count: number;
}

export class PageAllocator {
  /** Ascending, never adjacent. */
  readonly #free: Range[];

  constructor(from: number, count: number) {
    this.#free = [{ from, count }];
  }

  /** A range whose first frame is a multiple of `align`; null when there is none. */
  alloc(count: number, align = 1): Pfn | null {
    for (let i = 0; i < this.#free.length; i++) {
      const range = this.#free[i]!;
      const first = Math.ceil(range.from / align) * align;
      if (first + count <= range.from + range.count) {
        this.#take(i, first, count);
        return pfn(first);
      }
    }
    return null;
  }

  /** One frame that is never the first of a 2 MiB range, as the SNP erratum asks for VMSA pages. */
  allocInside2M(): Pfn | null {
    for (let i = 0; i < this.#free.length; i++) {
      const range = this.#free[i]!;
      const first = range.from % PAGES_PER_2M === 0 ? range.from + 1 : range.from;
      if (first < range.from + range.count) {
        this.#take(i, first, 1);
        return pfn(first);
      }
    }
    return null;
  }

  free(from: Pfn, count: number): void {
    const at = this.#free.findIndex((range) => range.from > from);
    const index = at === -1 ? this.#free.length : at;
    const before = this.#free[index - 1];
    const after = this.#free[index];
    invariant(before === undefined || before.from + before.count <= from, 'page frame freed twice');
    invariant(after === undefined || from + count <= after.from, 'page frame freed twice');
    const joinsBefore = before !== undefined && before.from + before.count === from;
    const joinsAfter = after !== undefined && from + count === after.from;
    if (joinsBefore) {
      before.count += count;
      if (joinsAfter) {
        before.count += after.count;
        this.#free.splice(index, 1);
      }
    } else if (joinsAfter) {
      after.from = from;
      after.count += count;
    } else {
      this.#free.splice(index, 0, { from, count });
    }
  }

  #take(index: number, first: number, count: number): void {
    const range = this.#free[index]!;
    const rest: Range[] = [];
    if (first > range.from) {
      rest.push({ from: range.from, count: first - range.from });
    }
    if (first + count < range.from + range.count) {
      rest.push({ from: first + count, count: range.from + range.count - first - count });
    }
    this.#free.splice(index, 1, ...rest);
  }
}
