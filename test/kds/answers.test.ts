// SPDX-License-Identifier: Apache-2.0
/** Answers that no honest service gives: what stands in them is refused, and never kept. */
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import { embeddedAuthority, issueVcek, issueVlek, MemoryCache } from '../../src/kds/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { clientOf, milan } from './client-of.ts';
import { CHIPS, CSP, fleet, NOW_MS, tcbOf, withService } from './setup.ts';

/** Listens on a loopback port while the test does its work. */
async function listening(server: Server, test: (authority: string) => Promise<void>): Promise<void> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  try {
    await test(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    for (const socket of open) {
      socket.destroy();
    }
    server.close();
  }
}

const random = seededRandom(21);
const authority = embeddedAuthority('Milan');
const vcekOf = (product: 'Milan' | 'Genoa', issuer = embeddedAuthority(product)): Uint8Array =>
  issueVcek({
    authority: issuer,
    chipId: CHIPS[product].chipId,
    tcb: tcbOf(product),
    publicPoint: fleet.vcekPoint(CHIPS[product], tcbOf(product))!,
    notBeforeMs: NOW_MS,
    random,
  });
const good = vcekOf('Milan');
const vlek = issueVlek({
  authority,
  csp: CSP,
  tcb: tcbOf('Milan'),
  publicPoint: fleet.vlekPoint(fleet.provider(CSP)!, 'Milan', tcbOf('Milan')),
  notBeforeMs: NOW_MS,
  random,
});
const byForeignKey = vcekOf('Milan', {
  ...authority,
  sign: (_role, tbs, salt) => authority.sign('ASVK', tbs, salt),
});
const fakeTimes = { deadlineMs: 2000, attemptMs: 200, backoffMs: 1000 };

interface Answer {
  readonly body: Uint8Array | string;
  readonly headers?: Record<string, string>;
  /** The connection stays open after the body. */
  readonly isHeld?: boolean;
}

const REFUSED = 'KDS_ANSWER_REFUSED';
const UNAVAILABLE = 'KDS_UNAVAILABLE';

describe('a VCEK answer', () => {
  const rows: readonly (readonly [what: string, answer: Answer, code: string, why: RegExp])[] = [
    [
      'with a byte after the certificate',
      { body: Buffer.concat([good, Buffer.alloc(1)]) },
      UNAVAILABLE,
      /not what/,
    ],
    ['with the certificate twice', { body: Buffer.concat([good, good]) }, UNAVAILABLE, /not what/],
    ['in PEM', { body: toPem(good) }, UNAVAILABLE, /not what/],
    ['of no bytes', { body: '' }, UNAVAILABLE, /not what/],
    ['that is an empty structure', { body: Uint8Array.of(0x30, 0) }, REFUSED, /./],
    ['of 65,536 zeros', { body: new Uint8Array(65_536) }, UNAVAILABLE, /not what/],
    ['of 65,537 bytes', { body: new Uint8Array(65_537) }, REFUSED, /more than 65536/],
    ['that is the ASK', { body: authority.ask }, REFUSED, /not a VCEK certificate of Milan/],
    ['that is the ARK', { body: authority.ark }, REFUSED, /not a VCEK certificate of Milan/],
    ['that is a VLEK of the same line', { body: vlek }, REFUSED, /not a VCEK certificate of Milan/],
    ['that is a VCEK of Genoa', { body: vcekOf('Genoa') }, REFUSED, /not a VCEK certificate of Milan/],
    ['signed by another key', { body: byForeignKey }, REFUSED, /CERT_SIGNATURE_MISMATCH/],
    [
      'that calls itself compressed and is not',
      { body: good, headers: { 'content-encoding': 'gzip' } },
      UNAVAILABLE,
      /incorrect header check|Z_DATA_ERROR/,
    ],
    [
      'that is one byte short of its length, and never ends',
      { body: good, headers: { 'content-length': String(good.length + 1) }, isHeld: true },
      UNAVAILABLE,
      /no answer within/,
    ],
    [
      'that announces a petabyte, and never ends',
      { body: good, headers: { 'content-length': '1000000000000000' }, isHeld: true },
      UNAVAILABLE,
      /no answer within/,
    ],
  ];

  it.each(rows)('%s is refused, and nothing of it is kept', async (_what, answer, code, why) => {
    await withService({}, async (running) => {
      let answered: Answer = answer;
      const front = createServer((request, response) => {
        if (!request.url!.includes('SPL')) {
          void fetch(running.server.http! + request.url).then(async (reply) => {
            response.end(Buffer.from(await reply.arrayBuffer()));
          });
          return;
        }
        response.writeHead(200, answered.headers);
        if (answered.isHeld) {
          response.write(answered.body);
        } else {
          response.end(answered.body);
        }
      });
      await listening(front, async (address) => {
        const cache = new MemoryCache();
        const { client } = clientOf(`http://${address}`, { cache, timing: fakeTimes });
        await expect(client.vcek(...milan())).rejects.toMatchObject({
          code,
          message: expect.stringMatching(why),
        });
        answered = { body: good };
        expect(toHex(await client.vcek(...milan()))).toBe(toHex(good));
      });
    });
  });
});

describe('a connection', () => {
  const rows: readonly (readonly [what: string, scheme: string, talk: (socket: Socket) => void])[] = [
    ['whose TLS handshake is never answered', 'https', () => {}],
    ['on which nothing is ever said', 'http', () => {}],
    [
      'whose headers come slowly and never end',
      'http',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n');
        const drip = setInterval(() => socket.write('x-a: b\r\n'), 20);
        socket.on('close', () => clearInterval(drip));
      },
    ],
  ];

  it.each(rows)('%s is given up in time', async (_what, scheme, talk) => {
    await listening(createTcpServer(talk), async (address) => {
      const { client, troubles } = clientOf(`${scheme}://${address}`, { timing: fakeTimes });
      await expect(client.chain('vcek', 'Milan')).rejects.toMatchObject({
        code: UNAVAILABLE,
        message: expect.stringContaining('no answer within 200 ms'),
      });
      expect(troubles.length).toBe(1);
    });
  });

  it('whose headers are endless is given up at their limit', async () => {
    const talk = (socket: Socket): void => {
      socket.write(`HTTP/1.1 200 OK\r\n${`x-a: ${'b'.repeat(1000)}\r\n`.repeat(100)}`);
    };
    await listening(createTcpServer(talk), async (address) => {
      const { client } = clientOf(`http://${address}`, { timing: { ...fakeTimes, attemptMs: 10_000 } });
      await expect(client.chain('vcek', 'Milan')).rejects.toMatchObject({
        code: UNAVAILABLE,
        message: expect.stringContaining('UND_ERR_HEADERS_OVERFLOW'),
      });
    });
  });

  it.each([204, 304, 404, 500])(
    'with a status of %d and a body that never comes is let go',
    async (status) => {
      let ended = 0;
      const talk = (socket: Socket): void => {
        socket.write(`HTTP/1.1 ${status} X\r\nContent-Length: 18\r\n\r\n`);
        socket.on('close', () => {
          ended += 1;
        });
      };
      await listening(createTcpServer(talk), async (address) => {
        const { client } = clientOf(`http://${address}`, { timing: { deadlineMs: 700 } });
        await expect(client.chain('vcek', 'Milan')).rejects.toThrow();
        await expect.poll(() => ended).toBe(1);
      });
    },
  );
});
