// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { gpa, uaddr } from '../lib/addresses.ts';
import { GuestRam } from './guest-ram.ts';
import { ramSlots } from './memory-layout.ts';

const GIB = 2 ** 30;

describe('ramSlots', () => {
  it('leaves out 640 KiB to 1 MiB and everything above 2 GiB when RAM does not fit below 2.75 GiB', () => {
    expect(ramSlots(GIB)).toEqual([
      { from: 0, to: 0xa0, blockPage: 0 },
      { from: 0x100, to: 0x4_0000, blockPage: 0x100 },
    ]);
    expect(ramSlots(4 * GIB)).toEqual([
      { from: 0, to: 0xa0, blockPage: 0 },
      { from: 0x100, to: 0x8_0000, blockPage: 0x100 },
      { from: 0x10_0000, to: 0x18_0000, blockPage: 0x8_0000 },
    ]);
    expect(ramSlots(0xb000_0000 - 4096).at(-1)!.to).toBe(0xa_ffff);
    expect(ramSlots(0xb000_0000).map(({ to }) => to)).toEqual([0xa0, 0x8_0000, 0x13_0000]);
  });

  it('refuses sizes it has no layout for', () => {
    for (const size of [0, 4096, 16 * 2 ** 20, GIB + 1, 1024 * GIB, Number.NaN]) {
      expect(() => ramSlots(size)).toThrow('memory size');
    }
  });
});

describe('GuestRam', () => {
  const written: { at: bigint; length: number }[] = [];
  const ram = new GuestRam({
    write: (at, data) => {
      written.push({ at, length: data.length });
      return at !== 0x9000n;
    },
  });
  const low = { userAddress: uaddr(0x10_0000n), guestMemfd: 3 };
  const high = { userAddress: uaddr(0x8000n), guestMemfd: 4 };
  ram.add({ from: 0x10, to: 0x20, blockPage: 0x10, block: low });
  ram.add({ from: 0x20, to: 0x28, blockPage: 0, block: high });
  ram.markPrivate({ from: 0x12, to: 0x28 }, false);

  it('writes across slots into the memory behind them', () => {
    expect(ram.writeShared(gpa(0x1f800n), new Uint8Array(0x1000))).toBeNull();
    expect(written.splice(0)).toEqual([
      { at: 0x11_f800n, length: 0x800 },
      { at: 0x8000n, length: 0x800 },
    ]);
  });

  it('writes nothing where a page is private, outside memory or beyond 2^64', () => {
    for (const [at, length, why] of [
      [0x11000n, 1, 'page 0x11000 is private'],
      [0x11fffn, 2, 'page 0x11000 is private'],
      [0x27000n, 0x1001, 'the range is not in guest memory'],
      [0xf000n, 1, 'the range is not in guest memory'],
      [0xffff_ffff_ffff_f000n, 0x1001, 'the range wraps'],
      [0xffff_ffff_ffff_f000n, 0x1000, 'the range is not in guest memory'],
    ] as const) {
      expect(ram.writeShared(gpa(at), new Uint8Array(length))).toBe(why);
    }
    expect(written).toEqual([]);
  });

  it('says so when the hardware refuses the write', () => {
    expect(ram.writeShared(gpa(0x21000n), new Uint8Array(1))).toBe(
      'the RMP gives a page of the range to a guest',
    );
  });

  it('resolves ranges to the parts of slots, or not at all', () => {
    expect(ram.resolve({ from: 0x1f, to: 0x22 })).toEqual([
      { from: 0x1f, to: 0x20, blockPage: 0x1f, block: low },
      { from: 0x20, to: 0x22, blockPage: 0, block: high },
    ]);
    expect(ram.resolve({ from: 0x27, to: 0x29 })).toBeNull();
    expect(ram.resolve({ from: 0x20, to: 0x20 })).toBeNull();
    expect(ram.isUnbacked({ from: 0x28, to: 0x30 })).toBe(true);
    expect(ram.isUnbacked({ from: 0x27, to: 0x30 })).toBe(false);
  });
});
