// SPDX-License-Identifier: Apache-2.0
/**
 * Programs of others, as they come from their registries, against softsnp: every subcommand that touches a
 * device or the key service, as root and as an ordinary user. docs/interop.md is written from this run:
 * UPDATE_DOCS=1 writes the table, otherwise it must be what is there.
 */
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AttestationReportV3 } from '../../src/abi/attestation-report.ts';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { decodeTcb, formatTcb, parseTcbText } from '../../src/abi/tcb-version.ts';
import { decodeCertificateTable } from '../../src/certs/table.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { decodeHostState, KeyService } from '../../src/machine/index.ts';
import { nodeCrypto, systemRandom } from '../../src/os/node-crypto.ts';
import { systemClock } from '../../src/os/system-clock.ts';
import { controlRequest } from '../../src/service/control-client.ts';
import type { HostStatus } from '../../src/service/host-control.ts';
import { bin, folderOf, identities, Process, removeFolder, softsnp } from '../service/softsnp.ts';
import { NEWER_STEPS, STEPS, type Step } from './client-steps.ts';
import { root, tool } from './tools.ts';

const CLIENTS = {
  snpguest: tool('cargo/bin/snpguest', 'snpguest'),
  snphost: tool('cargo/bin/snphost', 'snphost'),
  sevctl: tool('cargo/bin/sevctl', 'sevctl'),
  attest: tool('go/attest', 'go-sev-guest attest'),
  check: tool('go/check', 'go-sev-guest check'),
  show: tool('go/show', 'go-sev-guest show'),
  tsm: tool('go/tsm-report', 'a program on go-configfs-tsm'),
};
const missing = Object.entries(CLIENTS).filter(([, path]) => path === null);

const results = new Map<string, Map<Step, string>>();
let bins: string;

beforeAll(() => {
  // The cache may be in a home folder that others cannot enter.
  bins = join(folderOf({ who: '', options: {}, obstacle: null }), 'bin');
  mkdirSync(bins);
  chmodSync(join(bins, '..'), 0o755);
  for (const path of Object.values(CLIENTS)) {
    if (path !== null) {
      copyFileSync(path, join(bins, path.slice(path.lastIndexOf('/') + 1)));
    }
  }
  execFileSync(process.execPath, [join(root, 'bin', 'softsnp.js'), '--version']);
});

afterAll(() => {
  removeFolder(join(bins, '..'));
});

const ALL_STEPS = [...STEPS, ...NEWER_STEPS];

/** Each step's exit code, output and errors in files that are named by its number. */
const runSteps = (before: readonly string[], steps: readonly Step[]): string =>
  [
    ...before,
    ...steps.map((step) => {
      const i = ALL_STEPS.indexOf(step);
      return `( ${step.command} ) > ${i}.out 2> ${i}.err < /dev/null; echo $? > ${i}.rc`;
    }),
    'exit 0',
  ].join('\n');

const PREPARE = [
  'mkdir -p blob kds snphost exported vlek',
  'head -c 64 /dev/urandom | xxd -p -c 64 > nonce.hex',
  'cp state/blobs/guest.blob blob.bin',
];

describe.each(identities)('real clients as $who', (identity) => {
  let folder: string;
  const file = (name: string): Buffer => readFileSync(join(folder, name));
  const skip = missing.length > 0 || identity.obstacle !== null;

  beforeAll(async () => {
    if (skip) {
      return;
    }
    folder = folderOf(identity);
    const options = {
      ...identity.options,
      env: { PATH: process.env['PATH'], HOME: folder, BIN: bins, NO_COLOR: '1' },
    };
    const session = async (script: string, ...more: string[]): Promise<void> => {
      const args = ['exec', '--kds-intercept', ...more, '--', 'sh', '-c', script];
      const { code, stderr } = await softsnp(args, folder, options);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    };
    await session(runSteps(PREPARE, STEPS), '--state', join(folder, 'state'), '--cpuid');
    const newer = ['--state', join(folder, 'state5'), '--report-version', '5'];
    await session(runSteps(['mkdir -p blob5'], NEWER_STEPS), ...newer);
    const row = new Map<Step, string>();
    results.set(identity.who, row);
    ALL_STEPS.forEach((step, i) => {
      row.set(
        step,
        file(`${i}.rc`).toString().trim() === '0' ? 'ok' : `fails: ${firstLine(file(`${i}.err`).toString())}`,
      );
    });
  });
  afterAll(() => {
    if (folder !== undefined) {
      removeFolder(folder);
    }
  });

  it.skipIf(skip).each(ALL_STEPS.map((step) => [`${step.client} ${step.subcommand}`, step] as const))(
    '%s',
    (_, step) => {
      const result = results.get(identity.who)!.get(step);
      if (step.refused !== null) {
        expect(result).toMatch(/^fails/);
      } else {
        expect(result).toBe('ok');
      }
    },
  );

  it.skipIf(skip)('got certificates equal to the blob', () => {
    const blob = decodeCertificateTable(file('blob.bin'));
    const der = (path: string) => new X509Certificate(file(path)).raw;
    const inBlob = (guid: string) => Buffer.from(blob.find((entry) => entry.guid === guid)!.data);
    expect(der('blob/vcek.pem').equals(inBlob(VCEK_GUID))).toBe(true);
    expect(der('blob/ask.pem').equals(inBlob(ASK_GUID))).toBe(true);
    expect(der('blob/ark.pem').equals(inBlob(ARK_GUID))).toBe(true);
    for (const auxblob of ['tsm.aux', 'tsm-go.aux']) {
      expect(decodeCertificateTable(file(auxblob))).toEqual(blob);
    }
    expect(decodeCertificateTable(file('go-dev.bin').subarray(1184)).slice(0, 3)).toEqual(blob);
  });

  it.skipIf(skip)('got the same key from the key service as from the guest', () => {
    const point = (path: string) =>
      new X509Certificate(file(path)).publicKey.export({ type: 'spki', format: 'der' });
    expect(point('kds/vcek.pem').equals(point('blob/vcek.pem'))).toBe(true);
    expect(point('snphost/vcek.pem').equals(point('blob/vcek.pem'))).toBe(true);
    expect(point('url.der').equals(point('blob/vcek.pem'))).toBe(true);
  });

  it.skipIf(skip)('told from the host what the host is', () => {
    const said = (subcommand: string): string => {
      const i = STEPS.findIndex((step) => step.client === 'snphost' && step.subcommand === subcommand);
      return file(`${i}.out`).toString();
    };
    const crypto = nodeCrypto({ deterministic: false });
    const { chipId } = decodeHostState(crypto, file('state/state.json'), 'state.json');
    expect(said('show identifier').trim().toLowerCase()).toBe(toHex(chipId));
    expect(said('show vcek-url').trim().toLowerCase()).toContain(`/vcek/v1/milan/${toHex(chipId)}?blspl=04&`);
    expect(said('show version')).toBe('1.55\n');
    expect(said('show guests')).toBe('1\n');
    expect(tcbsOf(said('show tcb'))).toEqual({ reported: '4,0,24,219', current: '4,0,24,219' });
    const set = { reported: '3,0,23,200', current: '4,0,24,219' };
    expect(tcbsOf(said('show tcb, after config set'))).toEqual(set);
    expect(said('show tcb, after config reset')).toBe(said('show tcb'));
    const tests: { status: string }[] = [];
    JSON.parse(said('ok --output json'), (_, value) => {
      if (typeof value?.status === 'string') {
        tests.push(value);
      }
      return value;
    });
    expect(tests.length).toBeGreaterThan(20);
    expect(tests.filter(({ status }) => status !== 'pass')).toEqual([]);
  });

  it.skipIf(skip)('gave the platform to sevctl’s owner, whose PEK stayed while the PDH was rotated', () => {
    const [PDH, PEK, OCA, CEK] = [0, 1, 2, 3] as const;
    const certificate = (chain: string, at: number) => file(chain).subarray(2084 * at, 2084 * (at + 1));
    const isSame = (at: number, one: string, other: string): boolean =>
      certificate(one, at).equals(certificate(other, at));
    expect(certificate('owned.bin', OCA).equals(file('oca.cert'))).toBe(true);
    expect(isSame(OCA, 'owned.bin', 'chain.bin')).toBe(false);
    expect([PDH, PEK, OCA].map((at) => isSame(at, 'owned.bin', 'rotated.bin'))).toEqual([false, true, true]);
    expect([PDH, PEK, OCA].map((at) => isSame(at, 'chain.bin', 'reset.bin'))).toEqual([false, false, false]);
    // The key service signs it anew each time; what it signs stays.
    const signed = (chain: string) => certificate(chain, CEK).subarray(0, 0x414);
    expect(signed('reset.bin').equals(signed('chain.bin'))).toBe(true);
  });

  it.skipIf(skip)('got reports with the data they asked for, which softsnp verify accepts', async () => {
    const nonce = Buffer.from(file('nonce.hex').toString().trim(), 'hex');
    const asked = {
      ...{ 'report.bin': file('request.bin'), 'go-plain.bin': nonce },
      ...{ 'tsm.bin': nonce, 'tsm-go.bin': nonce },
    };
    for (const [name, data] of Object.entries(asked)) {
      const report = Uint8Array.from(file(name));
      expect(Buffer.from(AttestationReportV3.get(report, 'report_data')).equals(data)).toBe(true);
      const trust = `softsnp:${join(folder, 'state')}`;
      const args = ['verify', 'report', name, '--certs', 'blob', '--trust', trust, '--no-crl'];
      expect(await softsnp(args, folder)).toMatchObject({ code: 0 });
    }
  });
});

describe.skipIf(missing.length > 0 || identities[0]!.obstacle !== null)(
  'a host commanded by its tools',
  () => {
    let folder: string;
    let state: string;
    let running: Process;
    beforeEach(async () => {
      folder = folderOf(identities[0]!);
      state = join(folder, 'state');
      running = new Process(['up', '--state', state, '--devices', join(folder, 'devices')], folder);
      await running.says('softsnp ready');
    });
    afterEach(async () => {
      running.child.kill('SIGTERM');
      await running.ended;
      removeFolder(folder);
    });
    const ask = (method: string, path: string, body?: unknown) =>
      controlRequest(join(state, 'control.sock'), method, path, body);
    const status = async () => (await ask('GET', '/v1/status')) as HostStatus;
    const exec = async (script: string): Promise<string> => {
      const env = {
        ...{ PATH: process.env['PATH'], HOME: folder, BIN: bins },
        SOFTSNP: `${process.execPath} ${bin}`,
      };
      const args = ['exec', '--state', state, '--guest', 'guest', '--cpuid', '--', 'sh', '-ec', script];
      const ended = await softsnp(args, folder, { env });
      expect(ended.code, ended.stderr).toBe(0);
      return ended.stdout;
    };
    const reported = (name: string): string => {
      const report = Uint8Array.from(readFileSync(join(folder, name)));
      return formatTcb(decodeTcb(AttestationReportV3.get(report, 'reported_tcb'), 'Milan'), 'Milan');
    };
    /** A report and certificates before and after a command; those before do not verify the report after it. */
    const around = (command: string): string => `
    $BIN/snpguest report before.bin request.bin --random && $BIN/snpguest certificates pem before
    ${command}
    $BIN/snpguest report after.bin request.bin --random && $BIN/snpguest certificates pem after
    $BIN/snpguest verify attestation before before.bin && $BIN/snpguest verify attestation after after.bin
    ! $BIN/snpguest verify attestation before after.bin`;

    it.each([
      ['$BIN/snphost commit', '5,0,25,221', { reported: '5,0,25,221', committed: '5,0,25,221' }],
      ['$SOFTSNP host commit', '5,0,25,221', { reported: '5,0,25,221', committed: '5,0,25,221' }],
      [
        '$BIN/snphost config set 3 0 23 200 0',
        '3,0,23,200',
        { reported: '3,0,23,200', committed: '4,0,24,219' },
      ],
      [
        '$SOFTSNP host config set --reported-tcb 3,0,23,200',
        '3,0,23,200',
        { reported: '3,0,23,200', committed: '4,0,24,219' },
      ],
    ])(
      'changes with %s what the next report says, which VCEK signs it, and the certificates with it',
      async (command, tcb, told) => {
        await ask('PUT', '/v1/tcb', { tcb: '5,0,25,221' });
        await exec(around(command));
        expect([reported('before.bin'), reported('after.bin')]).toEqual(['4,0,24,219', tcb]);
        expect((await status()).tcb).toEqual({ current: '5,0,25,221', ...told });
      },
    );

    it('says of its TCBs and its chip what softsnp ctl says', async () => {
      const shown = async () => {
        const { current, reported } = (await status()).tcb;
        expect(tcbsOf(await exec('$BIN/snphost show tcb'))).toEqual({ current, reported });
        return reported;
      };
      expect(await shown()).toBe('4,0,24,219');
      await ask('PUT', '/v1/tcb', { tcb: '5,0,25,221' });
      await ask('PATCH', '/v1/config', { reported_tcb: '2,0,22,190' });
      expect(await shown()).toBe('2,0,22,190');
      const identifier = (await exec('$BIN/snphost show identifier')).trim().toLowerCase();
      expect(identifier).toBe((await status()).chip_id);
    });

    it('signs with the VLEK that snphost loads', async () => {
      const crypto = nodeCrypto({ deterministic: false });
      const keys = new KeyService({
        ...{ crypto, random: systemRandom, clock: systemClock },
        state: decodeHostState(crypto, readFileSync(join(state, 'state.json')), 'state.json'),
      });
      const { tcb } = await status();
      writeFileSync(join(folder, 'stick.bin'), keys.wrappedHashstick(parseTcbText(tcb.reported, 'Milan')));
      await exec(around('$BIN/snphost verify vlek-hashstick stick.bin && $BIN/snphost vlek-load stick.bin'));
      expect(await status()).toMatchObject({ signing_key: 'VLEK', vlek_loaded: true });
    });
  },
);

/** What snphost show tcb prints, as softsnp writes TCBs. */
function tcbsOf(text: string): { reported: string; current: string } {
  const [, reported = '', current = ''] = text.split(/Reported TCB:|Platform TCB:/);
  const tcb = (part: string): string =>
    ['Boot Loader', 'TEE', 'SNP', 'Microcode']
      .map((name) => new RegExp(`${name}: +(\\d+)`).exec(part)?.[1])
      .join(',');
  return { reported: tcb(reported), current: tcb(current) };
}

const firstLine = (text: string): string => text.split('\n')[0]!.trim();

const INTEROP = join(root, 'docs', 'interop.md');
const [BEGIN, END] = ['<!-- clients: written by test/oracle/clients.test.ts -->', '<!-- clients: end -->'];

const VERSIONS = ['snpguest', 'snphost', 'sevctl'] as const;

function version(name: (typeof VERSIONS)[number]): string {
  return execFileSync(join(bins, name), ['--version'], { encoding: 'utf8' }).trim();
}

function matrix(): string {
  const columns = identities.map(({ who }) => who);
  const cell = (step: Step, who: string): string => step.refused ?? results.get(who)!.get(step)!;
  const rows = ALL_STEPS.map((step) => {
    const cells = columns.map((who) => cell(step, who));
    return `| ${step.client} | ${step.subcommand} | ${cells.join(' | ')} |`;
  });
  return [
    BEGIN,
    '',
    `${VERSIONS.map(version).join(', ')}, go-sev-guest tools v0.15.0, go-configfs-tsm v0.3.3; one guest, key service intercepted.`,
    '',
    `| client | subcommand | ${columns.join(' | ')} |`,
    `|---|---|${columns.map(() => '---|').join('')}`,
    ...rows,
    '',
    END,
  ].join('\n');
}

describe.skipIf(
  missing.length > 0 || identities.length < 2 || identities.some(({ obstacle }) => obstacle !== null),
)('docs/interop.md', () => {
  it('has the table of this run', () => {
    const text = readFileSync(INTEROP, 'utf8');
    const [before, after] = [text.indexOf(BEGIN), text.indexOf(END) + END.length];
    expect(before).toBeGreaterThan(0);
    const fresh = text.slice(0, before) + matrix() + text.slice(after);
    if (process.env['UPDATE_DOCS'] === '1') {
      writeFileSync(INTEROP, fresh);
    }
    expect(readFileSync(INTEROP, 'utf8')).toBe(fresh);
  });
});
