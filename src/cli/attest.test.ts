// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineCommand } from 'citty';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  createIdBlock,
  defaultImage,
  launchDigest,
  parseOvmf,
  planLaunch,
  VCPU_TYPES,
} from '../launch/index.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { systemClock } from '../os/system-clock.ts';
import { attestVerb } from './attest.ts';
import { runCli, type Verb } from './run.ts';
import { verifyVerb } from './verify.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-attest-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const at = (...names: string[]): string => join(folder, ...names);

async function softsnp(...argv: string[]) {
  const printed = { stdout: '', stderr: '' };
  const output = {
    stdout: (text: string) => {
      printed.stdout += text;
    },
    stderr: (text: string) => {
      printed.stderr += text;
    },
  };
  const root: Verb = defineCommand({
    subCommands: {
      attest: attestVerb(output),
      verify: verifyVerb(output, { clock: systemClock, kdsTiming: {} }),
    },
  });
  const status = await runCli(root, argv, '0', output);
  return { status, ...printed };
}

const attest = (...argv: string[]) => softsnp('attest', '--mem', '64M', '--state', at('state'), ...argv);

/** SHA-256 of every file of a folder by name. */
const contents = (path: string) =>
  Object.fromEntries(
    readdirSync(path).map((name) => {
      return [
        name,
        createHash('sha256')
          .update(readFileSync(join(path, name)))
          .digest('hex'),
      ];
    }),
  );

describe('attest', () => {
  it('prints the eight steps in order and ends with a verified report', async () => {
    const { status, stdout, stderr } = await attest('--smp', '3');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(stdout.match(/^ {2}\d \S+/gm)).toEqual([
      '  1 extended-report',
      '  2 ext-guest-request',
      '  3 req-certs',
      '  4 complete-req-certs',
      '  5 guest-request',
      '  6 lock-scope',
      '  7 open-response',
      '  8 verify',
    ]);
    expect(stdout).toContain('VERIFIED under a softsnp test root');
  });

  it('writes the same bytes for the same seed and others for another', async () => {
    const run = async (seed: string, out: string) => {
      const { status } = await softsnp('attest', '--mem', '64M', '--seed', seed, '--out', at(out));
      expect(status).toBe(0);
      return contents(at(out));
    };
    const first = await run('7', 'a');
    expect(Object.keys(first).sort()).toEqual([
      'ark.pem',
      'ask.pem',
      'certs.bin',
      'crl.pem',
      'report.bin',
      'trace.jsonl',
      'vcek.pem',
    ]);
    expect(await run('7', 'b')).toEqual(first);
    const other = await run('8', 'c');
    expect(other['report.bin']).not.toBe(first['report.bin']);
    expect(other['vcek.pem']).not.toBe(first['vcek.pem']);
  });

  it.each([
    ['vcek', ['vcek.pem', 'ask.pem', 'ark.pem']],
    ['vlek', ['vlek.pem', 'asvk.pem', 'ark.pem']],
  ])('writes evidence of the %s that verify report accepts as it lies there', async (key, certificates) => {
    const { stdout } = await attest('--seed', '7', '--key', key, '--out', at('out'));
    const files = ['report.bin', 'certs.bin', 'trace.jsonl', ...certificates, 'crl.pem'];
    const [, written, command] = /written to (.*)\n {2}softsnp (.*)\n$/.exec(stdout)!;
    expect(written).toBe(`${at('out')}: ${files.join(', ')}`);
    expect(readdirSync(at('out')).sort()).toEqual([...files].sort());
    // Seeded runs begin with 2026: whoever looks later in the year finds the list current still.
    const verdict = await softsnp(...command!.split(' '), '--at', '2026-11-30');
    expect([verdict.status, verdict.stderr]).toEqual([0, '']);
    expect(verdict.stdout).toMatch(/^ACCEPTED/);
  });

  it('names the files it wrote in the JSON object, and none where it wrote none', async () => {
    const { files, crl } = JSON.parse((await attest('--json', '--out', at('out'))).stdout);
    expect(files).toEqual(expect.arrayContaining([at('out', 'report.bin'), at('out', 'crl.pem')]));
    expect([...files].sort()).toEqual(
      readdirSync(at('out'))
        .map((name) => at('out', name))
        .sort(),
    );
    expect(readFileSync(at('out', 'crl.pem'), 'utf8')).toBe(crl);
    expect(JSON.parse((await attest('--json')).stdout).files).toBe(null);
  });

  it.each(['milan', 'genoa', 'turin'])(
    'signs with the VLEK of %s and writes asvk.pem and vlek.pem',
    async (chip) => {
      const { status, stdout } = await attest('--chip', chip, '--key', 'vlek', '--out', at('out'), '--json');
      expect(status).toBe(0);
      const document = JSON.parse(stdout);
      expect(document.report.key_info.signing_key).toBe(1);
      expect(document.certificates.map(({ name }: { name: string }) => name)).toEqual([
        'VLEK',
        'ASK or ASVK',
        'ARK',
      ]);
      expect(readdirSync(at('out'))).toEqual(expect.arrayContaining(['asvk.pem', 'vlek.pem']));
    },
  );

  it('gives one JSON object with what the issue of evidence needs', async () => {
    const { stdout } = await attest(
      '--json',
      '--report-version',
      '5',
      '--tcb',
      '3,0,23,213',
      '--report-data',
      'c0ffee',
    );
    const document = JSON.parse(stdout);
    expect(Object.keys(document)).toEqual([
      'chip',
      'tcb',
      'launch',
      'steps',
      'request',
      'report',
      'certificates',
      'crl',
      'verdict',
      'files',
    ]);
    expect(document.chip.product).toBe('Milan');
    expect(document.tcb.reported).toBe('3,0,23,213');
    expect(document.launch.measurement).toBe(document.report.measurement);
    expect(document.request.sw_exit_info_2).toBe('0x0');
    expect(document.report.version).toBe(5);
    expect(document.report.report_data).toMatch(/^c0ffee0+$/);
    expect(document.steps).toHaveLength(8);
    expect(document.verdict.ok).toBe(true);
  });

  it('keeps the chip in its state folder and refuses to pass for another', async () => {
    const id = async (...argv: string[]) => JSON.parse((await attest('--json', ...argv)).stdout).chip.chip_id;
    const first = await id();
    expect(await id('--chip', 'milan')).toBe(first);
    const other = await attest('--chip', 'genoa');
    expect(other.status).toBe(1);
    expect(other.stderr).toContain('holds a host with a Milan chip');
  });

  it('keeps the TCB in its state folder until another is asked for', async () => {
    const reported = async (...argv: string[]) =>
      JSON.parse((await attest('--json', ...argv)).stdout).tcb.reported;
    expect(await reported('--tcb', '3,0,23,213')).toBe('3,0,23,213');
    expect(await reported()).toBe('3,0,23,213');
    expect(await reported('--tcb', '4,0,24,219')).toBe('4,0,24,219');
    expect(await reported()).toBe('4,0,24,219');
  });

  it('takes --report-version on a host that has run with another', async () => {
    const version = async (n: string) =>
      JSON.parse((await attest('--json', '--report-version', n)).stdout).report.version;
    expect([await version('3'), await version('5'), await version('2')]).toEqual([3, 5, 2]);
  });

  it('exits 2 when the certificates are of another chip, naming why', async () => {
    await softsnp('attest', '--mem', '64M', '--state', at('other'));
    const { status, stdout } = await attest('--certs', at('other', 'certs.blob'));
    expect(status).toBe(2);
    expect(stdout).toContain('NOT VERIFIED');
    expect(stdout).toMatch(/error +\S*(CHIP_ID|HWID)\S*/);
  });

  it.each([
    ['a policy without bit 17', ['--policy', '0x10000'], /KVM_SEV_SNP_LAUNCH_START: EINVAL/],
    [
      'a policy that wants newer firmware',
      ['--policy', '0x3ffff'],
      /LAUNCH_START: EIO, firmware status SEV_RET_POLICY_FAILURE/,
    ],
    [
      'a certificate blob that is missing',
      ['--certs', '/nonexistent/blob'],
      /ENOENT[\s\S]*SNP_GET_EXT_REPORT: EIO/,
    ],
    ['a certificate blob that is no table', ['--certs', process.execPath], /SNP_GET_EXT_REPORT: EIO/],
  ])('exits 3 for %s, naming errno and firmware status', async (_what, argv, said) => {
    const { status, stderr } = await attest(...argv);
    expect(stderr).toMatch(said);
    expect(status).toBe(3);
  });

  it('launches with the ID block that fits and exits 3 with BAD_MEASUREMENT for another', async () => {
    const crypto = nodeCrypto({ deterministic: false });
    const plan = planLaunch({
      ovmf: parseOvmf(defaultImage()),
      vcpus: 1,
      cpuSig: VCPU_TYPES['EPYC-Milan-v2'],
    });
    const key = (last: number) =>
      crypto.p384Key(Uint8Array.from({ length: 48 }, (_, i) => (i === 47 ? last : 1)));
    const write = (digest: Uint8Array) => {
      const files = createIdBlock(crypto.sha384, {
        launchDigest: digest,
        idKey: key(5),
        authorKey: key(6),
        guestSvn: 9,
        policy: 0x30000n,
      });
      writeFileSync(at('id-block'), `${Buffer.from(files.idBlock).toString('hex')}\n`);
      writeFileSync(at('id-auth'), Buffer.from(files.idAuth).toString('base64'));
    };
    const idBlock = ['--id-block', at('id-block'), '--id-auth', at('id-auth')];
    write(launchDigest(crypto.sha384, plan));
    const fits = await attest('--json', ...idBlock);
    expect(fits.status).toBe(0);
    const { report } = JSON.parse(fits.stdout);
    expect(report.guest_svn).toBe(9);
    expect(report.key_info.author_key_en).toBe(1);
    expect(report.author_key_digest).not.toMatch(/^0+$/);

    write(new Uint8Array(48).fill(1));
    const wrong = await attest(...idBlock);
    expect(wrong.stderr).toContain('KVM_SEV_SNP_LAUNCH_FINISH: EIO, firmware status SEV_RET_BAD_MEASUREMENT');
    expect(wrong.status).toBe(3);
  });

  it.each([
    [['--smp', '0'], '--smp: "0" is not a whole number from 1 to 4096'],
    [['--smp'], 'option --smp needs a value'],
    [['--nonsense'], 'unknown option --nonsense'],
    [['extra'], 'unexpected argument "extra"'],
    [['--chip', 'rome'], '--chip: "rome" is not milan, genoa or turin'],
    [['--cpu', 'Pentium'], '"Pentium" is none of'],
    [['--tcb', '1,2'], 'tcb: "1,2" is not 4 numbers'],
    [['--initrd', '/dev/null'], '--initrd: needs --kernel'],
    [['--bios', '/nonexistent'], 'ENOENT'],
    [['--bios', process.execPath], '--bios'],
    [['--id-block', '/dev/null'], 'go together'],
    [['--report-data', 'abc'], '--report-data'],
    [['--mem', '3'], '--mem'],
    [['--report-version', '6'], '--report-version'],
  ])('exits 1 for %j, saying what is wrong', async (argv, said) => {
    const { status, stderr } = await attest(...argv);
    expect(stderr).toContain(said);
    expect(status).toBe(1);
  });
});
