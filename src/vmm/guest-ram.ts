// SPDX-License-Identifier: Apache-2.0
/**
 * The guest's memory as its VMM sees it: which guest addresses its own mappings back, and which of those
 * pages it has made private. Everything a guest says about addresses is judged here.
 */

import type { HostProcess } from '../kvm/host-kernel.ts';
import { PageBitmap } from '../kvm/page-bitmap.ts';
import { type Gpa, PAGE_SIZE, type Uaddr, uaddr } from '../lib/addresses.ts';
import type { FrameRange, SlotPlan } from './memory-layout.ts';

/** A block of host memory and its guest_memfd. */
export interface MemoryBlock {
  readonly userAddress: Uaddr;
  readonly guestMemfd: number;
}

export interface GuestSlot extends SlotPlan {
  readonly block: MemoryBlock;
}

const PAGE = BigInt(PAGE_SIZE);
const TWO_64 = 1n << 64n;

export class GuestRam {
  readonly #process: Pick<HostProcess, 'write'>;
  /** Ascending. */
  #slots: GuestSlot[] = [];
  readonly #private = new PageBitmap();

  constructor(process: Pick<HostProcess, 'write'>) {
    this.#process = process;
  }

  get slots(): readonly GuestSlot[] {
    return this.#slots;
  }

  /** Adds a slot, all of it private. */
  add(slot: GuestSlot): void {
    this.#slots = [...this.#slots, slot].sort((a, b) => a.from - b.from);
    this.#private.set(slot.from, slot.to - slot.from, true);
  }

  /** The parts of slots that make up a range; null unless they cover all of it. */
  resolve({ from, to }: FrameRange): readonly GuestSlot[] | null {
    const parts: GuestSlot[] = [];
    let next = from;
    for (const slot of this.#slots) {
      if (next < to && slot.from <= next && next < slot.to) {
        const end = Math.min(to, slot.to);
        parts.push({ from: next, to: end, blockPage: slot.blockPage + next - slot.from, block: slot.block });
        next = end;
      }
    }
    return next === to && to > from ? parts : null;
  }

  /** True when no slot has a page of the range. */
  isUnbacked({ from, to }: FrameRange): boolean {
    return this.#slots.every((slot) => slot.to <= from || slot.from >= to);
  }

  markPrivate({ from, to }: FrameRange, isPrivate: boolean): void {
    this.#private.set(from, to - from, isPrivate);
  }

  /**
   * Writes to memory the guest shares.
   *
   * Returns  null; or why not, and then nothing was written
   */
  writeShared(gpa: Gpa, data: Uint8Array): string | null {
    if (gpa + BigInt(data.length) > TWO_64) {
      return 'the range wraps';
    }
    const from = Number(gpa / PAGE);
    const range = { from, to: Number((gpa + BigInt(data.length) + PAGE - 1n) / PAGE) };
    const parts = this.resolve(range);
    if (parts === null) {
      return 'the range is not in guest memory';
    }
    for (let frame = range.from; frame < range.to; frame++) {
      if (this.#private.has(frame)) {
        return `page 0x${frame.toString(16)}000 is private`;
      }
    }
    let offset = Number(gpa % PAGE);
    let done = 0;
    for (const { from: first, to, blockPage, block } of parts) {
      const length = Math.min(data.length - done, (to - first) * PAGE_SIZE - offset);
      const at = uaddr(block.userAddress + BigInt(blockPage) * PAGE + BigInt(offset));
      if (!this.#process.write(at, data.subarray(done, done + length))) {
        return 'the RMP gives a page of the range to a guest';
      }
      done += length;
      offset = 0;
    }
    return null;
  }
}
