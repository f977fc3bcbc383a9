// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fromPem } from '../../src/certs/pem.ts';
import { kdsVerb } from '../../src/cli/kds.ts';
import { addressOption, kdsServeVerb } from '../../src/cli/kds-serve.ts';
import { runCli } from '../../src/cli/run.ts';
import { parseFleet } from '../../src/kds/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { encodeHostState, newHostState } from '../../src/machine/state.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { decodeCertificate } from '../../src/verify/x509.ts';
import { reportOf } from './report.ts';
import { ask, CHIPS, CSP, crypto, hwid, tcbOf } from './setup.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-kds-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Ran {
  status: number;
  stdout: string;
  stderr: string;
}

async function softsnp(...args: string[]): Promise<Ran> {
  const ran: Ran = { status: 0, stdout: '', stderr: '' };
  const output = {
    stdout: (text: string) => {
      ran.stdout += text;
    },
    stderr: (text: string) => {
      ran.stderr += text;
    },
  };
  const root = { meta: { name: 'softsnp' }, subCommands: { kds: kdsVerb(output) } };
  ran.status = await runCli(root, args, '0', output);
  return ran;
}

interface Ready {
  readonly http: string | null;
  readonly tls: string | null;
  readonly provider: string | null;
  readonly root: string | null;
  readonly chips: number;
}

/** Runs `kds serve --json` with the arguments while the test does its work. */
async function serving(
  args: readonly string[],
  test: (ready: Ready, stdout: () => string) => Promise<void>,
): Promise<void> {
  let stdout = '';
  let stderr = '';
  let end!: () => void;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  let started!: () => void;
  const ready = new Promise<void>((resolve) => {
    started = resolve;
  });
  const output = {
    stdout: (text: string) => {
      stdout += text;
      started();
    },
    stderr: (text: string) => {
      stderr += text;
    },
  };
  const running = runCli(
    kdsServeVerb(output, () => ended),
    ['--json', ...args],
    '0',
    output,
  );
  await Promise.race([ready, running]);
  try {
    expect(stderr).toBe('');
    await test(JSON.parse(stdout.split('\n')[0]!) as Ready, () => stdout);
  } finally {
    end();
  }
  expect(await running).toBe(0);
}

function fleetFile(): string {
  const path = join(folder, 'fleet.json');
  const chips = Object.values(CHIPS).map(({ product, secret, csp }) => ({
    product,
    chip_secret: toHex(secret),
    csp,
  }));
  const providers = [{ csp: CSP, csp_secret: toHex(seededRandom(11).bytes(48)) }];
  writeFileSync(path, JSON.stringify({ softsnp_fleet: 1, chips, providers }));
  return path;
}

describe('softsnp kds serve', () => {
  it('serves the chip of a host state, and says when and where', async () => {
    const random = seededRandom(3);
    const state = newHostState(crypto, random, 'Genoa', { seed: null });
    mkdirSync(join(folder, 'state'));
    writeFileSync(join(folder, 'state', 'state.json'), encodeHostState(crypto, state));
    await serving(['--state', join(folder, 'state'), '--listen', '0', '--verbose'], async (ready, stdout) => {
      expect(ready).toMatchObject({ event: 'ready', tls: null, provider: null, root: null, chips: 1 });
      expect(ready.http).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
      const target = `/vcek/v1/Genoa/${toHex(state.chipId)}?blSPL=1&teeSPL=0&snpSPL=2&ucodeSPL=3`;
      expect((await ask(ready.http!, target)).status).toBe(200);
      const answer = JSON.parse(stdout().split('\n')[1]!) as unknown;
      expect(answer).toMatchObject({ event: 'answer', target, status: 200, port: 'http', fault: null });
    });
  });

  it('serves a fleet over TLS, keeps its root from one start to the next, and knows providers', async () => {
    const args = ['--fleet', fleetFile(), '--tls', '0', '--provider', '0', '--tls-dir', join(folder, 'tls')];
    const roots: string[] = [];
    for (let start = 0; start < 2; start++) {
      await serving(args, async ({ http, tls, provider, root }) => {
        expect(http).toBeNull();
        const ca = readFileSync(root!, 'utf8');
        roots.push(ca);
        expect((await ask(tls!, '/vcek/v1/Turin/cert_chain', { ca })).status).toBe(200);
        const [cert, key] = ['pem', 'key'].map((kind) =>
          readFileSync(join(folder, 'tls', `client-cloud.example.${kind}`), 'utf8'),
        );
        const target = '/vlek/v1/Milan/cert?blSPL=3&teeSPL=0&snpSPL=23&ucodeSPL=213';
        expect((await ask(provider!, target, { ca, cert: cert!, key: key! })).status).toBe(200);
        expect((await ask(provider!, target, { ca })).status).toBe(401);
      });
    }
    expect(roots[0]).toBe(roots[1]);
    for (const name of readdirSync(join(folder, 'tls')).filter((file) => file.endsWith('.key'))) {
      expect([name, statSync(join(folder, 'tls', name)).mode & 0o777]).toEqual([name, 0o600]);
    }
  });

  it('gives a provider a new certificate when its own is damaged or of another root', async () => {
    const args = ['--fleet', fleetFile(), '--tls', '0', '--tls-dir', join(folder, 'tls')];
    const client = () => readFileSync(join(folder, 'tls', 'client-cloud.example.pem'), 'utf8');
    await serving(args, async () => {});
    const first = client();
    rmSync(join(folder, 'tls', 'client-root.key'));
    await serving(args, async () => {});
    const second = client();
    expect(second).not.toBe(first);
    writeFileSync(join(folder, 'tls', 'client-cloud.example.key'), 'damaged');
    await serving(args, async () => {});
    expect(client()).not.toBe(second);
    expect(new X509Certificate(client()).subject).toContain('CN=cloud.example');
  });

  it.each(['server-root.key', 'client-root.key'])(
    'refuses a damaged %s, and touches nothing',
    async (name) => {
      const args = ['--fleet', fleetFile(), '--listen', '0', '--tls', '0', '--tls-dir', join(folder, 'tls')];
      await serving(args, async () => {});
      const root = readFileSync(join(folder, 'tls', 'root.pem'), 'utf8');
      const whole = readFileSync(join(folder, 'tls', name), 'latin1');
      for (const damaged of ['', 'damaged', whole.slice(0, 600), whole.replace('A', 'B')]) {
        writeFileSync(join(folder, 'tls', name), damaged);
        const ran = await softsnp('kds', 'serve', ...args);
        expect([ran.status, ran.stdout]).toEqual([1, '']);
        expect(ran.stderr).toContain(`${name}: not a certificate and its private key [TLS_ROOT_INVALID]`);
        expect(readFileSync(join(folder, 'tls', name), 'latin1')).toBe(damaged);
        expect(readFileSync(join(folder, 'tls', 'root.pem'), 'utf8')).toBe(root);
      }
    },
  );

  it('limits and fails as told', async () => {
    const args = [
      '--fleet',
      fleetFile(),
      '--listen',
      '[::1]:0',
      '--rate',
      'amd',
      '--retry-after',
      '--fault',
      'crl=503:7*1',
    ];
    await serving(args, async ({ http }) => {
      const target = `/vcek/v1/Milan/${hwid('Milan')}?blSPL=3&teeSPL=0&snpSPL=23&ucodeSPL=213`;
      expect((await ask(http!, target)).status).toBe(200);
      const limited = await ask(http!, target);
      // Seconds from the answer before, which on a busy machine may be a while ago.
      expect([limited.status, limited.headers['retry-after']]).toEqual([
        429,
        expect.stringMatching(/^([5-9]|10)$/),
      ]);
      const failed = await ask(http!, '/vcek/v1/Milan/crl');
      expect([failed.status, failed.headers['retry-after']]).toEqual([503, '7']);
      expect((await ask(http!, '/vcek/v1/Milan/crl')).status).toBe(200);
    });
  });

  it.each([
    [[], 'give one of --state and --fleet'],
    [['--state', 'a', '--fleet', 'b'], 'give one of --state and --fleet'],
    [['--state', '/nowhere'], 'FILE_UNREADABLE'],
    [['--fleet', '/nowhere'], 'FILE_UNREADABLE'],
    [['--fleet', 'FLEET', '--listen', 'x:y'], 'is not HOST:PORT'],
    [['--fleet', 'FLEET', '--tls', '0'], '--tls-dir'],
    [['--fleet', 'FLEET', '--tls', '0', '--tls-dir', 'FLEET'], 'STATE_UNWRITABLE'],
    [['--fleet', 'FLEET', '--tls', '0', '--tls-dir', '/proc/softsnp'], 'STATE_UNWRITABLE'],
    [['--fleet', 'FLEET', '--tls-dir', 'FLEET'], 'is for --tls and --provider'],
    [['--fleet', 'FLEET', '--rate', 'fast'], 'is not a rate'],
    [['--fleet', 'FLEET', '--retry-after'], 'is for --rate'],
    [['--fleet', 'FLEET', '--fault', 'vcek=broken'], 'no fault broken'],
    [['--fleet', 'FLEET', '--listen', '192.0.2.1:1'], 'LISTEN_FAILED'],
  ])('refuses %j', async (args, message) => {
    const fleet = fleetFile();
    const { status, stdout, stderr } = await softsnp(
      'kds',
      'serve',
      ...args.map((arg) => (arg === 'FLEET' ? fleet : arg)),
    );
    expect(stderr).toContain(message);
    expect(stdout).toBe('');
    expect([1, 3]).toContain(status);
  });

  it.each([
    ['8480', { host: '127.0.0.1', port: 8480 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['[::1]:443', { host: '::1', port: 443 }],
  ])('reads %s as an address', (text, address) => {
    expect(addressOption('listen', text)).toEqual(address);
  });
});

describe('softsnp kds fetch', () => {
  const flags = (http: string, ...more: string[]): string[] => [
    '--kds',
    http,
    '--trust',
    'softsnp',
    '--cache',
    join(folder, 'cache'),
    ...more,
  ];

  it('fetches chain, list and certificate, by name and by report', async () => {
    await serving(['--fleet', fleetFile(), '--listen', '0'], async ({ http }) => {
      const ca = await softsnp('kds', 'fetch', 'ca', '--product', 'turin', '--vlek', ...flags(http!));
      expect(ca.stderr).toBe('');
      expect(fromPem(ca.stdout).map((der) => decodeCertificate(der).subject.commonName)).toEqual([
        'SEV-VLEK-Turin',
        'ARK-Turin',
      ]);
      const crl = await softsnp('kds', 'fetch', 'crl', '--product', 'genoa', ...flags(http!, '--json'));
      expect(fromPem((JSON.parse(crl.stdout) as { pem: string }).pem, 'X509 CRL').length).toBe(1);

      const byName = ['--product', 'turin', '--hwid', hwid('Turin'), '--tcb', '1,3,0,23,213'];
      const out = join(folder, 'vcek.der');
      const der = await softsnp(
        'kds',
        'fetch',
        'vcek',
        ...byName,
        ...flags(http!, '--format', 'der', '--out', out),
      );
      expect([der.stderr, der.stdout, der.status]).toEqual(['', '', 0]);
      const report = join(folder, 'report.bin');
      writeFileSync(report, reportOf('Turin', CHIPS.Turin, tcbOf('Turin')));
      const byReport = await softsnp('kds', 'fetch', 'vcek', '--report', report, ...flags(http!));
      // The second one comes from the cache: it is the same certificate, not another of the same key.
      expect(fromPem(byReport.stdout).map(toHex)).toEqual([toHex(readFileSync(out))]);
    });
  });

  it('refuses what is not under a trusted root with exit code 2, and says what cannot be had with 3', async () => {
    await serving(['--fleet', fleetFile(), '--listen', '0'], async ({ http }) => {
      const amd = await softsnp(
        'kds',
        'fetch',
        'ca',
        '--product',
        'milan',
        '--kds',
        http!,
        '--cache',
        'none',
      );
      expect([amd.status, amd.stdout]).toEqual([2, '']);
      expect(amd.stderr).toContain('KDS_ANSWER_REFUSED');
      const id = ['--hwid', 'ab'.repeat(64), '--tcb', '1,2,3,4'];
      const unknown = await softsnp('kds', 'fetch', 'vcek', '--product', 'milan', ...id, ...flags(http!));
      expect([unknown.status, unknown.stdout]).toEqual([3, '']);
      expect(unknown.stderr).toContain('KDS_NOT_FOUND');
    });
  });

  it.each([
    [['vcek'], 'give --report, or --product, --hwid and --tcb'],
    [['vcek', '--hwid', 'ab', '--tcb', '1,2,3,4'], '--product'],
    [['vcek', '--product', 'milan', '--hwid', 'ab', '--tcb', '1,2,3,4'], 'not the id of a Milan chip'],
    [['vcek', '--product', 'milan', '--hwid', '0'.repeat(16), '--tcb', '1,2,3,4'], 'not the id'],
    [
      ['vcek', '--product', 'turin', '--hwid', 'ab'.repeat(64), '--tcb', '1,1,2,3,4'],
      'not the id of a Turin chip',
    ],
    [['vcek', '--product', 'milan', '--hwid', 'ab'.repeat(64), '--tcb', '1,2,3'], 'is not 4 numbers'],
    [['vcek', '--report', '/nowhere'], 'FILE_UNREADABLE'],
    [['ca'], '--product'],
    [['ca', '--product', 'rome'], 'is not milan, genoa or turin'],
    [['crl', '--product', 'milan', '--format', 'der'], 'DER is written to a file'],
    [['crl', '--product', 'milan', '--kds', 'file:///x'], 'is no http or https URL'],
    [['crl', '--product', 'milan', '--deadline', '0'], '--deadline'],
  ])('refuses %j', async (args, message) => {
    const { status, stderr } = await softsnp('kds', 'fetch', ...args, '--cache', 'none');
    expect(stderr).toContain(message);
    expect([1, 3]).toContain(status);
  });
});

describe('the fleet file of these tests', () => {
  it('has the chips of the programmatic fleet', () => {
    const fleet = parseFleet(crypto, readFileSync(fleetFile()), 'fleet.json');
    expect(fleet.chips.map(({ chipId }) => toHex(chipId))).toEqual(
      Object.values(CHIPS).map(({ chipId }) => toHex(chipId)),
    );
  });
});
