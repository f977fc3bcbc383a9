// SPDX-License-Identifier: Apache-2.0
/**
 * Where guest RAM lies: one block of memory, cut into slots around the holes of a PC, as QEMU's q35 does.
 *
 * Source   [QEMU] hw/i386/pc_q35.c (below-4G split), hw/i386/pc.c
 * Differs  the legacy hole from 640 KiB to 1 MiB has no RAM at all: no PAM, no shadowed BIOS
 */
import { PAGE_SIZE } from '../lib/addresses.ts';
import { InputError } from '../lib/errors.ts';

/** A run of page frames, [from, to). */
export interface FrameRange {
  readonly from: number;
  readonly to: number;
}

/** One memory slot: guest frames backed by pages of a block. */
export interface SlotPlan extends FrameRange {
  /** First page inside the block's mapping and its guest_memfd. */
  readonly blockPage: number;
}

const FRAMES_640K = 0xa0;
const FRAMES_1M = 0x100;
const FRAMES_4G = 0x10_0000;
/** RAM below 4 GiB when all of it does not fit there; otherwise the memory-mapped space starts higher. */
const LOW_SPLIT = 0x8_0000;
const LOW_MOST = 0xb_0000;
/** Guests that reach the HyperTransport hole below 1 TiB are laid out otherwise. */
const FRAMES_LIMIT = 0xfd_0000_0000 / PAGE_SIZE;
const MEMORY_LEAST = 32 * 1024 * 1024;

/**
 * Slots of the RAM block.
 *
 * Errors   OPTION_INVALID when the size is not whole pages or outside what this layout holds
 */
export function ramSlots(memoryBytes: number): readonly SlotPlan[] {
  const pages = memoryBytes / PAGE_SIZE;
  const highest = FRAMES_LIMIT - FRAMES_4G + LOW_SPLIT;
  if (!Number.isInteger(pages) || memoryBytes < MEMORY_LEAST || pages > highest) {
    throw new InputError(
      'OPTION_INVALID',
      `${memoryBytes} bytes; whole pages from 32 MiB to ${(highest * PAGE_SIZE) / 2 ** 30} GiB are possible`,
      { where: 'memory size' },
    );
  }
  const low = pages >= LOW_MOST ? LOW_SPLIT : pages;
  const slots: SlotPlan[] = [
    { from: 0, to: FRAMES_640K, blockPage: 0 },
    { from: FRAMES_1M, to: low, blockPage: FRAMES_1M },
  ];
  if (pages > low) {
    slots.push({ from: FRAMES_4G, to: FRAMES_4G + pages - low, blockPage: low });
  }
  return slots;
}
