// SPDX-License-Identifier: Apache-2.0
/**
 * guest_memfd: memory of a guest that userspace cannot map.
 *
 * A file's frames are contiguous and 2 MiB aligned from its start, reserved when it is made and paid for
 * when touched. A page is prepared once the RMP gives it to the guest.
 *
 * Source   [KVM] "guest_memfd", "guest_memfd page life"; [LINUX] virt/kvm/guest_memfd.c, svm/sev.c
 */
import { Errno } from '../abi/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../abi/kvm.ts';
import { type Asid, gfn, PAGE_SIZE, PAGES_PER_2M, type Pfn, pfn } from '../lib/addresses.ts';
import type { KernelFile } from './files.ts';
import type { MemorySlot } from './guest-memory.ts';
import type { HostFrames } from './host-frames.ts';
import { PageBitmap } from './page-bitmap.ts';
import type { Vm } from './vm.ts';

/** Largest offset a file can have. */
const MAX_LFS_FILESIZE = 2 ** 63 - 1;

export class GuestMemfd implements KernelFile {
  readonly vm: Vm;
  readonly pages: number;
  readonly firstFrame: Pfn;
  readonly #frames: HostFrames;
  readonly #prepared = new PageBitmap();
  /** Pages with leftovers of a launch update that failed; they are cleared before the guest gets them. */
  readonly #stale = new Set<number>();
  readonly #bindings = new Set<MemorySlot>();

  constructor(vm: Vm, frames: HostFrames, firstFrame: Pfn, pages: number) {
    this.vm = vm;
    this.#frames = frames;
    this.firstFrame = firstFrame;
    this.pages = pages;
    vm.retain();
  }

  frameAt(page: number): Pfn {
    return pfn(this.firstFrame + page);
  }

  isPrepared(page: number): boolean {
    return this.#prepared.has(page);
  }

  markPrepared(page: number): void {
    this.#prepared.set(page, 1, true);
    this.#stale.delete(page);
  }

  /** The page holds data, but does not belong to the guest. */
  markStale(page: number): void {
    this.#stale.add(page);
  }

  /**
   * Gives an unprepared page to the guest, zeroed and not validated. With `wholeChunk` the aligned 2 MiB
   * around it go together, as one RMP entry, if none of them was prepared before.
   *
   * Returns  0; -EINVAL when the RMP refuses
   */
  prepare(page: number, guestFrame: number, asid: Asid, wholeChunk: boolean): number {
    const frame = this.firstFrame + page;
    if (this.#frames.hw.rmp.isAssigned(pfn(frame))) {
      this.markPrepared(page);
      return 0;
    }
    const inside = frame % PAGES_PER_2M;
    const huge = wholeChunk && inside <= page && this.#prepared.chunkIsClear(page);
    const first = huge ? page - inside : page;
    const count = huge ? PAGES_PER_2M : 1;
    this.#clearStale(first, count);
    const guestFirst = gfn(huge ? guestFrame - inside : guestFrame);
    if (!this.#frames.makePrivate(this.frameAt(first), guestFirst, huge ? 1 : 0, asid, false)) {
      return -Errno.EINVAL;
    }
    this.#prepared.set(first, count, true);
    return 0;
  }

  /** True when pages [page, page + count) lie in the file and no slot has any of them. */
  canBind(page: number, count: number): boolean {
    if (page + count > this.pages) {
      return false;
    }
    for (const slot of this.#bindings) {
      if (page < slot.gmemPage + slot.npages && slot.gmemPage < page + count) {
        return false;
      }
    }
    return true;
  }

  bind(slot: MemorySlot): void {
    this.#bindings.add(slot);
  }

  unbind(slot: MemorySlot): void {
    this.#bindings.delete(slot);
  }

  /** fallocate(2). Frames are there already, so to allocate is to check the range. */
  fallocate(mode: number, offset: number, length: number): number {
    if (!(offset >= 0) || !(length > 0) || !Number.isInteger(offset) || !Number.isInteger(length)) {
      return -Errno.EINVAL;
    }
    if ((mode & FALLOC_FL_KEEP_SIZE) === 0 || (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) !== 0) {
      return -Errno.EOPNOTSUPP;
    }
    if (offset + length > MAX_LFS_FILESIZE) {
      return -Errno.EFBIG;
    }
    if (offset % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0) {
      return -Errno.EINVAL;
    }
    const from = offset / PAGE_SIZE;
    const to = (offset + length) / PAGE_SIZE;
    if ((mode & FALLOC_FL_PUNCH_HOLE) !== 0) {
      this.#invalidate(Math.min(from, this.pages), Math.min(to, this.pages));
      return 0;
    }
    return to > this.pages ? -Errno.EINVAL : 0;
  }

  ioctl(): number {
    return -Errno.ENOTTY;
  }

  release(): void {
    for (const slot of this.#bindings) {
      slot.gmem = null;
    }
    this.#bindings.clear();
    this.#invalidate(0, this.pages);
    this.#frames.free(this.firstFrame, this.pages);
    this.vm.release();
  }

  /** Takes pages from the guest: RMP entries back to the hypervisor, contents gone. */
  #invalidate(from: number, to: number): void {
    let page = from;
    while (page < to) {
      const chunkEnd = Math.min(to, page - (page % PAGES_PER_2M) + PAGES_PER_2M);
      if (!this.#prepared.chunkIsClear(page)) {
        this.#invalidateInChunk(page, chunkEnd);
      }
      page = chunkEnd;
    }
    this.#clearStale(from, to - from);
  }

  #invalidateInChunk(from: number, to: number): void {
    const { rmp, memory } = this.#frames.hw;
    const first = this.frameAt(from);
    if (rmp.pagesizeOf(first) === 1) {
      if (to - from === PAGES_PER_2M) {
        this.#frames.makeShared(first, 1);
        memory.discard(first, PAGES_PER_2M);
        this.#prepared.set(from, PAGES_PER_2M, false);
        return;
      }
      this.#frames.hw.psmash(pfn(first - (first % PAGES_PER_2M)));
    }
    for (let page = from; page < to; page++) {
      if (this.#prepared.has(page)) {
        this.#frames.makeShared(this.frameAt(page));
      }
    }
    memory.discard(first, to - from);
    this.#prepared.set(from, to - from, false);
  }

  #clearStale(from: number, count: number): void {
    if (this.#stale.size === 0) {
      return;
    }
    for (const page of this.#stale) {
      if (page >= from && page < from + count) {
        this.#frames.hw.memory.discard(this.frameAt(page), 1);
        this.#stale.delete(page);
      }
    }
  }
}
