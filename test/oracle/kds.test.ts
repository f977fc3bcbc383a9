// SPDX-License-Identifier: Apache-2.0
/**
 * Programs that know only https://kdsintf.amd.com, before softsnp's key service. A proxy (HTTPS_PROXY) sends
 * their connections to it, and SSL_CERT_FILE has its root: no name service and no namespace is touched.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProductLine } from '../../src/abi/product.ts';
import { toPem } from '../../src/certs/pem.ts';
import {
  embeddedAuthority,
  formatKdsTarget,
  issueClientCertificate,
  type KdsLogEntry,
  type KdsServer,
  KdsService,
  makeTlsAuthority,
  makeTlsIdentity,
  startKdsServer,
} from '../../src/kds/index.ts';
import { systemRandom } from '../../src/os/node-crypto.ts';
import { systemClock } from '../../src/os/system-clock.ts';
import { decodeCertificate } from '../../src/verify/x509.ts';
import { reportOf } from '../kds/report.ts';
import { CHIPS, CSP, fleet, hwid, tcbOf } from '../kds/setup.ts';
import { onPath, type Ran, root, tool } from './tools.ts';

const check = tool('go/check', 'go-sev-guest check with its network');
const snpguest = tool('cargo/bin/snpguest', 'snpguest fetch');
const curl = onPath('curl', ['--version']);
if (!curl) {
  console.warn('SKIPPED: curl is not installed');
}
const openssl = onPath('openssl');
if (!openssl) {
  console.warn('SKIPPED: openssl is not installed');
}
const PRODUCTS: readonly ProductLine[] = ['Milan', 'Genoa', 'Turin'];

let folder: string;
let server: KdsServer;
let proxy: Server;
let env: NodeJS.ProcessEnv;
const log: KdsLogEntry[] = [];
const tunnels = new Set<Socket>();
const serverRoot = makeTlsAuthority('server', Date.now(), systemRandom);
const clientRoot = makeTlsAuthority('client', Date.now(), systemRandom);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-kds-oracle-'));
  const anywhere = { host: '127.0.0.1', port: 0 };
  server = await startKdsServer({
    service: new KdsService({ fleet, clock: systemClock, random: systemRandom }),
    tls: anywhere,
    provider: anywhere,
    identity: makeTlsIdentity({ server: serverRoot, client: clientRoot }, Date.now(), systemRandom),
    onAnswer: (entry) => {
      log.push(entry);
    },
    onFault: (error) => {
      throw error;
    },
  });
  const ports: Readonly<Record<string, string>> = {
    'kdsintf.amd.com:443': new URL(server.tls!).port,
    'kdsintf.amd.com:444': new URL(server.provider!).port,
  };
  proxy = createServer().on('connect', (request, client: Socket) => {
    const port = ports[request.url ?? ''];
    if (port === undefined) {
      client.end('HTTP/1.1 403 Forbidden\r\n\r\n');
      return;
    }
    const upstream = connect(Number(port), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      client.pipe(upstream).pipe(client);
    });
    for (const socket of [client, upstream]) {
      tunnels.add(socket);
      socket.on('error', () => {
        client.destroy();
        upstream.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => {
    proxy.listen(0, '127.0.0.1', resolve);
  });
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const trust = join(folder, 'root.pem');
  writeFileSync(trust, serverRoot.certificate);
  env = { HTTPS_PROXY: url, https_proxy: url, NO_PROXY: '', no_proxy: '', SSL_CERT_FILE: trust };
});

afterAll(async () => {
  for (const socket of tunnels) {
    socket.destroy();
  }
  proxy.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs a program while this process goes on serving it. */
function runBeside(command: string, args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += String(chunk);
    });
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    child.on('error', (error) => {
      resolve({ status: -1, stdout, stderr: error.message });
    });
    child.on('close', (status) => {
      resolve({ status: status ?? -1, stdout, stderr });
    });
  });
}

function reportFile(product: ProductLine): string {
  const path = join(folder, `report-${product}.bin`);
  writeFileSync(path, reportOf(product, CHIPS[product], tcbOf(product)));
  return path;
}

function certificateFolder(name: string): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  return path;
}

describe.skipIf(snpguest === null)('snpguest', () => {
  it.each(PRODUCTS)(
    'fetches chain, VCEK and list of %s, and then verifies the report with them',
    async (product) => {
      const model = product.toLowerCase();
      const report = reportFile(product);
      const certs = certificateFolder(`snpguest-${product}`);
      for (const args of [
        ['fetch', 'ca', 'pem', certs, model],
        ['fetch', 'vcek', 'pem', certs, report],
        ['fetch', 'crl', 'pem', certificateFolder(`snpguest-crl-${product}`), model],
        ['verify', 'certs', certs],
        ['verify', 'attestation', certs, report],
      ]) {
        const ran = await runBeside(snpguest!, args);
        expect([args.join(' '), ran.status, ran.stderr]).toEqual([args.join(' '), 0, '']);
      }
      expect(readdirSync(certs).sort()).toEqual(['ark.pem', 'ask.pem', 'vcek.pem']);
      const asked = log.filter(({ target }) => target.startsWith(`/vcek/v1/${product}/`));
      expect(asked.map(({ status }) => status)).toEqual([200, 200, 200]);
      // What it asks is what we call canonical.
      const target = formatKdsTarget({ type: 'vcek', product, hwid: hwid(product), tcb: tcbOf(product) });
      expect(asked.map((entry) => entry.target)).toContain(target);
    },
  );

  it('fetches the chain of VLEKs', async () => {
    const certs = certificateFolder('snpguest-vlek');
    const ran = await runBeside(snpguest!, ['fetch', 'ca', '-e', 'vlek', 'der', certs, 'genoa']);
    expect([ran.status, ran.stderr]).toEqual([0, '']);
    const names = readdirSync(certs).map(
      (name) => decodeCertificate(readFileSync(join(certs, name))).subject.commonName,
    );
    expect(names.sort()).toEqual(['ARK-Genoa', 'SEV-VLEK-Genoa']);
  });
});

// Turin: go-sev-guest 0.15.0 knows neither 8-byte ids nor the FMC extension.
describe.skipIf(check === null)('go-sev-guest check', () => {
  const goCheck = async (product: ProductLine, bundle: string, ...more: string[]): Promise<Ran> =>
    runBeside(check!, [
      ...[
        '-in',
        reportFile(product),
        '-inform',
        'bin',
        '-network=true',
        '-product',
        product,
        '-stepping',
        '1',
      ],
      ...['-product_key_path', bundle, '-guest_policy', '0x30000', '-timeout', '20s', ...more],
    ]);
  const bundleOf = (product: ProductLine): string => {
    const path = join(folder, `bundle-${product}.pem`);
    const { ask, ark } = embeddedAuthority(product);
    writeFileSync(path, toPem(ask) + toPem(ark));
    return path;
  };

  it.each(['Milan', 'Genoa'] as const)(
    'fetches the VCEK and the list of %s and accepts the report',
    async (product) => {
      log.length = 0;
      const ran = await goCheck(product, bundleOf(product), '-check_crl=true');
      expect(`${ran.stdout}${ran.stderr}`).not.toMatch(/fatal|error/i);
      expect(ran.status).toBe(0);
      const labels = log.map(({ target }) => target.split('/').at(-1)!.split('?')[0]);
      expect(labels).toEqual(expect.arrayContaining([hwid(product), 'crl']));
    },
  );

  it('refuses the report when the roots are those of another product line', async () => {
    expect((await goCheck('Milan', bundleOf('Genoa'))).status).not.toBe(0);
  });
});

describe.skipIf(!curl)('curl, as snphost uses it', () => {
  const files = (csp: string): string[] => {
    const { certificate, privateKey } = issueClientCertificate(clientRoot, csp, Date.now(), systemRandom);
    writeFileSync(join(folder, 'client.pem'), certificate);
    writeFileSync(join(folder, 'client.key'), privateKey);
    return ['--cert', join(folder, 'client.pem'), '--key', join(folder, 'client.key')];
  };
  const ask = (url: string, ...more: string[]): Promise<Ran> =>
    runBeside('curl', [
      '-sS',
      '--cacert',
      join(folder, 'root.pem'),
      ...more,
      `https://kdsintf.amd.com${url}`,
    ]);
  const spl = 'blSPL=03&teeSPL=00&snpSPL=23&ucodeSPL=213';

  it('gets hash sticks with a client certificate on port 444, and a word without one', async () => {
    const body = JSON.stringify({ hwids: [hwid('Milan'), 'ab'.repeat(64)] });
    const post = ['-H', 'Content-Type: application/json', '-d', body];
    const { stdout, stderr } = await ask(`:444/vlek/v1/Milan/hash_sticks?${spl}`, ...files(CSP), ...post);
    expect(stderr).toBe('');
    const { results } = JSON.parse(stdout) as { results: Record<string, string>[] };
    expect(results[0]![hwid('Milan')]).toMatch(/^[0-9a-f]{864}$/);
    expect(results[1]!['ab'.repeat(64)]).toBe('not found');
    const refused = await ask(`:444/vlek/v1/Milan/hash_sticks?${spl}`, ...post, '-w', '%{http_code}');
    expect(refused.stdout).toMatch(/client certificate[\s\S]*401$/);
  });
});

describe.skipIf(!openssl)('openssl', () => {
  it('refuses whatever the TLS root certifies besides the key service and the loopback interface', async () => {
    writeFileSync(join(folder, 'ca.key'), serverRoot.privateKey);
    const csr = [
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      '/O=x',
    ];
    await runBeside('openssl', [...csr, '-keyout', join(folder, 'x.key'), '-out', join(folder, 'x.csr')]);
    for (const [name, verdict] of [
      ['DNS:kdsintf.amd.com', /x\.pem: OK/],
      ['IP:127.0.0.1', /x\.pem: OK/],
      ['DNS:bank.example', /permitted subtree violation/],
      ['DNS:amd.com', /permitted subtree violation/],
      ['IP:10.0.0.1', /permitted subtree violation/],
    ] as const) {
      writeFileSync(join(folder, 'x.ext'), `subjectAltName=${name}\n`);
      const signing = [
        'x509',
        '-req',
        '-in',
        'x.csr',
        '-CA',
        'root.pem',
        '-CAkey',
        'ca.key',
        '-set_serial',
        '1',
      ];
      const paths = signing.map((arg) => (/\./.test(arg) ? join(folder, arg) : arg));
      await runBeside('openssl', [
        ...paths,
        '-extfile',
        join(folder, 'x.ext'),
        '-out',
        join(folder, 'x.pem'),
      ]);
      const ran = await runBeside('openssl', [
        'verify',
        '-CAfile',
        join(folder, 'root.pem'),
        join(folder, 'x.pem'),
      ]);
      expect(`${name} ${ran.stdout}${ran.stderr}`).toMatch(verdict);
    }
  });
});

describe('softsnp kds serve as a process', () => {
  const started: ChildProcess[] = [];
  afterAll(() => {
    for (const child of started) {
      child.kill('SIGKILL');
    }
  });

  async function serve(
    ...args: string[]
  ): Promise<{ child: ChildProcess; http: string; ended: Promise<number | null> }> {
    const chips = [{ product: 'Milan', chip_secret: Buffer.from(CHIPS.Milan.secret).toString('hex') }];
    const path = join(folder, 'fleet.json');
    if (!existsSync(path)) {
      writeFileSync(path, JSON.stringify({ softsnp_fleet: 1, chips }));
    }
    const bin = join(root, 'bin', 'softsnp.js');
    const child = spawn(process.execPath, [
      bin,
      'kds',
      'serve',
      '--json',
      '--fleet',
      path,
      '--listen',
      '0',
      ...args,
    ]);
    started.push(child);
    const ended = new Promise<number | null>((resolve) => {
      child.on('close', resolve);
    });
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    const ready = await new Promise<string>((resolve, reject) => {
      child.stdout.once('data', (chunk) => {
        resolve(String(chunk));
      });
      child.once('close', (status) => {
        reject(new Error(`softsnp kds serve ended with status ${status}: ${stderr}`));
      });
    });
    return { child, ended, http: (JSON.parse(ready) as { http: string }).http };
  }

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'ends with status 0 at %s, silent connections or not',
    async (signal) => {
      const { child, ended, http } = await serve('--fault', 'crl=silent');
      const held = connect(Number(new URL(http).port), '127.0.0.1');
      held.on('error', () => {});
      const silent = fetch(`${http}/vcek/v1/Milan/crl`).catch(() => 'ended');
      expect((await fetch(`${http}/vcek/v1/Milan/cert_chain`)).status).toBe(200);
      child.kill(signal);
      expect(await ended).toBe(0);
      expect(await silent).toBe('ended');
    },
  );
});
