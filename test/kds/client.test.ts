// SPDX-License-Identifier: Apache-2.0
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import {
  embeddedAuthority,
  formatKdsTarget,
  issueCrl,
  type KdsJudge,
  MemoryCache,
  makeTlsAuthority,
  makeTlsIdentity,
  parseFaultRule,
  type TlsKeyPair,
} from '../../src/kds/index.ts';
import { concat, toHex, utf8, writeU64 } from '../../src/lib/bytes.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { kdsJudge } from '../../src/verify/kds-judge.ts';
import { endorsementOf } from '../../src/verify/profile.ts';
import { decodeCertificate, decodeRevocationList } from '../../src/verify/x509.ts';
import { clientOf, count, milan, roots, verifyCrypto } from './client-of.ts';
import { hwid, NOW_MS, tcbOf, withService } from './setup.ts';

const chainEntry = (() => {
  const { ask, ark } = embeddedAuthority('Milan');
  const stamp = new Uint8Array(8);
  writeU64(stamp, 0, BigInt(NOW_MS));
  return concat(stamp, utf8(toPem(ask) + toPem(ark)));
})();

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

  it('remembers a bounded number of things that were not found', async () => {
    let asked = 0;
    const fetch = async () => {
      asked += 1;
      return new Response(null, { status: 404 });
    };
    const { client } = clientOf('http://kds.example', {
      fetch,
      // The chain is not what is asked about here.
      judge: { chain: () => null, vcek: () => null, crl: () => null },
      cache: { get: (url) => (url.endsWith('cert_chain') ? chainEntry : null), put: () => {} },
    });
    const unknown = (i: number) =>
      client.vcek('Milan', i.toString(16).padStart(128, '0'), tcbOf('Milan')).catch((error) => error.code);
    for (let i = 0; i <= 1024; i++) {
      expect(await unknown(i)).toBe('KDS_NOT_FOUND');
    }
    expect(asked).toBe(1025);
    await unknown(1);
    expect(asked).toBe(1025);
    await unknown(0);
    expect(asked).toBe(1026);
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

describe('a KDS client whose cache is not what it was', () => {
  const tampered: readonly (readonly [string, (kept: Uint8Array) => Uint8Array])[] = [
    ['cut', (kept) => kept.subarray(0, kept.length >> 1)],
    ['altered', (kept) => kept.map((byte, i) => (i === kept.length >> 1 ? byte ^ 1 : byte))],
    ['empty', () => new Uint8Array(0)],
  ];
  it.each(tampered)('fetches again what is %s', async (_how, change) => {
    await withService({}, async (running) => {
      const cache = new MemoryCache();
      const keys: string[] = [];
      const spied = {
        get: (key: string) => cache.get(key),
        put: (key: string, value: Uint8Array) => {
          keys.push(key);
          cache.put(key, value);
        },
      };
      const { client } = clientOf(running.server.http!, { cache: spied });
      await client.vcek(...milan());
      await client.crl('vcek', 'Milan');
      const before = running.log.length;
      for (const key of [...keys]) {
        cache.put(key, change(cache.get(key)!));
      }
      const again = clientOf(running.server.http!, { cache }).client;
      await again.vcek(...milan());
      await again.crl('vcek', 'Milan');
      expect([before, running.log.length]).toEqual([3, 6]);
    });
  });

  it('fetches again what lies under the key of another TCB', async () => {
    await withService({}, async (running) => {
      const cache = new MemoryCache();
      const { client } = clientOf(running.server.http!, { cache });
      const target = (microcode: number): string =>
        running.server.http! +
        formatKdsTarget({
          type: 'vcek',
          product: 'Milan',
          hwid: hwid('Milan'),
          tcb: tcbOf('Milan', { microcode }),
        });
      await client.vcek(...milan());
      cache.put(target(212), cache.get(target(213))!);
      const der = await client.vcek('Milan', hwid('Milan'), tcbOf('Milan', { microcode: 212 }));
      expect(endorsementOf(decodeCertificate(der)).tcb?.microcode).toBe(212);
      expect(toHex(cache.get(target(212))!)).toBe(toHex(der));
    });
  });
});

describe('a KDS client before a service that fails', () => {
  it('serves a VCEK on that it has, for as long as it is valid', async () => {
    await withService({}, async ({ server, faults }) => {
      const { client, clock } = clientOf(server.http!);
      const der = await client.vcek(...milan());
      faults.add(parseFaultRule('all=500'));
      clock.advance(5 * 365 * 86_400_000);
      expect(toHex(await client.vcek(...milan()))).toBe(toHex(der));
      clock.advance(3 * 365 * 86_400_000);
      await expect(client.vcek(...milan())).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
    });
  });

  it.each([
    [-365, 'CERT_NOT_YET_VALID', 'not, or no longer, in force'],
    [365 + 30, null, 'not, or no longer, in force'],
    [8 * 365, 'CERT_EXPIRED', 'not, or no longer, in force'],
  ])('whose clock is %d days from its own refuses what is not valid by its own', async (days, vcek, crl) => {
    await withService({}, async ({ server }) => {
      const { client } = clientOf(server.http!, { clock: new VirtualClock(NOW_MS + days * 86_400_000) });
      const refusal = (why: string) => ({
        code: 'KDS_ANSWER_REFUSED',
        message: expect.stringContaining(why),
      });
      if (vcek === null) {
        await client.vcek(...milan());
      } else {
        await expect(client.vcek(...milan())).rejects.toMatchObject(refusal(vcek));
      }
      await expect(client.crl('vcek', 'Milan')).rejects.toMatchObject(refusal(crl));
    });
  });

  it('does not speak TLS with whom it does not trust', async () => {
    const random = seededRandom(5);
    const [serverRoot, clientRoot] = (['server', 'client'] as const).map((kind) =>
      makeTlsAuthority(kind, Date.now(), random),
    ) as [TlsKeyPair, TlsKeyPair];
    const identity = makeTlsIdentity({ server: serverRoot, client: clientRoot }, Date.now(), random);
    await withService({ identity, tls: { host: '127.0.0.1', port: 0 } }, async (running) => {
      const { client } = clientOf(running.server.tls!, { timing: { deadlineMs: 700 } });
      await expect(client.vcek(...milan())).rejects.toMatchObject({
        code: 'KDS_UNAVAILABLE',
        message: expect.stringContaining('UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
      });
      expect(running.log).toEqual([]);
    });
  });

  it('waits longer each time, and succeeds when the service does', async () => {
    await withService({ fault: 'vcek=500*3' }, async ({ server }) => {
      const { client, waits, troubles } = clientOf(server.http!);
      await client.vcek(...milan());
      expect(waits).toEqual([750, 1500, 3000]);
      expect(troubles).toEqual(['status 500', 'status 500', 'status 500']);
    });
  });

  it.each([
    [0, [500, 1000, 2000]],
    [0.999, [999.5, 1999, 3998]],
  ])('spreads its waiting by chance: with %d of one', async (chance, expected) => {
    await withService({ fault: 'vcek=500*3' }, async ({ server }) => {
      const { client, waits } = clientOf(server.http!, { jitter: () => chance });
      await client.vcek(...milan());
      expect(waits).toEqual(expected);
    });
  });

  it('has one deadline for all that a call needs', async () => {
    await withService({ fault: 'chain=503*8,vcek=503' }, async ({ server }) => {
      const { client, clock } = clientOf(server.http!);
      await expect(client.vcek(...milan())).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
      expect(clock.monotonicMs()).toBeGreaterThan(120_000);
      expect(clock.monotonicMs()).toBeLessThanOrEqual(180_000);
    });
  });

  it('asks for nothing more when the deadline is over', async () => {
    await withService({}, async (running) => {
      const clock = new VirtualClock(NOW_MS);
      const slow = async (url: string, init: RequestInit) => {
        clock.advance(180_000);
        return fetch(url, init);
      };
      const { client } = clientOf(running.server.http!, { clock, fetch: slow });
      await expect(client.vcek(...milan())).rejects.toMatchObject({
        code: 'KDS_UNAVAILABLE',
        message: expect.stringContaining('no time was left'),
      });
      expect(count(running, 'blSPL')).toBe(0);
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
        const { client, clock } = clientOf(running.server.http!, { timing: { deadlineMs: 3000 } });
        await expect(client.vcek(...milan())).rejects.toMatchObject({ code: 'KDS_UNAVAILABLE' });
        expect(count(running, 'blSPL')).toBe(3);
        expect(clock.nowMs() - NOW_MS).toBe(750 + 1500);
        running.faults.clear();
        await client.vcek(...milan());
        expect(count(running, 'blSPL')).toBe(4);
      });
    },
  );

  it.each([
    ['redirect', 'status 301'],
    ['204', 'status 204'],
    ['304', 'status 304'],
    ['400', 'status 400'],
    ['403', 'status 403'],
    ['huge:100', 'more than 65536 bytes'],
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
      expect(running.log.length).toBe(2);
      expect(troubles).toEqual([expect.stringContaining('after one attempt: status 500')]);
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
