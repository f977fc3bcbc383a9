// SPDX-License-Identifier: Apache-2.0
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { kdsJudge } from '../../src/cli/kds-judge.ts';
import {
  embeddedAuthority,
  issueCrl,
  KdsClient,
  type KdsClientOptions,
  type KdsJudge,
  MemoryCache,
  parseFaultRule,
} from '../../src/kds/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { decodeCertificate, decodeRevocationList } from '../../src/verify/x509.ts';
import { hwid, NOW_MS, type TestService, tcbOf, withService } from './setup.ts';

const roots = (['Milan', 'Genoa', 'Turin'] as const).map((product) => embeddedAuthority(product).ark);
const verifyCrypto = nodeVerifyCrypto();

/** A client whose waiting takes no time but moves its clock. */
function clientOf(
  base: string,
  options: Partial<KdsClientOptions> & { clock?: VirtualClock; trust?: 'amd' } = {},
) {
  const clock = options.clock ?? new VirtualClock(NOW_MS);
  const waits: number[] = [];
  const troubles: string[] = [];
  const client = new KdsClient({
    judge: kdsJudge({ crypto: verifyCrypto, clock, trust: options.trust ?? roots }),
    base,
    sleep: async (ms) => {
      waits.push(ms);
      clock.advance(ms);
    },
    jitter: () => 0.5,
    onTrouble: (_url, why) => {
      troubles.push(why);
    },
    ...options,
    clock,
  });
  return { client, clock, waits, troubles };
}

const milan = () => ['Milan', hwid('Milan'), tcbOf('Milan')] as const;
const count = ({ log }: TestService, part: string): number =>
  log.filter(({ target }) => target.includes(part)).length;

describe('a KDS client', () => {
  it.each(['Milan', 'Genoa', 'Turin'] as const)(
    'fetches chain, VCEK and list of %s, and judges them',
    async (product) => {
      await withService({}, async ({ server }) => {
        const { client } = clientOf(server.http!);
        const { ark, ask, asvk } = embeddedAuthority(product);
        expect(await client.chain('vcek', product)).toEqual({ intermediate: ask, ark });
        expect(await client.chain('vlek', product)).toEqual({ intermediate: asvk, ark });
        const der = await client.vcek(product, hwid(product).toUpperCase(), tcbOf(product));
        expect(decodeCertificate(der).issuer.commonName).toBe(`SEV-${product}`);
        expect(decodeRevocationList(await client.crl('vcek', product)).issuer.commonName).toBe(
          `ARK-${product}`,
        );
      });
    },
  );

  it('keeps what it has fetched, and asks for a VCEK only once', async () => {
    await withService({}, async (running) => {
      const cache = new MemoryCache();
      const { client, clock } = clientOf(running.server.http!, { cache });
      const first = await client.vcek(...milan());
      clock.advance(300 * 86_400_000);
      expect(toHex(await client.vcek(...milan()))).toBe(toHex(first));
      const later = clientOf(running.server.http!, { cache });
      expect(toHex(await later.client.vcek(...milan()))).toBe(toHex(first));
      expect(count(running, 'blSPL')).toBe(1);
    });
  });

  it('asks once when a thousand callers want one cold VCEK', async () => {
    await withService({}, async (running) => {
      const { client } = clientOf(running.server.http!);
      const all = await Promise.all(Array.from({ length: 1000 }, () => client.vcek(...milan())));
      expect(new Set(all.map(toHex)).size).toBe(1);
      expect(running.log.length).toBe(2);
    });
  });

  it('trusts the roots it was given and no others', async () => {
    await withService({}, async ({ server }) => {
      const { client } = clientOf(server.http!, { trust: 'amd' });
      await expect(client.vcek(...milan())).rejects.toMatchObject({
        code: 'KDS_ANSWER_REFUSED',
        message: expect.stringContaining('ROOT_UNTRUSTED'),
      });
    });
  });

  it('does not ask again for what was not found, for a short while', async () => {
    await withService({}, async (running) => {
      const { client, clock, waits } = clientOf(running.server.http!);
      const unknown = () => client.vcek('Milan', 'ab'.repeat(64), tcbOf('Milan'));
      await expect(unknown()).rejects.toMatchObject({ code: 'KDS_NOT_FOUND' });
      await expect(unknown()).rejects.toMatchObject({ code: 'KDS_NOT_FOUND' });
      expect(count(running, 'blSPL')).toBe(1);
      clock.advance(30_000);
      await expect(unknown()).rejects.toMatchObject({ code: 'KDS_NOT_FOUND' });
      expect(count(running, 'blSPL')).toBe(2);
      expect(waits).toEqual([]);
    });
  });
});

describe('a KDS client before a service that fails', () => {
  it('waits longer each time, and succeeds when the service does', async () => {
    await withService({ fault: 'vcek=500*3' }, async ({ server }) => {
      const { client, waits, troubles } = clientOf(server.http!);
      await client.vcek(...milan());
      expect(waits).toEqual([750, 1500, 3000]);
      expect(troubles).toEqual(['status 500', 'status 500', 'status 500']);
    });
  });

  it.each([
    ['429:7*2', [7000, 7000]],
    ['429*2', [750, 1500]],
    ['503:2*1', [2000]],
    ['429:soon*1', [750]],
    ['429:-5*1', [750]],
  ])('honours Retry-After of %s', async (fault, expected) => {
    await withService({ fault: `vcek=${fault}` }, async ({ server }) => {
      const { client, waits } = clientOf(server.http!);
      await client.vcek(...milan());
      expect(waits).toEqual(expected);
    });
  });

  it('honours a Retry-After that is a date, by its own clock', async () => {
    await withService({}, async ({ server, faults }) => {
      const retryAfter = new Date(NOW_MS + 20_000).toUTCString();
      faults.add({ scope: 'vcek', fault: { kind: 'status', value: 429, retryAfter }, times: 1 });
      const { client, waits } = clientOf(server.http!);
      await client.vcek(...milan());
      expect(waits).toEqual([20_000]);
    });
  });

  it('gives up at once when it is told to come back after the deadline', async () => {
    await withService({ fault: 'vcek=429:1000000000' }, async (running) => {
      const { client, waits } = clientOf(running.server.http!);
      await expect(client.vcek(...milan())).rejects.toMatchObject({
        code: 'KDS_UNAVAILABLE',
        message: expect.stringContaining('status 429'),
      });
      expect([waits, count(running, 'blSPL')]).toEqual([[], 1]);
    });
  });

  it('retries the statuses that may pass', async () => {
    const fault = [408, 425, 429, 500, 502, 503, 504].map((status) => `vcek=${status}*1`).join(',');
    await withService({ fault }, async ({ server }) => {
      const { client, waits } = clientOf(server.http!);
      await client.vcek(...milan());
      expect(waits).toEqual([750, 1500, 3000, 6000, 12_000, 22_500, 22_500]);
    });
  });

  it.each(['500', 'html', 'wrong-der', 'short-length', 'truncated', 'chunk-cut', 'reset', 'reset-body'])(
    'stops retrying %s at the deadline, and keeps nothing of it',
    async (fault) => {
      await withService({ fault: `vcek=${fault}` }, async (running) => {
        const { client, clock } = clientOf(running.server.http!, { timing: { deadlineMs: 15_000 } });
        await expect(client.vcek(...milan())).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
        expect(count(running, 'blSPL')).toBe(5);
        expect(clock.nowMs() - NOW_MS).toBe(750 + 1500 + 3000 + 6000);
        running.faults.clear();
        await client.vcek(...milan());
        expect(count(running, 'blSPL')).toBe(6);
      });
    },
  );

  it.each([
    ['redirect', 'status 301'],
    ['204', 'status 204'],
    ['304', 'status 304'],
    ['400', 'status 400'],
    ['403', 'status 403'],
    ['huge:1', 'more than 65536 bytes'],
    ['gzip-bomb:100', 'more than 65536 bytes'],
    ['wrong-chip', 'another chip'],
    ['wrong-tcb', 'another TCB'],
    ['bad-signature', 'CERT_SIGNATURE_MISMATCH'],
    ['expired', 'CERT_EXPIRED'],
  ])('refuses %s without retrying, and keeps nothing of it', async (fault, why) => {
    await withService({ fault: `vcek=${fault}` }, async (running) => {
      const { client } = clientOf(running.server.http!, { cache: new MemoryCache() });
      for (const attempts of [1, 2]) {
        await expect(client.vcek(...milan())).rejects.toMatchObject({
          code: 'KDS_ANSWER_REFUSED',
          message: expect.stringContaining(why),
        });
        expect(count(running, 'blSPL')).toBe(attempts);
      }
      running.faults.clear();
      await client.vcek(...milan());
    });
  });

  it.each(['slow:200', 'silent'])('keeps its deadline when the answer is %s', async (fault) => {
    await withService({ fault: `vcek=${fault}` }, async ({ server }) => {
      const timing = { attemptMs: 60, deadlineMs: 1000, backoffMs: 400 };
      const { client, troubles } = clientOf(server.http!, { timing });
      const started = Date.now();
      await expect(client.vcek(...milan())).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
      expect(troubles).toEqual(['no answer within 60 ms', 'no answer within 60 ms']);
      expect(Date.now() - started).toBeLessThan(2000);
    });
  });

  it('says what is wrong with the network', async () => {
    const closed = createTcpServer();
    await new Promise<void>((resolve) => {
      closed.listen(0, '127.0.0.1', resolve);
    });
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => {
      closed.close(resolve);
    });
    for (const [base, why] of [
      [`http://127.0.0.1:${port}`, 'ECONNREFUSED'],
      ['http://no-such-host.invalid', 'ENOTFOUND|EAI_AGAIN'],
    ] as const) {
      const { client } = clientOf(base, { timing: { deadlineMs: 700 } });
      await expect(client.vcek(...milan())).rejects.toMatchObject({
        code: 'KDS_UNAVAILABLE',
        message: expect.stringMatching(why),
      });
    }
  });

  it('fetches the chain anew when a certificate is of a newer intermediate', async () => {
    await withService({}, async (running) => {
      const judge = kdsJudge({ crypto: verifyCrypto, clock: new VirtualClock(NOW_MS), trust: roots });
      let judged = 0;
      const replaced: KdsJudge = {
        ...judge,
        vcek: (...asked) => {
          judged += 1;
          return judged === 1 ? 'signed by another intermediate' : judge.vcek(...asked);
        },
      };
      const renewing = clientOf(running.server.http!, { judge: replaced });
      await renewing.client.vcek(...milan());
      expect(count(running, 'vcek/v1/Milan/cert_chain')).toBe(2);
    });
  });

  it.each(['not a URL', 'ftp://kdsintf.amd.com', 'https://kdsintf.amd.com/?x=1', ''])(
    'refuses %j as a base',
    (base) => {
      expect(() => clientOf(base)).toThrow('is no http or https URL');
    },
  );

  it('keeps the path of a base, for services behind a prefix', async () => {
    await withService({}, async ({ server, log }) => {
      const { client } = clientOf(`${server.http}/mirror/`, { timing: { deadlineMs: 700 } });
      await expect(client.chain('vcek', 'Milan')).rejects.toMatchObject({ code: 'KDS_NOT_FOUND' });
      expect(log[0]!.target).toBe('/mirror/vcek/v1/Milan/cert_chain');
    });
  });
});

describe('a chain', () => {
  it.each(['bad-signature', 'wrong-der', 'html', 'truncated'])('that is %s is refused', async (fault) => {
    await withService({ fault: `chain=${fault}` }, async ({ server }) => {
      const { client } = clientOf(server.http!);
      await expect(client.chain('vcek', 'Milan')).rejects.toMatchObject({
        code: fault === 'bad-signature' ? 'KDS_ANSWER_REFUSED' : 'KDS_UNAVAILABLE',
      });
    });
  });

  it('is asked for again after a day, and stays in use when that fails', async () => {
    await withService({}, async (running) => {
      const { client, clock, troubles } = clientOf(running.server.http!);
      await client.chain('vcek', 'Milan');
      clock.advance(86_399_000);
      await client.chain('vcek', 'Milan');
      expect(running.log.length).toBe(1);
      clock.advance(1000);
      running.faults.add(parseFaultRule('chain=500'));
      await client.chain('vcek', 'Milan');
      expect(running.log.length).toBeGreaterThan(5);
      expect(troubles.at(-1)).toContain('status 500');
    });
  });

  it('is asked for again when the clock was set back', async () => {
    await withService({}, async (running) => {
      const cache = new MemoryCache();
      await clientOf(running.server.http!, { cache }).client.chain('vcek', 'Milan');
      const earlier = new VirtualClock(NOW_MS - 1000);
      await clientOf(running.server.http!, { cache, clock: earlier }).client.chain('vcek', 'Milan');
      expect(running.log.length).toBe(2);
    });
  });
});

describe('a revocation list', () => {
  it('is never given out beyond its nextUpdate, whatever the service does', async () => {
    await withService({}, async ({ server, faults }) => {
      const { client, clock } = clientOf(server.http!);
      const { nextUpdateMs } = decodeRevocationList(await client.crl('vcek', 'Milan'));
      faults.add(parseFaultRule('crl=500'));
      clock.advance(nextUpdateMs! - clock.nowMs() - 300_000);
      expect(decodeRevocationList(await client.crl('vcek', 'Milan')).nextUpdateMs).toBe(nextUpdateMs);
      clock.advance(nextUpdateMs! - clock.nowMs() + 1);
      await expect(client.crl('vcek', 'Milan')).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
      faults.clear();
      faults.add(parseFaultRule('crl=expired'));
      await expect(client.crl('vcek', 'Milan')).rejects.toMatchObject({ code: 'KDS_ANSWER_REFUSED' });
    });
  });

  it.each(['bad-signature', 'wrong-der', 'expired'])('that is %s is refused', async (fault) => {
    await withService({ fault: `crl=${fault}` }, async ({ server }) => {
      const { client } = clientOf(server.http!);
      await expect(client.crl('vcek', 'Turin')).rejects.toMatchObject({
        code: expect.stringMatching(/KDS_ANSWER_REFUSED|KDS_UNAVAILABLE/),
      });
    });
  });

  it('that goes back in number is refused, although the root signed it', async () => {
    const authority = embeddedAuthority('Genoa');
    let number = 9;
    let server!: Server;
    await withService({}, async (running) => {
      server = createServer((request, response) => {
        if (request.url!.endsWith('/crl')) {
          const day = 86_400_000;
          const dates = { thisUpdateMs: NOW_MS - day, nextUpdateMs: NOW_MS + 30 * day };
          response.end(
            issueCrl({ authority, revokedSerials: [], number, ...dates, random: seededRandom(1) }),
          );
        } else {
          void fetch(running.server.http! + request.url).then(async (reply) => {
            response.end(Buffer.from(await reply.arrayBuffer()));
          });
        }
      });
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      const { port } = server.address() as AddressInfo;
      const { client, clock, troubles } = clientOf(`http://127.0.0.1:${port}`);
      await client.crl('vcek', 'Genoa');
      number = 8;
      clock.advance(2 * 86_400_000);
      expect(decodeRevocationList(await client.crl('vcek', 'Genoa')).number).toBe(9n);
      expect(troubles.at(-1)).toContain('older than one seen before');
      clock.advance(40 * 86_400_000);
      await expect(client.crl('vcek', 'Genoa')).rejects.toMatchObject({ code: 'KDS_ANSWER_REFUSED' });
    }).finally(() => {
      server.closeAllConnections();
      server.close();
    });
  });
});
