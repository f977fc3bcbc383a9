// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AttestationReportV2, AttestationReportV3 } from '../abi/attestation-report.ts';
import { defaultImage } from '../launch/default-image.ts';
import { fromHex } from '../lib/bytes.ts';
import { measureVerb } from './measure.ts';
import { runCli, type Verb } from './run.ts';

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `softsnp measure` with the arguments, in this process. */
async function measure(...argv: readonly string[]): Promise<Ran> {
  let stdout = '';
  let stderr = '';
  const output = {
    stdout: (text: string) => {
      stdout += text;
    },
    stderr: (text: string) => {
      stderr += text;
    },
  };
  const root: Verb = { subCommands: { measure: measureVerb(output) } };
  const code = await runCli(root, ['measure', ...argv], '0.0.0', output);
  return { code, stdout, stderr };
}

const QEMU = 'qemu -M q35,confidential-guest-support=a';
const GIVEN = ['--vcpus', '2', '--vcpu-type', 'EPYC-Milan', '--ovmf', 'default'] as const;
const digestOf = async (...argv: readonly string[]): Promise<string> => {
  const { code, stdout, stderr } = await measure(...argv);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return stdout.trimEnd();
};

let folder: string;
const inFolder = (name: string): string => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-measure-'));
  writeFileSync(inFolder('kernel'), 'kernel');
  writeFileSync(inFolder('initrd'), 'initrd');
  writeFileSync(inFolder('default.fd'), defaultImage());
  const other = defaultImage();
  other[0] = 0;
  mkdirSync(inFolder('builds'));
  writeFileSync(inFolder('builds/old.fd'), defaultImage());
  writeFileSync(inFolder('builds/new.fd'), other);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('softsnp measure', () => {
  it('prints the launch digest and nothing else', async () => {
    expect(await digestOf('snp', ...GIVEN)).toMatch(/^[0-9a-f]{96}$/);
    expect(await digestOf('seves', ...GIVEN)).toMatch(/^[0-9a-f]{64}$/);
    expect(await digestOf('sev', '--ovmf', 'default')).toMatch(/^[0-9a-f]{64}$/);
    expect(await digestOf('snp:ovmf-hash', '--ovmf', 'default')).toMatch(/^[0-9a-f]{96}$/);
  });

  it('takes the mode as sev-snp-measure does', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    for (const mode of ['snp', 'SNP', 'sev-snp', 'SEV-SNP']) {
      expect(await digestOf('--mode', mode, ...GIVEN)).toBe(digest);
    }
    expect(await digestOf('--mode=sev-es', ...GIVEN)).toBe(await digestOf('seves', ...GIVEN));
  });

  it('takes the CPU by type, signature, or family, model and stepping', async () => {
    const rest = ['--vcpus', '1', '--ovmf', 'default'];
    const digest = await digestOf('snp', '--vcpu-type', 'EPYC-Milan', ...rest);
    expect(await digestOf('snp', '--vcpu-sig', '0xa00f11', ...rest)).toBe(digest);
    expect(await digestOf('snp', '--vcpu-sig', '10489617', ...rest)).toBe(digest);
    const fms = ['--vcpu-family', '25', '--vcpu-model', '1', '--vcpu-stepping', '1'];
    expect(await digestOf('snp', ...fms, ...rest)).toBe(digest);
    expect(await digestOf('snp', ...fms, '--vcpu-type', 'EPYC', ...rest)).toBe(digest);
  });

  it('needs no CPU for VMMs that do not show it in RDX', async () => {
    for (const vmm of ['ec2', 'gce', 'krun', 'ec2-virtee']) {
      await digestOf('snp', '--vmm-type', vmm, '--vcpus', '1', '--ovmf', 'default');
    }
  });

  it('prints base64 of the digest where asked, but never of an OVMF hash', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    expect(await digestOf('snp', ...GIVEN, '--output-format', 'base64')).toBe(
      Buffer.from(digest, 'hex').toString('base64'),
    );
    expect(await digestOf('snp:ovmf-hash', '--ovmf', 'default', '--output-format', 'base64')).toMatch(
      /^[0-9a-f]{96}$/,
    );
  });

  it('says what it measured with -v', async () => {
    expect(await digestOf('snp', ...GIVEN, '-v')).toMatch(
      /^Calculated SEV_SNP guest measurement: [0-9a-f]{96}$/,
    );
    expect(await digestOf('seves', ...GIVEN, '--verbose')).toMatch(/^Calculated SEV_ES guest measurement: /);
  });

  it('continues from an OVMF hash', async () => {
    const hash = await digestOf('snp:ovmf-hash', '--ovmf', 'default');
    expect(await digestOf('snp', ...GIVEN, '--snp-ovmf-hash', hash)).toBe(await digestOf('snp', ...GIVEN));
    expect(await digestOf('snp', ...GIVEN, '--snp-ovmf-hash', '00'.repeat(48))).not.toBe(
      await digestOf('snp', ...GIVEN),
    );
  });

  it('explains the digest page by page', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    const lines = (await digestOf('snp', ...GIVEN, '--explain')).split('\n');
    expect(lines[0]).toMatch(/^gpa +type +what +digest after$/);
    expect(lines[1]).toMatch(/^0x0000ffff0000 {2}NORMAL {6}OVMF +[0-9a-f]{96}$/);
    expect(lines.at(-2)).toMatch(new RegExp(`^0xfffffffff000 {2}VMSA {8}VMSA of vCPU 1 +${digest}$`));
    expect(lines.at(-1)).toBe(digest);
    expect(lines).toHaveLength(1 + 16 + 31 + 2 + 1);
  });

  it('prints one JSON object, with the ledger where asked', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    const plain = JSON.parse(await digestOf('snp', ...GIVEN, '--json')) as Record<string, unknown>;
    expect(plain).toEqual({
      mode: 'snp',
      ovmf: 'default',
      vcpus: 2,
      vmm_type: 'QEMU',
      vcpu_sig: '0xa00f11',
      guest_features: '0x1',
      measurement: digest,
      measurement_base64: Buffer.from(digest, 'hex').toString('base64'),
    });
    const explained = JSON.parse(await digestOf('snp', ...GIVEN, '--json', '--explain')) as {
      ledger: { digest: string }[];
    };
    expect(explained.ledger.at(-1)!.digest).toBe(digest);
    expect(JSON.parse(await digestOf('sev', '--ovmf', 'default', '--json', '--explain'))).toMatchObject({
      mode: 'sev',
      ledger: [{ gpa: null, type: 'DATA', what: 'OVMF' }],
    });
    const hash = await digestOf('snp:ovmf-hash', '--ovmf', 'default', '--json', '--explain');
    expect((JSON.parse(hash) as { ledger: unknown[] }).ledger).toHaveLength(16);
  });

  it('writes the measured VMSAs', async () => {
    const before = process.cwd();
    const into = mkdtempSync(join(folder, 'vmsa-'));
    process.chdir(into);
    try {
      await digestOf('snp', ...GIVEN, '--dump-vmsa');
      await measure('sev', '--ovmf', 'default', '--dump-vmsa');
    } finally {
      process.chdir(before);
    }
    expect(readdirSync(into).sort()).toEqual(['vmsa0.bin', 'vmsa1.bin']);
    expect(readFileSync(join(into, 'vmsa1.bin'))).toHaveLength(4096);
  });

  it('measures what a QEMU command line starts, options beside it winning', async () => {
    const line = `qemu-system-x86_64 -M q35,confidential-guest-support=a -cpu EPYC-Milan -smp 2 -bios ${inFolder('default.fd')} -object sev-snp-guest,id=a`;
    expect(await digestOf('--qemu', line)).toBe(await digestOf('snp', ...GIVEN));
    expect(await digestOf('--qemu', line, '--vcpus', '5')).toBe(
      await digestOf('snp', '--vcpus', '5', ...GIVEN.slice(2)),
    );
    const boot = `-kernel ${inFolder('kernel')} -initrd ${inFolder('initrd')} -append 'quiet  splash'`;
    expect(await digestOf('--qemu', `${line},kernel-hashes=on ${boot}`)).toBe(
      await digestOf(
        'snp',
        ...GIVEN,
        '--kernel',
        inFolder('kernel'),
        '--initrd',
        inFolder('initrd'),
        '--append',
        'quiet  splash',
      ),
    );
    const unmeasured = await measure('--qemu', `${line} ${boot}`);
    expect(unmeasured.stdout.trimEnd()).toBe(await digestOf('snp', ...GIVEN));
    expect(unmeasured.stderr).toMatch(/kernel-hashes=on is not set/);
    const host = line.replace('EPYC-Milan', 'host');
    expect((await measure('--qemu', host)).stderr).toMatch(/-cpu host: has no signature known here/);
    expect(await digestOf('--qemu', host, '--vcpu-type', 'EPYC-Milan')).toBe(await digestOf('snp', ...GIVEN));
  });

  it.each<[readonly string[], RegExp]>([
    [['snp'], /--ovmf: is missing/],
    [['--json'], /give a mode: snp, snp:ovmf-hash/],
    [['--mode', 'tdx', ...GIVEN], /--mode: "tdx" is none of/],
    [['snp', '--vcpu-type', 'EPYC', '--ovmf', 'default'], /--vcpus: is missing/],
    [['snp', '--vcpus', '1', '--ovmf', 'default'], /--vcpu-type: is missing/],
    [['seves', '--vcpus', '1', '--ovmf', 'default'], /--vcpu-type: is missing/],
    [['snp', ...GIVEN.slice(2), '--vcpus', '0'], /--vcpus: "0" is not a whole number from 1 to 4096/],
    [['snp', '--vcpus', '1', '--vcpu-type', 'Xeon', '--ovmf', 'default'], /VCPU_TYPE_UNKNOWN/],
    [['snp', '--vcpus', '1', '--vcpu-family', '25', '--ovmf', 'default'], /needs --vcpu-model and/],
    [['snp', ...GIVEN, '--vmm-type', 'vmware'], /--vmm-type: "vmware" is none of/],
    [['snp', ...GIVEN, '--guest-features', 'all'], /--guest-features: "all" is not a 64-bit number/],
    [['snp', ...GIVEN, '--initrd', 'x'], /--initrd: needs --kernel/],
    [['snp', ...GIVEN, '--append', 'x'], /--append: needs --kernel/],
    [['snp', ...GIVEN, '--kernel', '/nowhere'], /--kernel: cannot read \/nowhere: ENOENT/],
    [['snp', ...GIVEN.slice(0, 4), '--ovmf', '/nowhere'], /--ovmf: cannot read \/nowhere: ENOENT/],
    [['snp', ...GIVEN.slice(0, 4), '--ovmf', '/dev/null'], /OVMF_SIZE_UNALIGNED/],
    [['snp', ...GIVEN, '--snp-ovmf-hash', '00'], /1 bytes given, it has 48/],
    [['seves', ...GIVEN, '--snp-ovmf-hash', '00'.repeat(48)], /only stands for the image of an snp launch/],
    [['snp', ...GIVEN, '--output-format', 'octal'], /--output-format: "octal" is not one of hex, base64/],
    [['sev', '--ovmf', 'default', '--dump-vmsa'], /a sev measurement has no VMSAs/],
    [['snp:svsm', ...GIVEN], /--svsm: is missing/],
    [['snp:svsm', ...GIVEN, '--svsm', 'x'], /either --vars-size or --vars-file/],
    [['snp:svsm', ...GIVEN, '--svsm', 'x', '--vars-file', '/nowhere'], /cannot read x: ENOENT/],
    [['snp', ...GIVEN, '--kernel', 'k', '--append', 'a\ufffd'], /--append: holds bytes that are no UTF-8/],
    [['sev', '--ovmf', '/dev/null'], /\/dev\/null: the file is empty/],
    [['--qemu', './launch.sh'], /is one word, no command line/],
    [['snp', ...GIVEN, 'stray'], /unexpected argument "stray"/],
    [['snp', ...GIVEN, '--frobnicate'], /unknown option --frobnicate/],
    [['snp', ...GIVEN, '--vcpus', '3'], /--vcpus given twice/],
    [['tdx'], /unknown command "tdx"/],
    [['--qemu', "qemu 'x"], /not closed/],
    [['seves', ...GIVEN, '--against', '00'.repeat(48)], /searches snp launches/],
    [['snp', ...GIVEN, '--against', '/dev/null'], /neither a report of 1184 bytes/],
    [['snp', ...GIVEN, '--against', '/nowhere'], /--against: cannot read \/nowhere: ENOENT/],
    [['snp', ...GIVEN, '--append', '--foo'], /one that begins with a dash is given as --append=--foo/],
    [
      ['snp', '--vcpus', '1', '--vcpu-type', 'Xeon', '--ovmf', 'default'],
      /--vcpu-type: "Xeon" is none of EPYC/,
    ],
  ])('measure %j is wrong usage', async (argv, message) => {
    const { code, stdout, stderr } = await measure(...argv);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(1);
  });

  it.each([
    ['snp:ovmf-hash', ['--ovmf', 'default'], ['--kernel', 'kernel'], ['kernel']],
    ['snp:ovmf-hash', ['--ovmf', 'default'], ['--vcpus', '2', '--vmm-type', 'gce'], ['vcpus', 'vmm-type']],
    ['sev', ['--ovmf', 'default'], ['--guest-features', '0x21'], ['guest-features']],
    ['seves', GIVEN, ['--guest-features', '0x21'], ['guest-features']],
    ['snp', GIVEN, ['--vars-size', '1'], ['vars-size']],
  ])('%s says that it does not measure what %j %j is about', async (mode, argv, more, ignored) => {
    const files = more.map((word) => (word === 'kernel' ? inFolder(word) : word));
    const [plain, other] = [await measure(mode, ...argv), await measure(mode, ...argv, ...files)];
    expect(plain.stderr).toBe('');
    expect(other).toEqual({
      code: 0,
      stdout: plain.stdout,
      stderr: `softsnp: ${mode} measures nothing of ${ignored.map((name) => `--${name}`).join(', ')}\n`,
    });
  });

  it('names the options of QEMU that it passed over', async () => {
    const line = `${QEMU} -cpu EPYC -bios default -object sev-snp-guest,id=a -frob -smp 2`;
    const { code, stdout, stderr } = await measure('--qemu', line);
    expect(stderr).toBe('softsnp: --qemu: -frob is no option of QEMU known here; it was passed over\n');
    const [cpu, vcpus] = [
      ['--vcpu-type', 'EPYC'],
      ['--vcpus', '2'],
    ];
    expect([code, stdout.trimEnd()]).toEqual([
      0,
      await digestOf('snp', '--ovmf', 'default', ...cpu, ...vcpus),
    ]);
  });

  it('measures SEV-ES guests of QEMU with the vCPUs that the interface of KVM leaves', async () => {
    const line = `${QEMU} -bios default -smp 2 -cpu EPYC-Milan -object sev-guest,id=a,policy=5`;
    const old = await digestOf('seves', ...GIVEN, '--vmm-type', 'QEMU-before-6.10');
    expect(await measure('--qemu', line)).toEqual({
      code: 0,
      stdout: `${old}\n`,
      stderr: expect.stringMatching(/legacy-vm-type is not set: taken as auto/),
    });
    expect(await digestOf('--qemu', `${line},legacy-vm-type=on`)).toBe(old);
    expect(await digestOf('--qemu', `${line},legacy-vm-type=off`)).toBe(await digestOf('seves', ...GIVEN));
    expect(await digestOf('--qemu', line, '--vmm-type', 'QEMU')).toBe(await digestOf('seves', ...GIVEN));
    const swap = JSON.parse(await digestOf('--qemu', `${line},debug-swap=on`, '--json'));
    expect(swap).toMatchObject({ mode: 'seves', vmm_type: 'QEMU', guest_features: '0x20' });
    expect(swap.measurement).not.toBe(await digestOf('seves', ...GIVEN));
  });

  it('refuses a mode that the QEMU command line does not start', async () => {
    const line = `${QEMU} -bios default -cpu EPYC -object sev-guest,id=a,policy=5`;
    const { code, stderr } = await measure('snp', '--qemu', line);
    expect([code, stderr]).toEqual([1, expect.stringContaining('to be measured as seves, not as snp')]);
  });

  it('tells in JSON what was measured, not what was given', async () => {
    const json = async (...argv: readonly string[]): Promise<unknown> =>
      JSON.parse((await measure(...argv, '--json')).stdout);
    const given = [...GIVEN, '--guest-features', '0x21'];
    expect(await json('snp', ...given)).toMatchObject({ guest_features: '0x21', vcpu_sig: '0xa00f11' });
    expect(await json('seves', ...given)).toMatchObject({ guest_features: '0x0', vcpu_sig: '0xa00f11' });
    expect(await json('snp', ...given, '--vmm-type', 'ec2')).toMatchObject({
      guest_features: '0x21',
      vcpu_sig: null,
    });
  });

  it('hashes a kernel in pieces', async () => {
    const kernel = new Uint8Array(2 ** 22 + 5).fill(7);
    writeFileSync(inFolder('pieces'), kernel);
    const hash = createHash('sha256').update(kernel).digest('hex');
    const json = await digestOf('snp', ...GIVEN, '--kernel', inFolder('pieces'), '--json', '--explain');
    expect(JSON.parse(json).ledger).toContainEqual(
      expect.objectContaining({ what: 'kernel hashes', fields: expect.objectContaining({ kernel: hash }) }),
    );
  });

  it('takes an initrd without a name for none', async () => {
    const boot = ['--kernel', inFolder('kernel')];
    expect(await digestOf('snp', ...GIVEN, ...boot, '--initrd', '')).toBe(
      await digestOf('snp', ...GIVEN, ...boot),
    );
  });

  it('refuses a disk image as firmware, and names the file an error is about', async () => {
    writeFileSync(inFolder('code.qcow2'), Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'));
    writeFileSync(inFolder('page.fd'), new Uint8Array(4096));
    const of = async (name: string): Promise<string> =>
      (await measure('snp', ...GIVEN.slice(0, 4), '--ovmf', inFolder(name))).stderr;
    expect(await of('code.qcow2')).toMatch(/code\.qcow2: is a disk image in qcow2/);
    expect(await of('page.fd')).toMatch(/page\.fd: the file has no GUIDed table/);
  });

  it('tells its options', async () => {
    expect((await measure('--help')).stdout).toMatch(/snp\|snp:ovmf-hash\|snp:svsm\|seves\|sev\|diff/);
    expect((await measure('snp', '--help')).stdout).toMatch(/--guest-features/);
  });
});

describe('softsnp measure diff', () => {
  const A = `snp ${GIVEN.join(' ')}`;

  it('finds equal launches equal', async () => {
    expect(await measure('diff', A, A)).toEqual({ code: 0, stdout: 'the same launch\n', stderr: '' });
  });

  it('takes quoted options that begin with a dash', async () => {
    const line = `${QEMU} -cpu EPYC-Milan -smp 2 -bios default -object sev-snp-guest,id=a`;
    const same = { code: 0, stdout: 'the same launch\n', stderr: '' };
    expect(await measure('diff', `--mode snp ${GIVEN.join(' ')}`, `--qemu '${line}'`)).toEqual(same);
    expect(await measure('diff', `--ovmf=default --mode=snp ${GIVEN.slice(0, 4).join(' ')}`, A)).toEqual(
      same,
    );
    expect((await measure('diff', A, A, '--frob x')).stderr).toMatch(/unknown option --frob/);
  });

  it('names page and field, of files and of quoted options', async () => {
    const file = inFolder('b.json');
    writeFileSync(file, await digestOf('snp', ...GIVEN, '--guest-features', '0x21', '--json', '--explain'));
    const { code, stdout } = await measure('diff', A, file);
    expect(code).toBe(2);
    expect(stdout).toBe(
      [
        'the digests part at page 48 of 49: 0xfffffffff000 VMSA of vCPU 0',
        'contents            VMSAs of vCPUs 0 to 1',
        '                    sev_features: 0x1 in A, 0x21 in B',
        '',
      ].join('\n'),
    );
  });

  it('names the firmware pages that differ, and pages of one side', async () => {
    const B = `snp --vcpus 1 --vcpu-type EPYC-Milan --ovmf ${inFolder('builds/new.fd')}`;
    expect((await measure('diff', A, B)).stdout.split('\n')).toEqual([
      'the digests part at page 1 of 49: 0x0000ffff0000 OVMF',
      'contents            OVMF at 0x0000ffff0000',
      'only in A           VMSA of vCPU 1',
      '',
    ]);
  });

  it('sees that the firmware differs where it is given by its hash', async () => {
    const [hash, other] = [await digestOf('snp:ovmf-hash', '--ovmf', 'default'), '11'.repeat(48)];
    const { code, stdout } = await measure(
      'diff',
      `${A} --snp-ovmf-hash ${hash}`,
      `${A} --snp-ovmf-hash ${other}`,
    );
    expect(stdout.split('\n')).toEqual([
      'the digests part at row 1 of 34: OVMF, by its hash',
      'contents            OVMF, by its hash',
      '',
    ]);
    expect(code).toBe(2);
    expect((await measure('diff', A, `${A} --snp-ovmf-hash ${hash}`, '--json')).code).toBe(0);
    const json = await measure('diff', A, `${A} --snp-ovmf-hash ${other}`, '--json');
    const { same, measurements } = JSON.parse(json.stdout) as { same: boolean; measurements: string[] };
    expect([json.code, same]).toEqual([2, false]);
    expect(measurements[0]).not.toBe(measurements[1]);
  });

  it.each([
    ['sev', '', ''],
    ['seves', '--vcpus 2 --vcpu-type EPYC', '--vcpus 2 --vcpu-type EPYC'],
  ])('names the first part of a %s launch that differs', async (mode, vcpusA, vcpusB) => {
    const boot = `--ovmf default --kernel ${inFolder('kernel')} --append`;
    const { stdout } = await measure('diff', `${mode} ${boot}=a ${vcpusA}`, `${mode} ${boot}=b ${vcpusB}`);
    expect(stdout).toMatch(/^the digests part at row 2 of [24]: kernel hashes\ncontents {12}kernel hashes\n/);
  });

  it('does not believe a ledger that was changed by hand', async () => {
    const file = inFolder('hand.json');
    const { ledger } = JSON.parse((await measure('snp', ...GIVEN, '--json', '--explain')).stdout);
    ledger.at(-1).digest = '22'.repeat(48);
    writeFileSync(file, JSON.stringify({ ledger }));
    const { code, stdout } = await measure('diff', A, file);
    expect([code, stdout]).toEqual([2, expect.stringContaining('written by hand')]);
  });

  it('groups neighbouring pages', async () => {
    const { stdout } = await measure('diff', A, `${A} --vmm-type gce`);
    expect(stdout).toContain('page type           SNP_SEC_MEM at 0x000000800000, 9 pages\n');
  });

  it('prints one JSON object', async () => {
    const { code, stdout } = await measure('diff', A, 'sev --ovmf default', '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({
      same: false,
      measurements: [expect.any(String), expect.any(String)],
    });
  });

  it.each([
    ['snp --frob 1', /"snp --frob 1" is no file, and as measure options: unknown option --frob/],
    ['snp -guest-features 0x21', /unknown option -guest-features; did you mean --guest-features\?/],
    ['snp stray', /unexpected argument "stray"/],
    ["snp 'x", /measure options: a ' is not closed/],
    ['snp', /--ovmf: is missing/],
  ])('refuses %j', async (b, message) => {
    const { code, stderr } = await measure('diff', A, b);
    expect(stderr).toMatch(message);
    expect(code).toBe(1);
  });

  it('refuses a file that is no ledger', async () => {
    for (const text of ['{', '[]', '{"ledger":[]}', '{"ledger":[{"gpa":1}]}']) {
      const file = inFolder('bad.json');
      writeFileSync(file, text);
      expect((await measure('diff', A, file)).stderr).toMatch(
        /is no file that measure --explain --json wrote/,
      );
    }
  });
});

describe('softsnp measure --against', () => {
  it('recognises the launch as given', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    expect(await measure('snp', ...GIVEN, '--against', digest)).toEqual({
      code: 0,
      stdout: `measurement ${digest}\nis the launch as given\n`,
      stderr: '',
    });
    const open = await measure('snp', '--ovmf', 'default', '--vcpu-type', 'EPYC-Milan', '--against', digest);
    expect(open.stdout).toMatch(/as given, with 2 vCPUs/);
  });

  it.each<[string, readonly string[], readonly string[]]>([
    ['vCPU count', ['--vcpus', '7', ...GIVEN.slice(2)], ['vCPUs: 7']],
    ['CPU type', ['--vcpus', '2', '--vcpu-type', 'EPYC-Genoa', '--ovmf', 'default'], ['CPU: EPYC-Genoa']],
    ['feature word', [...GIVEN, '--guest-features', '0x21'], ['guest features: 0x21 (with DebugSwap']],
    ['VMM', [...GIVEN, '--vmm-type', 'gce'], ['VMM: gce']],
    ['old kernel', [...GIVEN, '--vmm-type', 'QEMU-before-6.10'], ['VMM: QEMU-before-6.10']],
  ])('names the %s that fits', async (_, argv, wanted) => {
    const digest = await digestOf('snp', ...argv);
    const { code, stdout } = await measure('snp', ...GIVEN, '--against', digest);
    expect(code).toBe(2);
    expect(stdout).toContain('is another launch than the one given:\n');
    for (const text of wanted) {
      expect(stdout).toContain(`  ${text}`);
    }
    expect(stdout.trimEnd().split('\n')).toHaveLength(2 + wanted.length);
  });

  it('names the slip of the command line that fits', async () => {
    const boot = ['--kernel', inFolder('kernel'), '--append'];
    const trimmed = await digestOf('snp', ...GIVEN, ...boot, 'quiet');
    expect((await measure('snp', ...GIVEN, ...boot, ' quiet ', '--against', trimmed)).stdout).toContain(
      'direct boot: command line without white space around it',
    );
    const none = await digestOf('snp', ...GIVEN);
    expect((await measure('snp', ...GIVEN, ...boot, 'quiet', '--against', none)).stdout).toContain(
      'direct boot: no kernel measured (kernel-hashes=off)',
    );
  });

  it('tries the CPU of the host for -cpu host', async () => {
    const digest = await digestOf('snp', '--vcpus', '2', '--vcpu-sig', '0xa20f12', '--ovmf', 'default');
    const cpuid = { cpuid_fam_id: 0x19, cpuid_mod_id: 0x21, cpuid_step: 2 };
    const line = `${QEMU} -cpu host -smp 2 -bios default -object sev-snp-guest,id=a`;
    writeFileSync(
      inFolder('report'),
      AttestationReportV3.encode({ version: 3, measurement: fromHex(digest), ...cpuid }),
    );
    expect(await measure('--qemu', line, '--against', inFolder('report'))).toEqual({
      code: 0,
      stdout: `measurement ${digest}\nis the launch as given, CPU host (signature 0xa20f12, from the report)\n`,
      stderr: '',
    });
    expect((await measure('--qemu', line, '--against', digest)).stderr).toMatch(
      /only reports from version 3/,
    );
    expect((await measure('--qemu', line)).stderr).toMatch(/has no signature known here/);
  });

  it('tries the hashes of a kernel that the command line does not measure', async () => {
    const boot = ['--kernel', inFolder('kernel'), '--append', 'quiet'];
    const digest = await digestOf('snp', ...GIVEN, ...boot);
    const line = `${QEMU} -cpu EPYC-Milan -smp 2 -bios default -object sev-snp-guest,id=a -append quiet -kernel`;
    const against = Buffer.from(digest, 'hex').toString('base64');
    const { code, stdout } = await measure('--qemu', `${line} ${inFolder('kernel')}`, '--against', against);
    expect([code, stdout]).toEqual([
      2,
      expect.stringContaining('direct boot: kernel measured (kernel-hashes=on), as given'),
    ]);
    const without = await measure('--qemu', `${line} /nowhere`, '--against', await digestOf('snp', ...GIVEN));
    expect(without.code).toBe(0);
  });

  it('names the OVMF build beside the given one', async () => {
    const argv = GIVEN.slice(0, 4);
    const digest = await digestOf('snp', ...argv, '--ovmf', inFolder('builds/new.fd'));
    const { stdout } = await measure(
      'snp',
      ...argv,
      '--ovmf',
      inFolder('builds/old.fd'),
      '--against',
      digest,
    );
    expect(stdout).toContain(`  OVMF build: ${inFolder('builds/new.fd')}`);
  });

  it('reads reports, raw, in hex and in base64, and takes the host CPU from them', async () => {
    const digest = await digestOf('snp', '--vcpus', '2', '--vcpu-sig', '0xa20f12', '--ovmf', 'default');
    const report = AttestationReportV3.encode({
      version: 3,
      measurement: fromHex(digest),
      cpuid_fam_id: 0x19,
      cpuid_mod_id: 0x21,
      cpuid_step: 2,
    });
    const forms = [
      report,
      Buffer.from(report).toString('hex'),
      `${Buffer.from(report).toString('base64')}\n`,
    ];
    for (const form of forms) {
      writeFileSync(inFolder('report'), form);
      const { stdout } = await measure('snp', ...GIVEN, '--against', inFolder('report'));
      expect(stdout).toContain('CPU: host (signature 0xa20f12, from the report)');
    }
    const older = AttestationReportV2.encode({ version: 2, measurement: fromHex(digest) });
    writeFileSync(inFolder('report'), older);
    expect((await measure('snp', ...GIVEN, '--against', inFolder('report'))).stdout).toContain(
      'no launch of',
    );
  });

  it('reads what attestation tools write: a configfs-tsm folder, JSON, a response of the firmware', async () => {
    const digest = await digestOf('snp', ...GIVEN);
    const report = AttestationReportV3.encode({ version: 3, measurement: fromHex(digest) });
    mkdirSync(inFolder('tsm'));
    writeFileSync(inFolder('tsm/outblob'), report);
    writeFileSync(
      inFolder('tsm.json'),
      JSON.stringify({ outblob: Buffer.from(report).toString('base64'), auxblob: '' }),
    );
    const response = new Uint8Array(0x20 + report.length);
    response.set([0, 0, 0, 0, 0xa0, 4]);
    response.set(report, 0x20);
    writeFileSync(inFolder('response'), response);
    for (const name of ['tsm', 'tsm.json', 'response']) {
      const { code, stdout } = await measure('snp', ...GIVEN, '--against', inFolder(name));
      expect([name, code, stdout]).toEqual([name, 0, `measurement ${digest}\nis the launch as given\n`]);
    }
  });

  it('says what it tried when nothing fits, and prints JSON', async () => {
    const nothing = '00'.repeat(48);
    const { code, stdout } = await measure('snp', ...GIVEN, '--against', nothing);
    expect(code).toBe(2);
    expect(stdout).toMatch(/tried: 1 to 256 vCPUs/);
    const json = await measure('snp', ...GIVEN, '--against', nothing, '--json');
    expect(JSON.parse(json.stdout)).toEqual({ measurement: nothing, as_given: false, fits: [] });
  });
});
