// SPDX-License-Identifier: Apache-2.0
/** Wall clocks that jump, on either side: terms are judged by them, and nothing else. */
import { describe, expect, it } from 'vitest';
import { AMD_RATE, formatKdsTarget, MemoryCache, parseFaultRule } from '../../src/kds/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import { decodeCertificate, decodeRevocationList } from '../../src/verify/x509.ts';
import { clientOf, count, milan } from './client-of.ts';
import { ask, hwid, NOW_MS, tcbOf, withService } from './setup.ts';

const YEAR_MS = 365.25 * 86_400_000;
const REFUSED = 'KDS_ANSWER_REFUSED';

/** When, and what becomes of a VCEK and a list that were fetched now, from a service whose clock is right. */
const JUMPS: readonly (readonly [name: string, atMs: number, vcek: string | null, crl: string | null])[] = [
  ['a year on', NOW_MS + YEAR_MS, null, REFUSED],
  ['ten years back', NOW_MS - 10 * YEAR_MS, REFUSED, REFUSED],
  ['1970', 0, REFUSED, REFUSED],
  ['before 1970', -1, REFUSED, REFUSED],
  ['2038', Date.UTC(2038, 0, 19, 3, 14, 8), REFUSED, REFUSED],
  ['2106', Date.UTC(2106, 1, 7, 6, 28, 16), REFUSED, REFUSED],
];

const outcome = (asked: Promise<unknown>): Promise<string | null> =>
  asked.then(
    () => null,
    (error: { code: string }) => error.code,
  );

describe('a client whose clock jumps', () => {
  it.each(JUMPS)(
    'to %s and back goes by its clock, and finds its cache again',
    async (_name, atMs, ...then) => {
      await withService({}, async (running) => {
        const cache = new MemoryCache();
        const { client, clock } = clientOf(running.server.http!, { cache });
        const first = toHex(await client.vcek(...milan()));
        const list = toHex(await client.crl('vcek', 'Milan'));
        clock.setWall(atMs);
        expect([await outcome(client.vcek(...milan())), await outcome(client.crl('vcek', 'Milan'))]).toEqual(
          then,
        );
        const asked = running.log.length;
        clock.setWall(NOW_MS + 1000);
        expect(toHex(await client.vcek(...milan()))).toBe(first);
        expect(toHex(await client.crl('vcek', 'Milan'))).toBe(list);
        expect(toHex(await clientOf(running.server.http!, { cache }).client.vcek(...milan()))).toBe(first);
        // At most the chain, whose entry may now be from the future.
        expect(running.log.length - asked).toBeLessThanOrEqual(2);
        expect(running.log.slice(asked).every(({ target }) => target.endsWith('/cert_chain'))).toBe(true);
      });
    },
  );

  it('asks anew for what was kept in the future, once', async () => {
    await withService({}, async (running) => {
      const { client, clock } = clientOf(running.server.http!);
      clock.setWall(NOW_MS + 90 * 86_400_000);
      await client.chain('vcek', 'Milan');
      clock.setWall(NOW_MS);
      for (const asked of [2, 2, 2]) {
        await client.chain('vcek', 'Milan');
        expect(running.log.length).toBe(asked);
      }
    });
  });

  it.each([-2, 2])('by %d years in every wait keeps its deadline', async (years) => {
    await withService({}, async ({ server, faults }) => {
      const clock = new VirtualClock(NOW_MS);
      const sleep = async (ms: number): Promise<void> => {
        clock.advance(ms);
        clock.setWall(clock.nowMs() + years * YEAR_MS);
      };
      const { client } = clientOf(server.http!, { clock, sleep, timing: { deadlineMs: 10_000 } });
      await client.chain('vcek', 'Milan');
      faults.add(parseFaultRule('all=503'));
      expect(await outcome(client.vcek(...milan()))).toBe('KDS_UNAVAILABLE');
      expect(clock.monotonicMs()).toBeGreaterThan(2000);
      expect(clock.monotonicMs()).toBeLessThanOrEqual(10_000);
    });
  });

  it('by a day and back believes a "not found" no longer, and no shorter', async () => {
    await withService({}, async (running) => {
      const { client, clock } = clientOf(running.server.http!);
      const unknown = () => outcome(client.vcek('Milan', 'ab'.repeat(64), tcbOf('Milan')));
      expect(await unknown()).toBe('KDS_NOT_FOUND');
      for (const days of [1, -1]) {
        clock.setWall(NOW_MS + days * 86_400_000);
        expect(await unknown()).toBe('KDS_NOT_FOUND');
      }
      expect(count(running, 'blSPL')).toBe(1);
      clock.advance(30_000);
      expect(await unknown()).toBe('KDS_NOT_FOUND');
      expect(count(running, 'blSPL')).toBe(2);
    });
  });
});

describe('a service whose clock says', () => {
  const target = formatKdsTarget({
    type: 'vcek',
    product: 'Milan',
    hwid: hwid('Milan'),
    tcb: tcbOf('Milan'),
  });

  it.each([
    ['1960', Date.UTC(1960, 0, 1), false],
    ['1970', 0, false],
    ['2016', Date.UTC(2016, 10, 21), false],
    ['2038', Date.UTC(2038, 0, 19, 3, 14, 8), true],
    ['2044', Date.UTC(2044, 5, 1), true],
    ['2050', Date.UTC(2050, 1, 7), false],
    ['2106', Date.UTC(2106, 1, 7, 6, 28, 16), false],
  ])(
    '%s issues from that day on; its client, of the same clock, judges by it',
    async (_year, atMs, isTime) => {
      const clock = new VirtualClock(atMs);
      await withService({ clock }, async ({ server }) => {
        const vcek = await ask(server.http!, target);
        const list = await ask(server.http!, '/vcek/v1/Milan/crl');
        expect([vcek.status, list.status]).toEqual([200, 200]);
        const { notBeforeMs, notAfterMs } = decodeCertificate(vcek.body);
        expect(notBeforeMs).toBe(Math.floor(atMs / 1000) * 1000);
        expect(Math.abs(notAfterMs - notBeforeMs - 7 * YEAR_MS)).toBeLessThan(2 * 86_400_000);
        const { thisUpdateMs, nextUpdateMs } = decodeRevocationList(list.body);
        expect(nextUpdateMs).toBeGreaterThan(Math.max(atMs, thisUpdateMs));
        // Outside the years of the root nothing is believed, whoever says so.
        const { client } = clientOf(server.http!, { clock });
        expect(await outcome(client.vcek(...milan()))).toBe(isTime ? null : REFUSED);
        expect(await outcome(client.crl('vcek', 'Milan'))).toBe(isTime ? null : REFUSED);
      });
    },
  );

  it('another day each time limits requests by the time that passes', async () => {
    await withService({ rate: AMD_RATE }, async ({ server, clock }) => {
      const status = async (): Promise<number> => (await ask(server.http!, target)).status;
      expect(await status()).toBe(200);
      for (const atMs of [NOW_MS + YEAR_MS, 0, NOW_MS]) {
        clock.setWall(atMs);
        expect(await status()).toBe(429);
      }
      clock.advance(10_000);
      expect(await status()).toBe(200);
    });
  });
});
