// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES, type ProductLine } from '../../src/abi/product.ts';
import { SevCertificate } from '../../src/abi/sev-certificate.ts';
import { fromPem } from '../../src/certs/pem.ts';
import {
  AMD_RATE,
  embeddedAuthority,
  Fleet,
  formatKdsTarget,
  issueClientCertificate,
  type KdsName,
  makeTlsAuthority,
  makeTlsIdentity,
} from '../../src/kds/index.ts';
import {
  chipEndorsementKey,
  chipWrappingKey,
  descend,
  endorsementKey,
  topStick,
  unwrapHashstick,
} from '../../src/keys/index.ts';
import { fromHex, reversed, toHex } from '../../src/lib/bytes.ts';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { endorsementOf } from '../../src/verify/profile.ts';
import { decodeCertificate, decodeRevocationList } from '../../src/verify/x509.ts';
import {
  ask,
  askRaw,
  CHIPS,
  CSP,
  crypto,
  FOREIGN_CHIP,
  hwid,
  NOW_MS,
  OTHER_CSP,
  tcbOf,
  withService,
} from './setup.ts';

const vcek = (product: ProductLine, more = {}): string =>
  formatKdsTarget({ type: 'vcek', product, hwid: hwid(product), tcb: tcbOf(product, more) });

describe.each(PRODUCT_LINES)('the key service for %s', (product) => {
  it('issues a fresh certificate of one key for each request, for every TCB that can be', async () => {
    await withService({}, async ({ server, clock }) => {
      const { ask: issuer } = embeddedAuthority(product);
      const stick = (tcb: ReturnType<typeof tcbOf>) =>
        descend(crypto, topStick(crypto, CHIPS[product].secret, product), tcb)!;
      for (const tcb of [tcbOf(product), tcbOf(product, { boot_loader: 255, snp: 0 })]) {
        const target = formatKdsTarget({ type: 'vcek', product, hwid: hwid(product), tcb });
        const first = await ask(server.http!, target);
        clock.advance(90_000);
        const second = await ask(server.http!, target);
        expect([first.status, first.headers['content-type']]).toEqual([200, 'application/octet-stream']);
        expect(first.body.equals(second.body)).toBe(false);
        const [one, two] = [first, second].map(({ body }) => decodeCertificate(body)) as [
          ReturnType<typeof decodeCertificate>,
          ReturnType<typeof decodeCertificate>,
        ];
        expect(two.notBeforeMs - one.notBeforeMs).toBe(90_000);
        expect(toHex(one.spki)).toBe(toHex(two.spki));
        const key = endorsementKey(crypto, stick(tcb), 'VCEK');
        expect(one.key).toEqual({ kind: 'p384', point: key.publicPoint });
        expect(endorsementOf(one)).toMatchObject({ tcb, hwId: fromHex(hwid(product)) });
        expect(new X509Certificate(first.body).verify(new X509Certificate(issuer).publicKey)).toBe(true);
      }
    });
  });

  it('serves both chains as two PEM blocks, intermediate first, and nothing around them', async () => {
    await withService({}, async ({ server }) => {
      const { ark, ask: forVcek, asvk } = embeddedAuthority(product);
      for (const [path, intermediate] of [
        ['vcek', forVcek],
        ['vlek', asvk],
      ] as const) {
        const { status, body } = await ask(server.http!, `/${path}/v1/${product}/cert_chain`);
        const text = body.toString('latin1');
        expect(status).toBe(200);
        expect(fromPem(text).map(toHex)).toEqual([toHex(intermediate), toHex(ark)]);
        expect(text).toMatch(
          /^(-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n){2}$/,
        );
      }
    });
  });

  it('serves one revocation list a year, whose number goes up and whose term reaches into the next', async () => {
    await withService({}, async ({ server, clock }) => {
      const get = async (path: string) => (await ask(server.http!, `/${path}/v1/${product}/crl`)).body;
      const der = await get('vcek');
      const list = decodeRevocationList(der);
      expect((await get('vlek')).equals(der)).toBe(true);
      expect(list.thisUpdateMs).toBeLessThanOrEqual(NOW_MS);
      expect(list.nextUpdateMs).toBeGreaterThan(NOW_MS);
      expect(list.revoked.map(({ serial }) => serial)).toEqual(product === 'Genoa' ? ['020001'] : []);
      clock.advance(365 * 86_400_000);
      const next = decodeRevocationList(await get('vcek'));
      expect(next.number).toBe(list.number! + 1n);
      expect(next.thisUpdateMs).toBeLessThan(list.nextUpdateMs!);
      expect(next.nextUpdateMs).toBeGreaterThan(clock.nowMs());
    });
  });
});

describe('the key service', () => {
  it('answers 404 for what does not exist and 400 for what is malformed', async () => {
    await withService({}, async ({ server, log }) => {
      const id = hwid('Milan');
      const query = vcek('Milan').split('?')[1]!;
      const rows: readonly (readonly [number, string])[] = [
        [200, vcek('Milan').replace(id, id.toUpperCase())],
        [404, vcek('Milan').replace('/Milan/', '/Genoa/')],
        [404, vcek('Milan').replace(id, '0'.repeat(128))],
        [404, `/vcek/v1/Turin/${'0'.repeat(128)}?fmcSPL=0&${query}`],
        [404, '/vcek/v1/Milan-B0/..'],
        [404, '/'],
        [404, '/vcek/v1/Milan/../Genoa/crl'],
        [400, `/vcek/v1/Milan/${id}`],
        [400, `/vcek/v1/Milan/${id}?fmcSPL=0&${query}`],
        [400, `/vcek/v1/Milan/${id}?${query}&ucodeSPL=1`],
        [400, `/vcek/v1/Milan/${id.slice(1)}?${query}`],
        [400, `/vcek/v1/Milan/${id}0?${query}`],
        [400, `/vcek/v1/Milan/%61${id.slice(1)}?${query}`],
        [400, vcek('Milan', { microcode: 256 })],
        [400, '/vcek/v1/Milan/crl?x=1'],
      ];
      for (const [status, target] of rows) {
        expect([target, (await ask(server.http!, target)).status]).toEqual([target, status]);
      }
      expect(log.map((entry) => entry.status)).toEqual(rows.map(([status]) => status));
    });
  });

  it('has no certificate above the highest TCB of a chip', async () => {
    const chip = { ...CHIPS.Genoa, highestTcb: tcbOf('Genoa') };
    const limited = new Fleet(crypto, { chips: [chip], providers: [] });
    await withService({ fleet: limited }, async ({ server }) => {
      expect((await ask(server.http!, vcek('Genoa'))).status).toBe(200);
      expect((await ask(server.http!, vcek('Genoa', { microcode: 0 }))).status).toBe(200);
      expect((await ask(server.http!, vcek('Genoa', { microcode: 214, boot_loader: 0 }))).status).toBe(404);
    });
  });

  it('lets one request per source and VCEK through in ten seconds when it limits like AMD', async () => {
    for (const retryAfter of [false, true]) {
      await withService({ rate: AMD_RATE, retryAfter }, async ({ server, clock }) => {
        const status = async (target: string): Promise<number> => (await ask(server.http!, target)).status;
        const target = vcek('Milan');
        expect(await status(target)).toBe(200);
        clock.advance(2500);
        const limited = await ask(server.http!, target.replace('blSPL=03', 'blSPL=3'));
        expect(limited.status).toBe(429);
        expect(limited.headers['retry-after']).toBe(retryAfter ? '8' : undefined);
        expect(await status(vcek('Milan', { microcode: 212 }))).toBe(200);
        expect(await status('/vcek/v1/Milan/crl')).toBe(200);
        expect(await status('/vcek/v1/Milan/crl')).toBe(200);
        clock.advance(7499);
        expect(await status(target)).toBe(429);
        clock.advance(1);
        expect(await status(target)).toBe(200);
      });
    }
  });

  it('answers HEAD and the preflight of browsers, which AMD does not, and no other method', async () => {
    await withService({}, async ({ server }) => {
      const target = vcek('Milan');
      const head = await ask(server.http!, target, { method: 'HEAD' });
      expect([head.status, head.body.length]).toEqual([200, 0]);
      expect(Number(head.headers['content-length'])).toBeGreaterThan(1000);
      const headers = { origin: 'https://example.org', 'access-control-request-method': 'GET' };
      const preflight = await ask(server.http!, target, { method: 'OPTIONS', headers });
      expect(preflight.status).toBe(204);
      expect(preflight.headers).toMatchObject({
        'access-control-allow-origin': '*',
        'access-control-allow-methods': 'GET, HEAD',
      });
      for (const reply of [
        head,
        await ask(server.http!, target, { headers }),
        await ask(server.http!, '/'),
      ]) {
        expect(reply.headers['access-control-allow-origin']).toBe('*');
      }
      for (const method of ['PUT', 'DELETE', 'PATCH', 'POST']) {
        const reply = await ask(server.http!, target, { method });
        expect([method, reply.status, reply.headers.allow]).toEqual([method, 405, 'GET, HEAD']);
      }
    });
  });

  it('says who it is in every answer', async () => {
    await withService({}, async ({ server }) => {
      for (const target of [vcek('Milan'), '/nothing', '/vcek/v1/Milan/crl?']) {
        expect((await ask(server.http!, target)).headers['server']).toBe('softsnp (TEST ROOT, NOT AMD)');
      }
    });
  });

  it('lets answers under way finish when it ends, and takes no more', async () => {
    const limits = { graceMs: 20_000 };
    await withService({ limits, fault: 'crl=slow:1' }, async ({ server, log }) => {
      const slow = ask(server.http!, '/vcek/v1/Milan/crl');
      await expect.poll(() => log.length).toBe(1);
      const closed = server.close();
      await expect(ask(server.http!, '/vcek/v1/Milan/crl')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      const { status, body } = await slow;
      expect([status, decodeRevocationList(body).issuer.commonName]).toEqual([200, 'ARK-Milan']);
      await closed;
      expect(server.connections).toBe(0);
    });
  });

  it.each([204, 304])('sends no body and no length with status %d', async (status) => {
    await withService({ fault: `crl=${status}` }, async ({ server }) => {
      const { headers, ...reply } = await ask(server.http!, '/vcek/v1/Milan/crl');
      expect([reply.status, reply.body.length, headers['content-length']]).toEqual([status, 0, undefined]);
    });
  });

  it('says which address it cannot have', async () => {
    await withService({}, async ({ server }) => {
      const taken = Number(new URL(server.http!).port);
      const second = withService({ http: { host: '127.0.0.1', port: taken } }, async () => {});
      await expect(second).rejects.toThrow(EnvironmentError);
      await expect(second).rejects.toMatchObject({ code: 'LISTEN_FAILED', where: `127.0.0.1:${taken}` });
    });
  });
});

describe('a hostile client', () => {
  it('gets 431 for headers of 64 KiB, 413 for a body, 400 for what is no HTTP', async () => {
    await withService({}, async ({ server }) => {
      const head = 'GET /vcek/v1/Milan/crl HTTP/1.1\r\nHost: x\r\n';
      const huge = await askRaw(server.http!, `${head}X: ${'a'.repeat(65_536)}\r\n\r\n`);
      expect(huge).toMatch(/^HTTP\/1.1 431 /);
      const long = await askRaw(server.http!, `GET /${'a'.repeat(65_536)} HTTP/1.1\r\nHost: x\r\n\r\n`);
      expect(long).toMatch(/^HTTP\/1.1 431 /);
      const withBody = await askRaw(server.http!, `${head}Content-Length: 5\r\n\r\nhello`);
      expect(withBody).toMatch(/^HTTP\/1.1 413 [\s\S]*[Cc]onnection: close/);
      const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`;
      expect(await askRaw(server.http!, chunked)).toMatch(/^HTTP\/1.1 413 /);
      expect(await askRaw(server.http!, 'nonsense\r\n\r\n')).toMatch(/^HTTP\/1.1 400 /);
      expect(await askRaw(server.http!, 'GET / HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1.1 400 /);
      expect((await ask(server.http!, '/vcek/v1/Milan/crl')).status).toBe(200);
    });
  });

  it('that pipelines gets its answers in order', async () => {
    await withService({}, async ({ server }) => {
      const targets = ['/vcek/v1/Milan/crl', '/nothing', '/vcek/v1/Milan/crl?', vcek('Milan')];
      const requests = targets.map((target, i) => {
        const last = i === targets.length - 1 ? 'Connection: close\r\n' : '';
        return `GET ${target} HTTP/1.1\r\nHost: x\r\n${last}\r\n`;
      });
      const text = await askRaw(server.http!, requests.join(''));
      expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual([
        '200',
        '404',
        '400',
        '200',
      ]);
    });
  });

  it('that sends many requests at once waits for itself alone', async () => {
    await withService({}, async ({ server, log }) => {
      const { port } = new URL(server.http!);
      const socket = connect(Number(port), '127.0.0.1');
      socket.write(`GET ${vcek('Milan')} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(400));
      await expect.poll(() => log.length).toBeGreaterThan(0);
      for (let i = 0; i < 3; i++) {
        expect((await ask(server.http!, '/vcek/v1/Milan/crl')).status).toBe(200);
      }
      expect(log.length).toBeLessThan(100);
      socket.destroy();
    });
  });

  it('that sends a body behind other requests has it read when its turn comes', async () => {
    await withService({}, async ({ server }) => {
      const body = 'x'.repeat(200_000);
      const text = await askRaw(
        server.http!,
        [
          'GET /vcek/v1/Milan/crl HTTP/1.1\r\nHost: x\r\n\r\n',
          `POST /vlek/v1/Milan/hash_sticks?blSPL=1&teeSPL=1&snpSPL=1&ucodeSPL=1 HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
          'GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
        ].join(''),
      );
      expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual([
        '200',
        '401',
        '404',
      ]);
    });
  });

  it('loses its connection when it has sent the most of too many requests', async () => {
    await withService({ limits: { waiting: 20 }, fault: 'vcek=silent*2' }, async ({ server, log }) => {
      const { port } = new URL(server.http!);
      const sending = (requests: number): Socket => {
        const socket = connect(Number(port), '127.0.0.1');
        socket.on('error', () => {});
        const more = 'GET /vcek/v1/Milan/crl HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(requests - 1);
        socket.write(`GET ${vcek('Milan')} HTTP/1.1\r\nHost: x\r\n\r\n${more}`);
        return socket;
      };
      const modest = sending(6);
      const greedy = sending(14);
      await expect.poll(() => log.length).toBe(2);
      expect(server.connections).toBe(2);
      expect((await ask(server.http!, '/vcek/v1/Milan/crl')).status).toBe(200);
      await expect.poll(() => greedy.destroyed).toBe(true);
      expect(modest.destroyed).toBe(false);
      expect(server.connections).toBe(1);
      modest.destroy();
    });
  });

  it('that sends its request byte by byte is dropped, and its body too', async () => {
    const limits = { headersTimeoutMs: 150, requestTimeoutMs: 300 };
    await withService({ limits }, async ({ server }) => {
      const started = Date.now();
      const partial = await Promise.all([
        askRaw(server.http!, 'GET /vcek/v1/Milan/crl HTTP/1.1\r\nHos'),
        askRaw(server.http!, 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab'),
      ]);
      expect(partial.every((text) => /^HTTP\/1.1 408 /.test(text))).toBe(true);
      expect(Date.now() - started).toBeLessThan(2000);
    });
  });

  it('cannot keep others out by holding connections open', async () => {
    await withService({ limits: { connections: 64 } }, async ({ server }) => {
      const { port } = new URL(server.http!);
      const idle: Socket[] = [];
      for (let i = 0; i < 256; i++) {
        const socket = connect(Number(port), '127.0.0.1');
        socket.on('error', () => {});
        socket.write('GET /vcek/v1/Mi');
        idle.push(socket);
      }
      for (let i = 0; i < 20; i++) {
        expect((await ask(server.http!, '/vcek/v1/Milan/crl')).status).toBe(200);
        expect(server.connections).toBeLessThanOrEqual(66);
      }
      for (const socket of idle) {
        socket.destroy();
      }
    });
  });

  it('that leaves while the service is silent is noticed', async () => {
    await withService({ fault: 'vcek=silent' }, async ({ server, log }) => {
      const { port } = new URL(server.http!);
      const socket = connect(Number(port), '127.0.0.1');
      socket.write(`GET ${vcek('Milan')} HTTP/1.1\r\nHost: x\r\n\r\n`);
      await expect.poll(() => log.length).toBe(1);
      socket.destroy();
      await expect.poll(() => server.connections).toBe(0);
    });
  });

  it('cannot stop the service from ending', async () => {
    await withService({ fault: 'vcek=silent' }, async ({ server }) => {
      const silent = ask(server.http!, vcek('Milan')).catch((error: Error) => error);
      const half = askRaw(server.http!, 'GET /');
      const idle = askRaw(server.http!, '');
      await expect.poll(() => server.connections).toBe(3);
      await server.close();
      expect(server.connections).toBe(0);
      expect(await silent).toBeInstanceOf(Error);
      expect(await half).toBe('');
      expect(await idle).toBe('');
    });
  });
});

describe('certificates of legacy SEV', () => {
  const CA = (product: ProductLine): string => formatKdsTarget({ type: 'sev_ca', product });
  const cekOf = (hwid: string): string => formatKdsTarget({ type: 'cek', hwid });

  it.each(PRODUCT_LINES)('of %s: the CEK of a chip by its id, ASK and ARK above it', async (product) => {
    await withService({}, async ({ server }) => {
      const whole = toHex(CHIPS[product].chipId);
      const answers = await Promise.all(
        [whole, whole.toUpperCase(), hwid(product)].map((id) => ask(server.http!, `/cek/id/${id}`)),
      );
      const { publicPoint } = chipEndorsementKey(crypto, CHIPS[product].secret, product);
      for (const { status, headers, body } of answers) {
        expect([status, headers['content-type'], body.length]).toEqual([
          200,
          'application/octet-stream',
          2084,
        ]);
        const qx = SevCertificate.get(body, 'qx');
        expect(toHex(reversed(qx.subarray(0, 48)))).toBe(toHex(publicPoint.subarray(1, 49)));
      }
      expect(answers[0]!.body.equals(answers[1]!.body)).toBe(false);
      const [first, second] = [await ask(server.http!, CA(product)), await ask(server.http!, CA(product))];
      expect([first.status, first.body.length, first.body.equals(second.body)]).toEqual([200, 3200, true]);
    });
  });

  it('know no other chip, count against the rate and can be spoilt', async () => {
    await withService(
      { rate: AMD_RATE, fault: 'cek=bad-signature*1,sev-ca=404' },
      async ({ server, clock }) => {
        const spoilt = await ask(server.http!, cekOf(hwid('Milan')));
        expect(await ask(server.http!, cekOf(hwid('Milan')))).toMatchObject({ status: 429 });
        clock.advance(10_000);
        const good = await ask(server.http!, cekOf(hwid('Milan')));
        const free = good.body.subarray(0x61c);
        expect([spoilt.status, spoilt.body.subarray(0x61c).equals(free)]).toEqual([200, true]);
        expect(spoilt.body.subarray(0, 0x41c).equals(good.body.subarray(0, 0x41c))).toBe(true);
        expect((await ask(server.http!, cekOf('ab'.repeat(64)))).status).toBe(404);
        expect((await ask(server.http!, CA('Milan'))).status).toBe(404);
      },
    );
  });
});

describe('the port for cloud providers', () => {
  const random = seededRandom(5);
  const nowMs = Date.now();
  const serverRoot = makeTlsAuthority('server', nowMs, random);
  const clientRoot = makeTlsAuthority('client', nowMs, random);
  const identity = makeTlsIdentity({ server: serverRoot, client: clientRoot }, nowMs, random);
  const listen = { identity, provider: { host: '127.0.0.1', port: 0 }, tls: { host: '127.0.0.1', port: 0 } };
  const tlsOf = (csp: string | null, authority = clientRoot) => {
    const ca = serverRoot.certificate;
    if (csp === null) {
      return { ca };
    }
    const { certificate, privateKey } = issueClientCertificate(authority, csp, nowMs, random);
    return { ca, cert: certificate, key: privateKey };
  };
  const target = (type: 'vlek' | 'hash_sticks', product: ProductLine): string =>
    formatKdsTarget({ type, product, tcb: tcbOf(product) } as KdsName);
  const post = (hwids: readonly string[]) => ({ method: 'POST', content: JSON.stringify({ hwids }) });

  it.each(PRODUCT_LINES)(
    'issues the VLEK of %s to the provider whose certificate the client has',
    async (product) => {
      await withService(listen, async ({ server }) => {
        const points = [];
        for (const csp of [CSP, OTHER_CSP]) {
          const { status, body } = await ask(server.provider!, target('vlek', product), tlsOf(csp));
          expect(status).toBe(200);
          const certificate = decodeCertificate(body);
          expect(endorsementOf(certificate)).toMatchObject({ cspId: csp, tcb: tcbOf(product), hwId: null });
          const { asvk } = embeddedAuthority(product);
          expect(new X509Certificate(body).verify(new X509Certificate(asvk).publicKey)).toBe(true);
          points.push(toHex(certificate.spki));
        }
        expect(new Set(points).size).toBe(2);
      });
    },
  );

  it('seals hash sticks for the chips of that provider and for no others', async () => {
    await withService(listen, async ({ server }) => {
      const tls = tlsOf(CSP);
      const own = hwid('Milan').toUpperCase();
      const asked = [own, toHex(FOREIGN_CHIP.chipId), 'ab'.repeat(64)];
      const { status, headers, body } = await ask(server.provider!, target('hash_sticks', 'Milan'), {
        ...tls,
        ...post(asked),
      });
      expect([status, headers['content-type']]).toEqual([200, 'application/json']);
      const { results } = JSON.parse(body.toString()) as { results: Record<string, string>[] };
      expect(results.map((row) => Object.keys(row)[0])).toEqual(asked);
      expect(results.slice(1).map((row) => Object.values(row)[0])).toEqual(['not found', 'not found']);
      const wrapped = fromHex(results[0]![own]!);
      const key = chipWrappingKey(crypto, CHIPS.Milan.secret);
      const stick = unwrapHashstick(crypto, key, 'Milan', wrapped)!;
      expect(stick.tcb).toEqual(tcbOf('Milan'));
      // The key the chip now signs with is the one the provider's certificate is for.
      const vlek = await ask(server.provider!, target('vlek', 'Milan'), tls);
      const point = endorsementKey(crypto, stick, 'VLEK').publicPoint;
      expect(decodeCertificate(vlek.body).key).toEqual({ kind: 'p384', point });
    });
  });

  it('takes the ids of Turin with 16 digits and with 128', async () => {
    await withService(listen, async ({ server }) => {
      const asked = [hwid('Turin'), toHex(CHIPS.Turin.chipId)];
      const options = { ...tlsOf(CSP), ...post(asked) };
      const { body } = await ask(server.provider!, target('hash_sticks', 'Turin'), options);
      const { results } = JSON.parse(body.toString()) as { results: Record<string, string>[] };
      expect(results.map((row) => Object.values(row)[0]!.length)).toEqual([864, 864]);
    });
  });

  it('answers 401 without a client certificate or with a foreign one, 403 for an unknown provider', async () => {
    await withService(listen, async ({ server }) => {
      const foreign = makeTlsAuthority('client', nowMs, random);
      const status = async (base: string, tls: object, path = target('vlek', 'Milan')): Promise<number> =>
        (await ask(base, path, tls)).status;
      expect(await status(server.provider!, tlsOf(null))).toBe(401);
      expect(await status(server.provider!, tlsOf(CSP, foreign))).toBe(401);
      expect(await status(server.provider!, tlsOf('CN=nobody.example'))).toBe(403);
      expect(
        await status(server.provider!, { ...tlsOf(null), ...post([]) }, target('hash_sticks', 'Milan')),
      ).toBe(401);
      expect(await status(server.tls!, tlsOf(CSP))).toBe(401);
      expect(await status(server.http!, {})).toBe(401);
      expect(await status(server.provider!, tlsOf(CSP), '/vlek/v1/Milan/cert_chain')).toBe(404);
      expect(await status(server.tls!, tlsOf(null), '/vlek/v1/Milan/cert_chain')).toBe(200);
    });
  });

  it('refuses a body that is not a list of ids, and one that is too long', async () => {
    await withService(listen, async ({ server }) => {
      const tls = tlsOf(CSP);
      const status = async (content: string): Promise<number> => {
        const options = { ...tls, method: 'POST', content };
        return (await ask(server.provider!, target('hash_sticks', 'Milan'), options)).status;
      };
      for (const content of [
        '',
        '{',
        '[]',
        'null',
        '{"hwids":"a"}',
        '{"hwids":[1]}',
        '{"hwids":["abc"]}',
        '{"hwids":["zz"]}',
      ]) {
        expect([content, await status(content)]).toEqual([content, 400]);
      }
      expect(await status(JSON.stringify({ hwids: new Array(1025).fill(hwid('Milan')) }))).toBe(400);
      expect(await status(JSON.stringify({ hwids: ['__proto__'] }))).toBe(400);
      expect(await status('{"hwids":[]}')).toBe(200);
      const long = ask(server.provider!, target('hash_sticks', 'Milan'), {
        ...tls,
        method: 'POST',
        content: 'x'.repeat(300_000),
      });
      // The answer may get lost when the client is still writing.
      expect(await long.then(({ status: code }) => code).catch(() => 413)).toBe(413);
      const get = await ask(server.provider!, target('hash_sticks', 'Milan'), tls);
      expect([get.status, get.headers.allow]).toEqual([405, 'POST']);
    });
  });

  it('shows itself as kdsintf.amd.com under a root that can certify nothing else', async () => {
    await withService(listen, async ({ server }) => {
      for (const servername of ['kdsintf.amd.com', 'localhost']) {
        const reply = await ask(server.tls!, vcek('Genoa'), {
          ca: serverRoot.certificate,
          servername,
        } as object);
        expect(reply.status).toBe(200);
      }
      await expect(ask(server.tls!, vcek('Genoa'))).rejects.toMatchObject({
        code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      });
      const wrong = { ca: serverRoot.certificate, servername: 'amd.com' } as object;
      await expect(ask(server.tls!, vcek('Genoa'), wrong)).rejects.toMatchObject({
        code: 'ERR_TLS_CERT_ALTNAME_INVALID',
      });
    });
    expect(new X509Certificate(serverRoot.certificate).subject).toContain('TEST ROOT\\, NOT AMD');
  });
});
