// SPDX-License-Identifier: Apache-2.0
/** Measurements and ID blocks as sev-snp-measure and snpguest compute them, over generated option sets. */
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { idblockVerb } from '../../src/cli/idblock.ts';
import { measureVerb } from '../../src/cli/measure.ts';
import { type Output, runCli, type Verb } from '../../src/cli/run.ts';
import { defaultImage } from '../../src/launch/default-image.ts';
import { checkIdBlock, readIdBlock } from '../../src/launch/idblock.ts';
import { VCPU_TYPES } from '../../src/launch/vcpu-types.ts';
import { nodeCrypto } from '../../src/os/node-crypto.ts';
import { root, run, tool } from './tools.ts';

const python = tool('py/bin/python', 'sev-snp-measure');
const snpguest = tool('cargo/bin/snpguest', 'snpguest generate measurement');
const driver = join(root, 'test', 'oracle', 'measure_driver.py');
const fixtures = join(
  root,
  '..',
  'shared',
  'vectors',
  'virtee-sev-snp-measure',
  'files',
  'tests',
  'fixtures',
);

const folder = mkdtempSync(join(tmpdir(), 'softsnp-measure-oracle-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

/** Repeatable numbers below `limit`. */
function seeded(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

interface Answer {
  readonly code: number;
  readonly stdout?: string;
  readonly error?: string;
}

function sevSnpMeasure(cases: readonly object[]): readonly Answer[] {
  const done = run(python!, [driver], { input: Buffer.from(JSON.stringify(cases)) });
  expect(done.stderr).toBe('');
  const answers = JSON.parse(done.stdout) as Answer[];
  expect(answers).toHaveLength(cases.length);
  return answers;
}

async function ours(verb: (output: Output) => Verb, name: string, argv: readonly string[]): Promise<Answer> {
  let stdout = '';
  let error = '';
  const output = {
    stdout: (text: string) => {
      stdout += text;
    },
    stderr: (text: string) => {
      error += text;
    },
  };
  const code = await runCli({ subCommands: { [name]: verb(output) } }, [name, ...argv], '0', output);
  return code === 0 ? { code, stdout } : { code, error };
}
const measure = (argv: readonly string[]): Promise<Answer> => ours(measureVerb, 'measure', argv);

/** Images with their tables, found where they usually are. */
const IMAGES = [
  file('default.fd', defaultImage()),
  ...[
    '/usr/share/ovmf/OVMF.fd',
    '/usr/share/OVMF/OVMF_CODE.fd',
    '/usr/share/OVMF/OVMF_CODE.secboot.fd',
    join(fixtures, 'ovmf_AmdSev_suffix.bin'),
    join(fixtures, 'ovmf_OvmfX64_suffix.bin'),
  ].filter((path) => {
    const present = existsSync(path);
    if (!present) {
      console.warn(`SKIPPED: measurements of ${path}: the file is absent`);
    }
    return present;
  }),
];
const SVSM = [join(fixtures, 'svsm_ovmf.fd'), join(fixtures, 'svsm.bin')] as const;
const withSvsm = SVSM.every((path) => existsSync(path));

/** Versions that sev-snp-measure does not list. */
const LATER = /^EPYC(-v5|-Rome-v[45]|-Milan-v3|-Genoa-v2|-Turin-v\d)$/;
const TYPES = Object.keys(VCPU_TYPES).filter((type) => !LATER.test(type));
const KERNELS = ['', 'kernel', 'x'.repeat(100_001)].map((text, i) => file(`kernel${i}`, text));
const INITRDS = ['', 'initrd', 'y'.repeat(65_536)].map((text, i) => file(`initrd${i}`, text));
const COMMAND_LINES = ['', 'console=ttyS0', ' quiet  splash ', 'ünïcode=✓', 'a'.repeat(2047), '-'];
const FEATURES = ['0x1', '0x21', '0', '33', '0x201', '0xffffffffffffffff', '0x8000000000000000'];

/** One command line of sev-snp-measure; now and then one it refuses. */
function generated(random: (limit: number) => number): string[] {
  const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)]!;
  const mode = pick([
    'snp',
    'snp',
    'snp',
    'snp',
    'seves',
    'sev',
    'snp:ovmf-hash',
    ...(withSvsm ? ['snp:svsm'] : []),
  ]);
  const argv = ['--mode', mode];
  if (mode === 'snp:svsm') {
    argv.push('--ovmf', SVSM[0], '--svsm', SVSM[1], '--vars-size', pick(['540672', '131072', '4096']));
  } else {
    argv.push('--ovmf', pick(IMAGES));
  }
  if (random(30) > 0) {
    argv.push('--vcpus', String(pick([1, 1, 2, 3, 4, 8, 64, 255])));
  }
  const vmm = mode === 'snp:svsm' ? 'QEMU' : pick(['QEMU', 'QEMU', 'ec2', 'gce']);
  if (vmm !== 'QEMU' || random(2) === 0) {
    argv.push('--vmm-type', vmm);
  }
  const cpu = random(8);
  if (cpu === 0) {
    argv.push('--vcpu-sig', pick(['0xa20f12', '8392466', '0x1']));
  } else if (cpu === 1) {
    argv.push(
      '--vcpu-family',
      pick(['25', '6', '26']),
      '--vcpu-model',
      pick(['1', '17', '160']),
      '--vcpu-stepping',
      '2',
    );
  } else if (cpu > 2 || vmm === 'QEMU') {
    argv.push('--vcpu-type', pick(TYPES));
  }
  if (random(2) === 0 && mode !== 'snp:svsm') {
    argv.push('--kernel', pick(KERNELS));
    if (random(2) === 0) {
      argv.push('--initrd', pick(INITRDS));
    }
    if (random(3) > 0) {
      argv.push(`--append=${pick(COMMAND_LINES)}`);
    }
  }
  if (random(2) === 0) {
    argv.push('--guest-features', pick(FEATURES));
  }
  if (mode === 'snp' && random(4) === 0) {
    argv.push('--snp-ovmf-hash', pick(['ab', '00', '5c']).repeat(48));
  }
  if (random(5) === 0) {
    argv.push('--output-format', pick(['hex', 'base64']));
  }
  return random(12) === 0 ? [...argv, '-v'] : argv;
}

describe.skipIf(python === null)('softsnp measure and sev-snp-measure', () => {
  it('agree on 600 generated command lines, refusals included', async () => {
    const random = seeded(20_260_521);
    const lines = Array.from({ length: 600 }, () => generated(random));
    const theirs = sevSnpMeasure(lines.map((argv) => ({ argv })));
    let measured = 0;
    for (const [i, argv] of lines.entries()) {
      const mine = await measure(argv);
      const context = `${argv.join(' ')}\nours: ${mine.error}\ntheirs: ${theirs[i]!.error}`;
      expect(mine.code === 0, context).toBe(theirs[i]!.code === 0);
      expect(mine.stdout, context).toBe(theirs[i]!.stdout);
      measured += mine.code === 0 ? 1 : 0;
    }
    // Most must be measurements, or the generator tests refusals alone.
    expect(measured).toBeGreaterThan(400);
    console.info(`sev-snp-measure: ${measured} measurements and ${lines.length - measured} refusals agree`);
  });

  it('agree on every CPU type, with every VMM, on every image', async () => {
    const lines = IMAGES.flatMap((image) =>
      TYPES.flatMap((type) =>
        ['QEMU', 'ec2', 'gce'].map((vmm) =>
          `--mode snp --vcpus 2 --vcpu-type ${type} --vmm-type ${vmm} --ovmf ${image}`.split(' '),
        ),
      ),
    );
    const theirs = sevSnpMeasure(lines.map((argv) => ({ argv })));
    for (const [i, argv] of lines.entries()) {
      expect(await measure(argv), argv.join(' ')).toEqual(theirs[i]);
    }
  });

  it('agree on a QEMU command line of a flat SVSM', async () => {
    if (!withSvsm) {
      console.warn(`SKIPPED: ${SVSM.join(' or ')} is absent`);
      return;
    }
    const vars = file('vars.fd', new Uint8Array(0x84000));
    const [cpu, flash] = ['EPYC-v4', 'if=pflash,format=raw'];
    const line = [
      `qemu-system-x86_64 -cpu ${cpu} -smp 4 -machine q35,confidential-guest-support=sev0`,
      '-object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,svsm=on',
      `-drive ${flash},unit=0,file=${SVSM[0]},readonly=on -drive ${flash},unit=1,file=${vars},snapshot=on`,
      `-drive ${flash},unit=2,file=${SVSM[1]},readonly=on`,
    ].join(' ');
    const images = ['--ovmf', SVSM[0], '--svsm', SVSM[1], '--vars-file', vars];
    const argv = ['--mode', 'snp:svsm', '--vcpus', '4', '--vcpu-type', cpu, ...images];
    expect(await measure(['--qemu', line])).toEqual(sevSnpMeasure([{ argv }])[0]);
  });

  it('agree on a kernel that no one read can give', async () => {
    const kernel = file('kernel.large', '');
    truncateSync(kernel, 2 ** 31);
    const argv = [
      '--mode',
      'snp',
      '--vcpus',
      '1',
      '--vcpu-type',
      'EPYC',
      '--ovmf',
      IMAGES[0]!,
      '--kernel',
      kernel,
    ];
    expect(await measure(argv)).toEqual(sevSnpMeasure([{ argv }])[0]);
  });

  it('differ where the image has no SNP metadata, which only sev-snp-measure measures', async () => {
    const image = '/usr/share/OVMF/OVMF_CODE_4M.fd';
    if (!existsSync(image)) {
      console.warn(`SKIPPED: ${image} is absent`);
      return;
    }
    const argv = ['--mode', 'snp', '--vcpus', '1', '--vcpu-type', 'EPYC', '--ovmf', image];
    expect(sevSnpMeasure([{ argv }])[0]!.code).toBe(0);
    expect((await measure(argv)).error).toContain('OVMF_METADATA_MISSING');
  });
});

describe.skipIf(python === null)('softsnp idblock and snp-create-id-block', () => {
  const key = (name: string, type: 'sec1' | 'pkcs8'): string => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
    return file(name, privateKey.export({ format: 'pem', type }) as string);
  };

  it("accept and name each other's blocks", async () => {
    const crypto = nodeCrypto({ deterministic: false });
    const ld = Buffer.alloc(48, 0xd1).toString('base64');
    const jobs = Array.from({ length: 8 }, (_, i) => ({
      ld,
      idkey: key(`id${i}.pem`, 'sec1'),
      authorkey: key(`author${i}.pem`, 'pkcs8'),
    }));
    const theirs = sevSnpMeasure(jobs.map((id_block) => ({ id_block })));
    for (const [i, { idkey, authorkey }] of jobs.entries()) {
      const lines = theirs[i]!.stdout!.trimEnd().split('\n');
      const [, block, auth] = /^id-block=(.*),id-auth=(.*)$/.exec(lines[0]!)!;
      const bytes = [block, auth].map((text) => Uint8Array.from(Buffer.from(text!, 'base64'))) as [
        Uint8Array,
        Uint8Array,
      ];
      expect(
        checkIdBlock(crypto, ...bytes, { launchDigest: Buffer.from(ld, 'base64'), policy: 0x30000n }),
      ).toEqual([]);
      const read = readIdBlock(crypto.sha384, ...bytes);
      expect(lines[1]).toBe(`id_key_hash: ${Buffer.from(read.idKeyDigest).toString('base64')}`);
      expect(lines[2]).toBe(`author_key: ${Buffer.from(read.authorKeyDigest!).toString('base64')}`);

      const argv = ['create', '--measurement', ld, '--idkey', idkey, '--authorkey', authorkey];
      const mine = (await ours(idblockVerb, 'idblock', argv)).stdout!.trimEnd().split('\n');
      expect(mine.slice(1)).toEqual(lines.slice(1));
      // ECDSA is randomised: the pages differ in their signatures alone.
      const page = Uint8Array.from(Buffer.from(/id-auth=(.*)$/.exec(mine[0]!)![1]!, 'base64'));
      for (const [from, to] of [
        [0x40, 0x240],
        [0x680, 0x880],
      ] as const) {
        page.set(bytes[1].subarray(from, to), from);
      }
      expect(page).toEqual(bytes[1]);
      expect(mine[0]!.split(',')[0]).toBe(lines[0]!.split(',')[0]);
    }
  });
});

describe.skipIf(snpguest === null)('softsnp measure and snpguest generate measurement', () => {
  it('agree on QEMU, EC2 as virtee computes it, and krun', async () => {
    const random = seeded(7);
    const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)]!;
    for (let i = 0; i < 60; i++) {
      const [theirVmm, ourVmm] = pick([
        ['QEMU', 'QEMU'],
        ['ec2', 'ec2-virtee'],
        ['krun', 'krun'],
      ] as const);
      const [vcpus, type, image] = [pick(['1', '2', '5']), pick(TYPES), pick(IMAGES)];
      const features = pick(['0x1', '0x21']);
      const boot = image.includes('AmdSev') || image.endsWith('default.fd') ? random(2) === 0 : false;
      const append = pick(['console=ttyS0', ' quiet ']);
      const theirs = run(snpguest!, [
        ...[
          'generate',
          'measurement',
          '-t',
          theirVmm,
          '-v',
          vcpus,
          '--vcpu-type',
          type,
          '-o',
          image,
          '-g',
          features,
        ],
        ...(boot ? ['-k', KERNELS[1]!, '-i', INITRDS[1]!, '-a', append] : []),
      ]);
      const argv = ['snp', '--vmm-type', ourVmm, '--vcpus', vcpus, '--vcpu-type', type, '--ovmf', image];
      argv.push('--guest-features', features);
      if (boot) {
        // snpguest trims the command line.
        argv.push('--kernel', KERNELS[1]!, '--initrd', INITRDS[1]!, '--append', append.trim());
      }
      const mine = await measure(argv);
      expect(`0x${mine.stdout}`, `${argv.join(' ')}\n${theirs.stderr}${mine.error}`).toBe(theirs.stdout);
    }
  });
});
