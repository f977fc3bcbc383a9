// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { asid, pfn, spa, spaOf } from '../lib/addresses.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { PHYSICAL_PAGES, PhysicalMemory } from './memory.ts';

const crypto = nodeCrypto({ deterministic: true });
const KEY_1 = new Uint8Array(32).fill(1);
const KEY_2 = new Uint8Array(32).fill(2);
const PAGE = Uint8Array.from({ length: 4096 }, (_, i) => i % 251);

function memory(): PhysicalMemory {
  const m = new PhysicalMemory(crypto);
  m.setKey(asid(1), KEY_1);
  m.setKey(asid(2), KEY_2);
  return m;
}

describe('physical memory', () => {
  it('gives back what was written under the same key, also across pages', () => {
    const m = memory();
    const data = Uint8Array.from({ length: 9000 }, (_, i) => i % 253);
    m.write(spa(0x5f80n), data, asid(1));
    expect(m.read(spa(0x5f80n), 9000, asid(1))).toEqual(data);
    expect(m.touchedPages).toBe(4);
  });

  it('shows the host the ciphertext of a private page, tweaked by its address', () => {
    const m = memory();
    m.write(spaOf(pfn(7)), PAGE, asid(1));
    m.write(spaOf(pfn(8)), PAGE, asid(1));
    expect(m.read(spaOf(pfn(7)), 4096, asid(0))).toEqual(crypto.memoryEncrypt(KEY_1, 7, PAGE));
    expect(m.read(spaOf(pfn(8)), 4096, asid(0))).not.toEqual(m.read(spaOf(pfn(7)), 4096, asid(0)));
  });

  it('reads as garbage under another key, and as before when the right key is back', () => {
    const m = memory();
    m.write(spaOf(pfn(7)), PAGE, asid(1));
    const cells = m.read(spaOf(pfn(7)), 4096, asid(0));
    expect(m.read(spaOf(pfn(7)), 4096, asid(2))).toEqual(crypto.memoryDecrypt(KEY_2, 7, cells));
    m.setKey(asid(1), KEY_2);
    expect(m.read(spaOf(pfn(7)), 4096, asid(1))).toEqual(crypto.memoryDecrypt(KEY_2, 7, cells));
    m.setKey(asid(1), KEY_1);
    expect(m.read(spaOf(pfn(7)), 4096, asid(1))).toEqual(PAGE);
  });

  it('keeps the other cipher blocks of a page when a part is written under another key', () => {
    const m = memory();
    m.write(spaOf(pfn(7)), PAGE, asid(1));
    const cells = m.read(spaOf(pfn(7)), 4096, asid(0));
    m.write(spa(0x7010n), Uint8Array.of(9, 9), asid(0));
    const host = m.read(spaOf(pfn(7)), 4096, asid(0));
    expect(host.subarray(0x10, 0x12)).toEqual(Uint8Array.of(9, 9));
    expect(host.subarray(0x12)).toEqual(cells.subarray(0x12));
    const guest = m.read(spaOf(pfn(7)), 4096, asid(1));
    expect(guest.subarray(0x10, 0x20)).not.toEqual(PAGE.subarray(0x10, 0x20));
    expect(guest.subarray(0x20)).toEqual(PAGE.subarray(0x20));
  });

  it('takes memory only for pages that were written, and gives it back', () => {
    const m = memory();
    expect(m.read(spa(0n), 64, asid(0))).toEqual(new Uint8Array(64));
    expect(m.read(spaOf(pfn(3)), 4096, asid(1))).toEqual(
      crypto.memoryDecrypt(KEY_1, 3, new Uint8Array(4096)),
    );
    expect(m.touchedPages).toBe(0);
    m.write(spaOf(pfn(3)), PAGE, asid(0));
    m.write(spaOf(pfn(9)), PAGE, asid(0));
    m.discard(pfn(0), 8);
    expect(m.touchedPages).toBe(1);
    m.discard(pfn(9), 1);
    expect(m.read(spaOf(pfn(9)), 4096, asid(0))).toEqual(new Uint8Array(4096));
    expect(m.touchedPages).toBe(0);
  });

  it('ends where physical memory ends, and no sum wraps', () => {
    const m = memory();
    const end = BigInt(PHYSICAL_PAGES) * 4096n;
    expect(m.contains(end - 1n, 1)).toBe(true);
    expect(m.contains(end - 1n, 2)).toBe(false);
    expect(m.contains(0xffff_ffff_ffff_ffffn, 8)).toBe(false);
    expect(m.contains(-1n, 1)).toBe(false);
  });
});
