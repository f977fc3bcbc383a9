// SPDX-License-Identifier: Apache-2.0
/**
 * Physical memory behind an encrypting memory controller.
 *
 * A page keeps its plaintext and the key it was last written under; ciphertext exists only when someone
 * without that key looks. Pages nobody touched take no memory and hold zeros in the DRAM cells.
 *
 * Differs  a key slot nobody loaded passes data through in clear (docs/limitations.md#memory-encryption)
 */
import { type Asid, PAGE_SIZE, type Pfn, type Spa } from '../lib/addresses.ts';
import { copyBytes } from '../lib/bytes.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';

/** 42 physical address bits: 4 TiB, more than any board the model stands for holds. */
export const PHYSICAL_PAGES = 2 ** 30;
const PHYSICAL_BYTES = BigInt(PHYSICAL_PAGES) * BigInt(PAGE_SIZE);

/** ASIDs of the RMP entry have 10 bits. */
export const MAX_ASID = 1023;

/** Key slot of the secure processor's own data, above every ASID. */
export const SECURE_PROCESSOR_SLOT = (MAX_ASID + 1) as Asid;

interface Page {
  bytes: Uint8Array;
  /** Key object the bytes are encrypted under in DRAM; null: stored in clear. */
  key: Uint8Array | null;
}

const ZEROS = new Uint8Array(PAGE_SIZE);

export class PhysicalMemory {
  readonly #crypto: MachineCrypto;
  readonly #pages = new Map<number, Page>();
  readonly #keys: (Uint8Array | null)[] = new Array(MAX_ASID + 2).fill(null);

  constructor(crypto: MachineCrypto) {
    this.#crypto = crypto;
  }

  /** Pages that take memory now. */
  get touchedPages(): number {
    return this.#pages.size;
  }

  /** True when [at, at + length) lies in physical memory; the sum cannot wrap. */
  contains(at: bigint, length: number): boolean {
    return at >= 0n && at <= PHYSICAL_BYTES - BigInt(length);
  }

  /** Loads or clears a key slot of the memory controller. Each load counts as another key. */
  setKey(asid: Asid, key: Uint8Array | null): void {
    this.#keys[asid] = key === null ? null : key.slice();
  }

  /** What a reader with this ASID's key sees; ASID 0 sees the DRAM cells. */
  read(at: Spa, length: number, asid: Asid): Uint8Array {
    const out = new Uint8Array(length);
    this.readInto(out, 0, at, length, asid);
    return out;
  }

  /** The same into memory of the caller's, from `start` on. */
  readInto(out: Uint8Array, start: number, at: Spa, length: number, asid: Asid): void {
    invariant(this.contains(at, length), 'read outside physical memory');
    let pfn = Math.floor(Number(at) / PAGE_SIZE);
    let offset = Number(at) % PAGE_SIZE;
    let done = 0;
    while (done < length) {
      const take = Math.min(length - done, PAGE_SIZE - offset);
      this.readPage(out, start + done, pfn as Pfn, offset, take, asid);
      done += take;
      pfn += 1;
      offset = 0;
    }
  }

  /** The same where all of it lies in one page of physical memory. */
  readPage(out: Uint8Array, start: number, pfn: Pfn, offset: number, length: number, asid: Asid): void {
    invariant(pfn < PHYSICAL_PAGES, 'read outside physical memory');
    copyBytes(out, start, this.#view(pfn, this.#keys[asid]!), offset, length);
  }

  /** Writes under this ASID's key; a page kept under another key changes only in the DRAM cells written. */
  write(at: Spa, data: Uint8Array, asid: Asid): void {
    invariant(this.contains(at, data.length), 'write outside physical memory');
    let pfn = Math.floor(Number(at) / PAGE_SIZE);
    let offset = Number(at) % PAGE_SIZE;
    let done = 0;
    while (done < data.length) {
      const take = Math.min(data.length - done, PAGE_SIZE - offset);
      this.writePage(pfn as Pfn, offset, data, done, take, asid);
      done += take;
      pfn += 1;
      offset = 0;
    }
  }

  /** The same for `length` bytes of `data` from `from` on that go into one page of physical memory. */
  writePage(pfn: Pfn, offset: number, data: Uint8Array, from: number, length: number, asid: Asid): void {
    invariant(pfn < PHYSICAL_PAGES, 'write outside physical memory');
    const page = this.#writable(pfn, this.#keys[asid]!, length === PAGE_SIZE);
    copyBytes(page, offset, data, from, length);
  }

  /** Gives pages back: they hold zeros in clear and take no memory. */
  discard(from: Pfn, count: number): void {
    if (count > this.#pages.size) {
      for (const pfn of this.#pages.keys()) {
        if (pfn >= from && pfn < from + count) {
          this.#pages.delete(pfn);
        }
      }
      return;
    }
    for (let pfn: number = from; pfn < from + count; pfn++) {
      this.#pages.delete(pfn);
    }
  }

  /** Page contents as seen under `key`; not to be kept or changed. */
  #view(pfn: number, key: Uint8Array | null): Uint8Array {
    const page = this.#pages.get(pfn);
    if (page === undefined) {
      return key === null ? ZEROS : this.#crypto.memoryDecrypt(key, pfn, ZEROS);
    }
    if (page.key === key) {
      return page.bytes;
    }
    const cells = page.key === null ? page.bytes : this.#crypto.memoryEncrypt(page.key, pfn, page.bytes);
    return key === null ? cells : this.#crypto.memoryDecrypt(key, pfn, cells);
  }

  #writable(pfn: number, key: Uint8Array | null, whole: boolean): Uint8Array {
    const page = this.#pages.get(pfn);
    if (page !== undefined && page.key === key) {
      return page.bytes;
    }
    if (page !== undefined && whole) {
      page.key = key;
      return page.bytes;
    }
    const bytes = whole ? new Uint8Array(PAGE_SIZE) : this.#view(pfn, key).slice();
    if (page === undefined) {
      this.#pages.set(pfn, { bytes, key });
    } else {
      page.bytes = bytes;
      page.key = key;
    }
    return bytes;
  }
}
