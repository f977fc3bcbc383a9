// SPDX-License-Identifier: Apache-2.0
/** The host's page frames together with what the RMP says about them. */
import type { Hardware } from '../hw/hardware.ts';
import type { RmpUpdate } from '../hw/instructions.ts';
import { type Asid, type Gfn, gfn, PAGE_SIZE, type Pfn, pfn, type Spa, spaOf } from '../lib/addresses.ts';
import { PageAllocator } from './page-allocator.ts';

/** Frames below 1 MiB stay unused, as on a PC. */
const FIRST_FRAME = 0x100;
/** 64 TiB, all that the modelled memory controller addresses. */
const FRAMES = 2 ** 34;

const HOST_ASID = 0 as Asid;

export class HostFrames {
  readonly hw: Hardware;
  readonly #allocator = new PageAllocator(FIRST_FRAME, FRAMES - FIRST_FRAME);
  /** Ascending. */
  readonly #leaked: number[] = [];
  readonly #update: RmpUpdate = {
    gfn: gfn(0),
    assigned: false,
    pagesize: 0,
    immutable: false,
    asid: HOST_ASID,
  };

  constructor(hw: Hardware) {
    this.hw = hw;
  }

  /** Frames that hold zeros; null when there are none left. */
  alloc(count: number, align = 1): Pfn | null {
    return this.#allocator.alloc(count, align);
  }

  /** A frame for a VMSA: never 2 MiB aligned. */
  allocForVmsa(): Pfn | null {
    return this.#allocator.allocInside2M();
  }

  /** Takes frames back, but for leaked ones; they must be hypervisor pages in the RMP. */
  free(from: Pfn, count: number): void {
    this.hw.memory.discard(from, count);
    let first: number = from;
    for (const lost of this.#leaked) {
      if (lost >= from && lost < from + count) {
        if (lost > first) {
          this.#allocator.free(pfn(first), lost - first);
        }
        first = lost + 1;
      }
    }
    if (first < from + count) {
      this.#allocator.free(pfn(first), from + count - first);
    }
  }

  /** A frame the RMP will not give back: nobody gets it again. */
  leak(frame: Pfn): void {
    this.#leaked.push(frame);
    this.#leaked.sort((a, b) => a - b);
  }

  read(frame: Pfn, offset: number, length: number): Uint8Array {
    return this.hw.hostRead(at(frame, offset), length);
  }

  /** All of it lies in the frame. */
  readInto(out: Uint8Array, start: number, frame: Pfn, offset: number, length: number): void {
    this.hw.hostReadPage(out, start, frame, offset, length);
  }

  /** False when the RMP gives the page, or one it runs into, to somebody else. */
  write(frame: Pfn, offset: number, data: Uint8Array): boolean {
    return offset + data.length <= PAGE_SIZE
      ? this.writePart(frame, offset, data, 0, data.length)
      : this.hw.hostWrite(at(frame, offset), data) === null;
  }

  /** The same for `length` bytes of `data` from `from` on that lie in the frame. */
  writePart(frame: Pfn, offset: number, data: Uint8Array, from: number, length: number): boolean {
    return this.hw.hostWritePage(frame, offset, data, from, length) === null;
  }

  /** RMPUPDATE to a page of a guest; false when the processor refuses. */
  makePrivate(frame: Pfn, guestFrame: Gfn, pagesize: 0 | 1, asid: Asid, immutable: boolean): boolean {
    const update = this.#update;
    update.gfn = guestFrame;
    update.assigned = true;
    update.pagesize = pagesize;
    update.immutable = immutable;
    update.asid = asid;
    return this.hw.rmpupdate(frame, update) === 0;
  }

  /** RMPUPDATE to a firmware page. */
  makeFirmware(frame: Pfn): boolean {
    return this.makePrivate(frame, gfn(0), 0, HOST_ASID, true);
  }

  /** RMPUPDATE to a hypervisor page. */
  makeShared(frame: Pfn, pagesize: 0 | 1 = 0): boolean {
    const update = this.#update;
    update.gfn = gfn(0);
    update.assigned = false;
    update.pagesize = pagesize;
    update.immutable = false;
    update.asid = HOST_ASID;
    return this.hw.rmpupdate(frame, update) === 0;
  }
}

const at = (frame: Pfn, offset: number): Spa => (spaOf(frame) + BigInt(offset)) as Spa;
