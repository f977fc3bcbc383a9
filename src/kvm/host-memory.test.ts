// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Hardware } from '../hw/hardware.ts';
import { asid, gfn, pfn, uaddr } from '../lib/addresses.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { HostFrames } from './host-frames.ts';
import { PageAllocator } from './page-allocator.ts';
import { PageBitmap } from './page-bitmap.ts';
import { UserMemory } from './user-memory.ts';

const frames = () => new HostFrames(new Hardware(nodeCrypto({ deterministic: true })));

describe('PageBitmap', () => {
  it('behaves like a set of pages, whatever ranges are set and cleared', () => {
    const page = fc.oneof(
      fc.nat(2000),
      fc.integer({ min: 2 ** 18 - 600, max: 2 ** 18 + 600 }),
      fc.integer({ min: 2 ** 52 - 1200, max: 2 ** 52 - 1 }),
    );
    const step = fc.tuple(page, fc.integer({ min: 1, max: 1100 }), fc.boolean());
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), page, (steps, probe) => {
        const bitmap = new PageBitmap();
        const model = new Set<number>();
        for (const [from, count, value] of steps) {
          bitmap.set(from, count, value);
          for (let i = from; i < from + count; i++) {
            if (value) {
              model.add(i);
            } else {
              model.delete(i);
            }
          }
        }
        const first = probe - (probe % 512);
        const chunk = Array.from({ length: 512 }, (_, i) => model.has(first + i));
        expect(bitmap.has(probe)).toBe(model.has(probe));
        expect(bitmap.chunkIsSet(probe)).toBe(chunk.every(Boolean));
        expect(bitmap.chunkIsClear(probe)).toBe(!chunk.some(Boolean));
      }),
      { numRuns: 200 },
    );
  });

  it('sets gibibytes without touching each page', () => {
    const bitmap = new PageBitmap();
    bitmap.set(0, 2 ** 36, true);
    expect([bitmap.has(0), bitmap.has(2 ** 36 - 1), bitmap.has(2 ** 36)]).toEqual([true, true, false]);
    bitmap.set(5, 2 ** 36 - 5, false);
    expect([bitmap.has(4), bitmap.has(5), bitmap.chunkIsClear(512)]).toEqual([true, false, true]);
  });
});

describe('PageAllocator', () => {
  it('never hands a frame out twice, respects alignment, and gets everything back', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.constantFrom(1, 8, 64), fc.boolean()), {
          maxLength: 60,
        }),
        (requests) => {
          const allocator = new PageAllocator(10, 1000);
          const held: { from: number; count: number }[] = [];
          for (const [count, align, release] of requests) {
            const given = allocator.alloc(count, align);
            if (given !== null) {
              expect(given % align).toBe(0);
              expect(held.every(({ from, count: n }) => given + count <= from || from + n <= given)).toBe(
                true,
              );
              held.push({ from: given, count });
            }
            const first = release ? held.shift() : undefined;
            if (first !== undefined) {
              allocator.free(pfn(first.from), first.count);
            }
          }
          for (const { from, count } of held) {
            allocator.free(pfn(from), count);
          }
          expect(allocator.alloc(1000)).toBe(10);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('gives VMSA frames that no 2 MiB page begins with', () => {
    const allocator = new PageAllocator(512, 3);
    expect([0, 1, 2].map(() => allocator.allocInside2M())).toEqual([513, 514, null]);
  });

  it('refuses a frame that is free already', () => {
    const allocator = new PageAllocator(0, 10);
    expect(() => allocator.free(pfn(3), 1)).toThrow('freed twice');
  });
});

describe('HostFrames', () => {
  it('keeps leaked frames out of circulation', () => {
    const host = frames();
    const range = host.alloc(10)!;
    host.leak(pfn(range + 4));
    host.free(range, 10);
    expect(host.alloc(4)).toBe(range);
    expect(host.alloc(5)).toBe(range + 5);
  });

  it('refuses writes to pages the RMP gives away', () => {
    const host = frames();
    const page = host.alloc(1)!;
    expect(host.write(page, 8, Uint8Array.of(1))).toBe(true);
    expect(host.makePrivate(page, gfn(5), 0, asid(3), false)).toBe(true);
    expect(host.write(page, 8, Uint8Array.of(2))).toBe(false);
    expect(host.makeShared(page)).toBe(true);
    expect(host.read(page, 8, 1)).toEqual(Uint8Array.of(1));
  });
});

describe('UserMemory', () => {
  it('is zero, and faults outside its mappings and across their ends', () => {
    const memory = new UserMemory(frames());
    const at = memory.mmap(5000);
    expect(memory.read(at, 8192)).toEqual(new Uint8Array(8192));
    expect(memory.write(uaddr(at + 8190n), Uint8Array.of(1, 2))).toBe(true);
    expect(memory.write(uaddr(at + 8191n), Uint8Array.of(1, 2))).toBe(false);
    expect(memory.read(uaddr(at + 8192n), 1)).toBeNull();
    expect([0n, -1n, 1n << 63n, (1n << 64n) - 1n].map((address) => memory.read(address, 1))).toEqual([
      null,
      null,
      null,
      null,
    ]);
  });

  it('unmaps the middle of a mapping, whose frames others may get, cleared', () => {
    const memory = new UserMemory(frames());
    const at = memory.mmap(3 * 4096);
    memory.write(at, new Uint8Array(3 * 4096).fill(7));
    expect(memory.munmap(uaddr(at + 4096n), 4096)).toBe(true);
    expect(memory.read(at, 4096)).toEqual(new Uint8Array(4096).fill(7));
    expect(memory.read(uaddr(at + 4095n), 2)).toBeNull();
    expect(memory.read(uaddr(at + 8192n), 4096)).toEqual(new Uint8Array(4096).fill(7));
    const next = memory.mmap(4096);
    expect(memory.read(next, 4096)).toEqual(new Uint8Array(4096));
  });

  it.each([
    ['an unaligned address', 1n, 4096],
    ['no length', 4096n, 0],
    ['a kernel address', 1n << 47n, 4096],
  ])('munmap refuses %s', (_, at, size) => {
    expect(new UserMemory(frames()).munmap(at, size)).toBe(false);
  });

  it.each([0, 2 ** 60, Number.NaN])('mmap of %d bytes: HOST_MEMORY_EXHAUSTED', (size) => {
    expect(() => new UserMemory(frames()).mmap(size)).toThrow('cannot map');
  });
});
