// SPDX-License-Identifier: Apache-2.0
/** From the options of `softsnp measure` to the launch they describe. */
import { createHash, hash } from 'node:crypto';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import type { ArgsDef } from 'citty';
import { cpuidFms, fromCpuidFms } from '../abi/product.ts';
import { defaultImage } from '../launch/default-image.ts';
import { kernelHashTableOf } from '../launch/kernel-hashes.ts';
import { type OvmfImage, parseOvmf } from '../launch/ovmf.ts';
import { VCPUS_LIMIT } from '../launch/plan.ts';
import { parseQemu, type QemuLaunch } from '../launch/qemu.ts';
import { cpuSigOf, VCPU_TYPES } from '../launch/vcpu-types.ts';
import { VMM_TYPES, type VmmType, vmmTypeOf } from '../launch/vmsa.ts';
import { fromHex, utf8 } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { fileOption, integerOption, wordOption } from './options.ts';

export const sha256 = (data: Uint8Array): Uint8Array => hash('sha256', data, 'buffer');
export const sha384 = (data: Uint8Array): Uint8Array => hash('sha384', data, 'buffer');

export const MEASURE_MODES = ['snp', 'snp:ovmf-hash', 'snp:svsm', 'seves', 'sev'] as const;
export type MeasureMode = (typeof MEASURE_MODES)[number];

/** Spellings sev-snp-measure's library takes for the same modes. */
const MODE_ALIASES: Readonly<Record<string, MeasureMode>> = {
  'sev-es': 'seves',
  'sev-snp': 'snp',
  'sev-snp:svsm': 'snp:svsm',
};

const IMAGE_LIMIT_BYTES = 2 ** 28;
/** QEMU hands sizes of kernel and initrd over in 32 bits. */
const BOOT_FILE_LIMIT_BYTES = 2 ** 32;
/** Files are hashed in pieces of this. */
const PIECE_BYTES = 2 ** 22;

export const MEASURE_ARGS = {
  mode: {
    type: 'string',
    valueHint: MEASURE_MODES.join('|'),
    description: 'The mode, when it is not given as the command',
  },
  vcpus: { type: 'string', valueHint: 'N', description: 'Number of vCPUs (not for sev)' },
  'vcpu-type': {
    type: 'string',
    valueHint: 'TYPE',
    description:
      'CPU model: EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, or a version such as EPYC-v4',
  },
  'vcpu-sig': { type: 'string', valueHint: 'VALUE', description: 'CPU signature (CPUID 1 EAX) instead' },
  'vcpu-family': {
    type: 'string',
    valueHint: 'N',
    description: 'CPU family, with model and stepping, instead',
  },
  'vcpu-model': { type: 'string', valueHint: 'N', description: 'CPU model number' },
  'vcpu-stepping': { type: 'string', valueHint: 'N', description: 'CPU stepping' },
  'vmm-type': { type: 'string', valueHint: 'VMM', description: `${VMM_TYPES.join(', ')} (default QEMU)` },
  ovmf: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Guest firmware image; "default" is the one softsnp attest launches',
  },
  kernel: { type: 'string', valueHint: 'FILE', description: 'Kernel of a measured direct boot' },
  initrd: { type: 'string', valueHint: 'FILE', description: 'Its initrd' },
  append: { type: 'string', valueHint: 'TEXT', description: 'Its command line' },
  'guest-features': {
    type: 'string',
    valueHint: 'WORD',
    description: 'SEV_FEATURES of the vCPUs (default 0x1; 0x21 where the host turns DebugSwap on)',
  },
  'snp-ovmf-hash': {
    type: 'string',
    valueHint: 'HEX',
    description: 'Result of snp:ovmf-hash for the real image; --ovmf then serves for its tables alone',
  },
  svsm: { type: 'string', valueHint: 'FILE', description: 'Flat Coconut-SVSM image (snp:svsm)' },
  'vars-size': { type: 'string', valueHint: 'BYTES', description: 'Size of OVMF_VARS (snp:svsm)' },
  'vars-file': {
    type: 'string',
    valueHint: 'FILE',
    description: 'OVMF_VARS itself, for its size (snp:svsm)',
  },
  qemu: {
    type: 'string',
    valueHint: "'COMMAND LINE'",
    description: 'Take all this from a QEMU command line; options given beside it win',
  },
} as const satisfies ArgsDef;

/** Parsed options by name. */
export type MeasureArgs = { readonly [K in keyof typeof MEASURE_ARGS]?: string | undefined };

export interface MeasureRequest {
  readonly mode: MeasureMode;
  readonly image: NamedImage;
  /** Null when not given. */
  readonly vcpus: number | null;
  readonly cpu: { readonly name: string; readonly sig: number } | null;
  readonly vmmType: VmmType;
  readonly guestFeatures: bigint;
  /** SEV_FEATURES of an SEV-ES guest, which only a QEMU command line can set. */
  readonly esFeatures: bigint;
  /** -cpu host: the CPU is the host's, to be read from its reports. */
  readonly isHostCpu: boolean;
  readonly boot: DirectBootHashes | null;
  /** Files of a direct boot that a QEMU command line names without measuring them. */
  readonly unmeasuredBoot: BootFiles | null;
  readonly seed: Uint8Array | null;
  readonly svsm: { readonly image: OvmfImage; readonly varsSizeBytes: number } | null;
  /** What the user should know about how the options were read. */
  readonly notes: readonly string[];
}

export interface NamedImage {
  readonly name: string;
  readonly ovmf: OvmfImage;
}

export type BootFiles = Pick<MeasureArgs, 'kernel' | 'initrd' | 'append'>;

export interface DirectBootHashes {
  /** SHA-256 of the file. */
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array | null;
  readonly append: string | null;
}

function refuse(where: string, message: string): never {
  throw new InputError('OPTION_INVALID', message, { where });
}

/**
 * Reads the options and the files they name.
 *
 * Shape    hasReport: a report is at hand that may tell the host's CPU
 * Errors   OPTION_INVALID, VCPU_TYPE_UNKNOWN, FILE_UNREADABLE, OVMF_*
 */
export function measureRequest(
  given: MeasureArgs,
  command: MeasureMode | null,
  hasReport = false,
): MeasureRequest {
  const notes: string[] = [];
  const launch = given.qemu === undefined ? null : parseQemu(given.qemu);
  const isHostCpu = launch !== null && hasReport && isHostCpuOf(launch, given);
  const args = launch === null ? given : { ...qemuArgs(launch, given, isHostCpu, notes), ...defined(given) };
  const mode = modeOf(args.mode, command);
  if (launch !== null && mode !== launch.mode && mode !== 'snp:ovmf-hash') {
    refuse('--qemu', `the command line starts a guest to be measured as ${launch.mode}, not as ${mode}`);
  }
  const ignored = ignoredBy(mode, given);
  if (ignored.length > 0) {
    notes.push(`${mode} measures nothing of ${ignored.map((name) => `--${name}`).join(', ')}`);
  }
  return {
    mode,
    image: firmwareImage(args.ovmf),
    vcpus: args.vcpus === undefined ? null : integerOption('vcpus', args.vcpus, 1, VCPUS_LIMIT),
    cpu: cpuOf(args),
    vmmType: args['vmm-type'] === undefined ? 'QEMU' : vmmTypeOf(args['vmm-type']),
    guestFeatures:
      args['guest-features'] === undefined ? 1n : wordOption('guest-features', args['guest-features']),
    esFeatures: launch?.mode === 'seves' ? launch.guestFeatures : 0n,
    isHostCpu,
    boot: bootOf(args),
    unmeasuredBoot:
      launch === null || launch.kernel === null || args.kernel !== undefined ? null : bootFilesOf(launch),
    seed: seedOf(args['snp-ovmf-hash'], mode),
    svsm: mode === 'snp:svsm' ? svsmOf(args) : null,
    notes,
  };
}

type MeasureOption = keyof typeof MEASURE_ARGS;
const CPU_OPTIONS = ['vcpu-type', 'vcpu-sig', 'vcpu-family', 'vcpu-model', 'vcpu-stepping'] as const;
const VCPU_OPTIONS = ['vcpus', ...CPU_OPTIONS, 'vmm-type'] as const;
const BOOT_OPTIONS = ['kernel', 'initrd', 'append'] as const;
/** What each mode measures, beside the firmware. sev-snp-measure takes the rest too, and says nothing. */
const MEASURED_BY: Readonly<Record<MeasureMode, readonly MeasureOption[]>> = {
  snp: [...VCPU_OPTIONS, ...BOOT_OPTIONS, 'guest-features', 'snp-ovmf-hash'],
  'snp:ovmf-hash': [],
  'snp:svsm': [...VCPU_OPTIONS, 'svsm', 'vars-size', 'vars-file'],
  seves: [...VCPU_OPTIONS, ...BOOT_OPTIONS],
  sev: BOOT_OPTIONS,
};

/** Options that were given and change nothing. */
function ignoredBy(mode: MeasureMode, given: MeasureArgs): MeasureOption[] {
  const read: readonly MeasureOption[] = ['mode', 'qemu', 'ovmf', ...MEASURED_BY[mode]];
  return (Object.keys(MEASURE_ARGS) as MeasureOption[]).filter(
    (name) => given[name] !== undefined && !read.includes(name),
  );
}

const defined = (args: MeasureArgs): MeasureArgs =>
  Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined));

function modeOf(option: string | undefined, command: MeasureMode | null): MeasureMode {
  if (option === undefined || command !== null) {
    return command ?? refuse('softsnp measure', `give a mode: ${MEASURE_MODES.join(', ')}`);
  }
  const name = option.toLowerCase();
  const mode = MEASURE_MODES.find((known) => known === name) ?? MODE_ALIASES[name];
  return mode ?? refuse('--mode', `${JSON.stringify(option)} is none of ${MEASURE_MODES.join(', ')}`);
}

const isCpuGiven = (given: MeasureArgs): boolean =>
  (['vcpu-type', 'vcpu-sig', 'vcpu-family'] as const).some((name) => given[name] !== undefined);

/** Models that have no signature of their own, but that of the host. */
const isHostCpuOf = ({ cpuType, cpuFms }: QemuLaunch, given: MeasureArgs): boolean =>
  /^(host|max)$/i.test(cpuType) && Object.keys(cpuFms).length === 0 && !isCpuGiven(given);

const bootFilesOf = ({ kernel, initrd, append }: QemuLaunch): BootFiles => ({
  kernel: kernel ?? undefined,
  initrd: initrd ?? undefined,
  append: append ?? undefined,
});

/** A QEMU command line as options. */
function qemuArgs(launch: QemuLaunch, given: MeasureArgs, isHostCpu: boolean, notes: string[]): MeasureArgs {
  const needsCpu = launch.mode !== 'sev' && !isHostCpu && !isCpuGiven(given);
  if (given['vmm-type'] === undefined) {
    notes.push(...launch.notes.map((note) => `--qemu: ${note}`));
  }
  if (launch.kernel !== null && !launch.kernelHashes) {
    notes.push('kernel-hashes=on is not set: kernel, initrd and command line are not measured');
  }
  for (const option of launch.unknown) {
    notes.push(`--qemu: ${option} is no option of QEMU known here; it was passed over`);
  }
  return {
    mode: launch.mode,
    ovmf: launch.ovmf,
    vcpus: String(launch.vcpus),
    ...(needsCpu ? { 'vcpu-sig': `0x${qemuCpuSig(launch).toString(16)}` } : {}),
    'vmm-type': launch.vmmType,
    ...(launch.svsm === null ? {} : { svsm: launch.svsm.image, 'vars-file': launch.svsm.vars }),
    'guest-features': `0x${launch.guestFeatures.toString(16)}`,
    ...(launch.kernelHashes ? bootFilesOf(launch) : {}),
  };
}

function qemuCpuSig({ cpuType, cpuFms }: QemuLaunch): number {
  const known = Object.keys(VCPU_TYPES).some((type) => type.toLowerCase() === cpuType.toLowerCase());
  const { family, model, stepping } = { ...(known ? fromCpuidFms(cpuSigOf(cpuType)) : {}), ...cpuFms };
  if (family === undefined || model === undefined || stepping === undefined) {
    refuse(
      `--qemu: -cpu ${cpuType}`,
      'has no signature known here; give the --vcpu-sig a guest on that host reads from CPUID 1',
    );
  }
  return cpuidFms(family, model, stepping);
}

function firmwareImage(path: string | undefined): NamedImage {
  if (path === undefined) {
    refuse('--ovmf', 'is missing: the guest firmware is the first thing measured');
  }
  const bytes = path === 'default' ? defaultImage() : fileOption('ovmf', path, IMAGE_LIMIT_BYTES);
  refusePacked(path, bytes);
  return { name: path, ovmf: parseOvmf(bytes, path) };
}

/** How the files of disk images begin that QEMU would unpack, and what is measured is what they unpack to. */
const PACKED: readonly (readonly [format: string, magic: string])[] = [
  ['qcow2', 'QFI\xfb'],
  ['vmdk', 'KDMV'],
  ['qed', 'QED\0'],
  ['vhdx', 'vhdxfile'],
  ['luks', 'LUKS\xba\xbe'],
];

function refusePacked(path: string, bytes: Uint8Array): void {
  const head = Buffer.from(bytes.subarray(0, 8)).toString('latin1');
  const format = PACKED.find(([, magic]) => head.startsWith(magic))?.[0];
  if (format !== undefined) {
    refuse(path, `is a disk image in ${format}: convert it to raw (qemu-img convert -O raw)`);
  }
}

function cpuOf(args: MeasureArgs): MeasureRequest['cpu'] {
  const { 'vcpu-family': family, 'vcpu-model': model, 'vcpu-stepping': stepping } = args;
  if (family !== undefined) {
    if (model === undefined || stepping === undefined) {
      refuse('--vcpu-family', 'needs --vcpu-model and --vcpu-stepping beside it');
    }
    const sig = cpuidFms(
      integerOption('vcpu-family', family, 0, 0x10e),
      integerOption('vcpu-model', model, 0, 0xff),
      integerOption('vcpu-stepping', stepping, 0, 0xf),
    );
    return { name: `family ${family} model ${model} stepping ${stepping}`, sig };
  }
  if (args['vcpu-sig'] !== undefined) {
    return { name: args['vcpu-sig'], sig: integerOption('vcpu-sig', args['vcpu-sig'], 0, 0xffff_ffff) };
  }
  const type = args['vcpu-type'];
  return type === undefined ? null : { name: type, sig: cpuSigOf(type, '--vcpu-type') };
}

/**
 * The direct boot that is measured, its files hashed.
 *
 * Errors   OPTION_INVALID, FILE_UNREADABLE
 */
export function bootOf({ kernel, initrd: named, append }: BootFiles): DirectBootHashes | null {
  // sev-snp-measure and QEMU take an empty name for no initrd.
  const initrd = named === '' ? undefined : named;
  if (append?.includes('\ufffd') === true) {
    refuse('--append', 'holds bytes that are no UTF-8, and which they were cannot be known (U+FFFD)');
  }
  if (kernel === undefined) {
    if (initrd !== undefined) {
      refuse('--initrd', 'needs --kernel beside it');
    }
    // sev-snp-measure lets an empty command line pass.
    if (append !== undefined && append !== '') {
      refuse('--append', 'needs --kernel beside it');
    }
    return null;
  }
  return {
    kernel: fileHash('kernel', kernel),
    initrd: initrd === undefined ? null : fileHash('initrd', initrd),
    append: append ?? null,
  };
}

/** SHA-256 of a file that need not fit into memory. */
function fileHash(name: 'kernel' | 'initrd', path: string): Uint8Array {
  const hasher = createHash('sha256');
  const piece = new Uint8Array(PIECE_BYTES);
  let total = 0;
  try {
    const file = openSync(path, 'r');
    try {
      for (let count = -1; count !== 0 && total <= BOOT_FILE_LIMIT_BYTES; total += count) {
        count = readSync(file, piece, 0, piece.length, null);
        hasher.update(piece.subarray(0, count));
      }
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${path}: ${errnoCode(error)}`, {
      where: `--${name}`,
      cause: error,
    });
  }
  if (total > BOOT_FILE_LIMIT_BYTES) {
    refuse(`--${name}`, `${path} has more than ${BOOT_FILE_LIMIT_BYTES} bytes, and QEMU loads no such file`);
  }
  return hasher.digest();
}

/** Table of hashes of a direct boot. */
export function hashesOf({ kernel, initrd, append }: DirectBootHashes): Uint8Array {
  const cmdline = sha256(utf8(`${append ?? ''}\0`));
  return kernelHashTableOf([cmdline, initrd ?? sha256(new Uint8Array(0)), kernel]);
}

function seedOf(text: string | undefined, mode: MeasureMode): Uint8Array | null {
  if (text === undefined) {
    return null;
  }
  if (mode !== 'snp') {
    refuse('--snp-ovmf-hash', 'only stands for the image of an snp launch');
  }
  const seed = fromHex(text, '--snp-ovmf-hash');
  return seed.length === 48 ? seed : refuse('--snp-ovmf-hash', `${seed.length} bytes given, it has 48`);
}

function svsmOf(args: MeasureArgs): MeasureRequest['svsm'] {
  const { svsm, 'vars-size': size, 'vars-file': file } = args;
  if (svsm === undefined) {
    refuse('--svsm', 'is missing: it names the SVSM image');
  }
  if ((size === undefined) === (file === undefined)) {
    refuse('--vars-size', 'give either --vars-size or --vars-file: the SVSM lies below the variables');
  }
  const bytes = fileOption('svsm', svsm, IMAGE_LIMIT_BYTES);
  refusePacked(svsm, bytes);
  return {
    image: parseOvmf(bytes, svsm),
    varsSizeBytes:
      size === undefined ? sizeOf(file!) : integerOption('vars-size', size, 1, Number.MAX_SAFE_INTEGER),
  };
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${path}: ${errnoCode(error)}`, {
      where: '--vars-file',
      cause: error,
    });
  }
}
