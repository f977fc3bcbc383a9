// SPDX-License-Identifier: Apache-2.0
/**
 * Memory of one userspace process: anonymous mappings, each on a run of contiguous frames that are
 * reserved at once and take memory only when touched. Processes start with none of it mapped.
 */
import {
  PAGE_SIZE,
  PAGES_PER_2M,
  type Pfn,
  pfn,
  type Spa,
  spa,
  type Uaddr,
  uaddr,
} from '../lib/addresses.ts';
import { InputError } from '../lib/errors.ts';
import type { HostFrames } from './host-frames.ts';

/** Addresses from here on belong to the kernel: access_ok() refuses them. */
export const TASK_SIZE = 2 ** 47;

const MMAP_BASE = 0x7f00_0000_0000 - 2 ** 46;

interface Mapping {
  readonly start: number;
  readonly pages: number;
  readonly frame: Pfn;
}

export class UserMemory {
  readonly #frames: HostFrames;
  /** Ascending by start. */
  readonly #mappings: Mapping[] = [];
  #next = MMAP_BASE;
  #last: Mapping | undefined;

  constructor(frames: HostFrames) {
    this.#frames = frames;
  }

  /**
   * Maps zeroed memory; the size is rounded up to pages. From 2 MiB on the mapping is 2 MiB aligned, in
   * physical memory too.
   *
   * Errors   HOST_MEMORY_EXHAUSTED
   */
  mmap(size: number): Uaddr {
    const pages = Math.ceil(size / PAGE_SIZE);
    const align = pages >= PAGES_PER_2M ? PAGES_PER_2M : 1;
    const start = Math.ceil(this.#next / (align * PAGE_SIZE)) * align * PAGE_SIZE;
    const end = start + pages * PAGE_SIZE;
    const frame = pages > 0 && end < TASK_SIZE ? this.#frames.alloc(pages, align) : null;
    if (frame === null) {
      throw new InputError('HOST_MEMORY_EXHAUSTED', `cannot map ${size} bytes`, { where: 'mmap' });
    }
    this.#mappings.push({ start, pages, frame });
    // One page stays free, so that a run off the end of one mapping faults.
    this.#next = end + PAGE_SIZE;
    return uaddr(BigInt(start));
  }

  /** Unmaps whatever of the range is mapped. False when the range is not page aligned, empty or too high. */
  munmap(at: bigint, size: number): boolean {
    const from = Number(at);
    const to = from + Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    if (at < 0n || from % PAGE_SIZE !== 0 || !(size > 0) || to > TASK_SIZE) {
      return false;
    }
    const kept: Mapping[] = [];
    for (const mapping of this.#mappings) {
      kept.push(...this.#cut(mapping, from, to));
    }
    this.#mappings.splice(0, this.#mappings.length, ...kept);
    this.#last = undefined;
    return true;
  }

  unmapAll(): void {
    for (const mapping of this.#mappings.splice(0)) {
      this.#frames.free(mapping.frame, mapping.pages);
    }
    this.#last = undefined;
  }

  /** Frame behind a user address; -1 when nothing is mapped there. */
  frameAt(address: number): number {
    let mapping = this.#last;
    if (mapping === undefined || address < mapping.start || address >= endOf(mapping)) {
      mapping = this.#find(address);
      if (mapping === undefined) {
        return -1;
      }
      this.#last = mapping;
    }
    return mapping.frame + Math.floor((address - mapping.start) / PAGE_SIZE);
  }

  /** True when one mapping holds the whole range. */
  covers(at: bigint, size: bigint): boolean {
    return size < BigInt(TASK_SIZE) && this.#spaOf(at, Number(size)) !== null;
  }

  /** Null where copy_from_user would fault. */
  read(at: bigint, length: number): Uint8Array | null {
    if (length === 0) {
      return new Uint8Array(0);
    }
    const from = this.#spaOf(at, length);
    return from === null ? null : this.#frames.hw.hostRead(from, length);
  }

  /** False where copy_to_user would fault. */
  write(at: bigint, data: Uint8Array): boolean {
    const to = this.#spaOf(at, data.length);
    return to !== null && this.#frames.hw.hostWrite(to, data) === null;
  }

  /** Physical address of a range that lies in one mapping. Neighbouring mappings never touch. */
  #spaOf(at: bigint, length: number): Spa | null {
    if (at < 0n || at >= BigInt(TASK_SIZE)) {
      return null;
    }
    const address = Number(at);
    const frame = this.frameAt(address);
    if (frame === -1 || address + length > endOf(this.#last!)) {
      return null;
    }
    return spa(BigInt(frame * PAGE_SIZE + (address % PAGE_SIZE)));
  }

  #find(address: number): Mapping | undefined {
    let low = 0;
    let high = this.#mappings.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (endOf(this.#mappings[middle]!) <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const found = this.#mappings[low];
    return found !== undefined && found.start <= address ? found : undefined;
  }

  /** What stays of a mapping outside [from, to); the rest is freed. */
  #cut(mapping: Mapping, from: number, to: number): Mapping[] {
    const cutFrom = Math.max(from, mapping.start);
    const cutTo = Math.min(to, endOf(mapping));
    if (cutFrom >= cutTo) {
      return [mapping];
    }
    const before = (cutFrom - mapping.start) / PAGE_SIZE;
    const cut = (cutTo - cutFrom) / PAGE_SIZE;
    this.#frames.free(pfn(mapping.frame + before), cut);
    const rest: Mapping[] = [];
    if (before > 0) {
      rest.push({ start: mapping.start, pages: before, frame: mapping.frame });
    }
    if (cutTo < endOf(mapping)) {
      rest.push({
        start: cutTo,
        pages: mapping.pages - before - cut,
        frame: pfn(mapping.frame + before + cut),
      });
    }
    return rest;
  }
}

function endOf(mapping: Mapping): number {
  return mapping.start + mapping.pages * PAGE_SIZE;
}
