// SPDX-License-Identifier: Apache-2.0
/** From the options of `softsnp measure` to the launch they describe. */
import { hash } from 'node:crypto';
import { statSync } from 'node:fs';
import type { ArgsDef } from 'citty';
import { cpuidFms, fromCpuidFms } from '../abi/product.ts';
import { defaultImage } from '../launch/default-image.ts';
import { kernelHashes } from '../launch/kernel-hashes.ts';
import { type OvmfImage, parseOvmf } from '../launch/ovmf.ts';
import { VCPUS_LIMIT } from '../launch/plan.ts';
import { parseQemu, type QemuLaunch } from '../launch/qemu.ts';
import { cpuSigOf, VCPU_TYPES } from '../launch/vcpu-types.ts';
import { VMM_TYPES, type VmmType, vmmTypeOf } from '../launch/vmsa.ts';
import { fromHex } from '../lib/bytes.ts';
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
/** Kernels and initrds: as much as one file read can give. */
const BOOT_FILE_LIMIT_BYTES = 2 ** 31;

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
  readonly boot: DirectBootFiles | null;
  readonly seed: Uint8Array | null;
  readonly svsm: { readonly image: OvmfImage; readonly varsSizeBytes: number } | null;
  /** What the user should know about how the options were read. */
  readonly notes: readonly string[];
}

export interface NamedImage {
  readonly name: string;
  readonly ovmf: OvmfImage;
}

export interface DirectBootFiles {
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
 * Errors   OPTION_INVALID, VCPU_TYPE_UNKNOWN, FILE_UNREADABLE, OVMF_*
 */
export function measureRequest(given: MeasureArgs, command: MeasureMode | null): MeasureRequest {
  const notes: string[] = [];
  const args =
    given.qemu === undefined
      ? given
      : { ...qemuArgs(parseQemu(given.qemu), given, notes), ...defined(given) };
  const mode = modeOf(args.mode, command);
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
    boot: bootOf(args),
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

/** A QEMU command line as options. */
function qemuArgs(launch: QemuLaunch, given: MeasureArgs, notes: string[]): MeasureArgs {
  const cpuGiven = (['vcpu-type', 'vcpu-sig', 'vcpu-family'] as const).some(
    (name) => given[name] !== undefined,
  );
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
    ...(cpuGiven || launch.mode === 'sev' ? {} : { 'vcpu-sig': `0x${qemuCpuSig(launch).toString(16)}` }),
    'guest-features': `0x${launch.guestFeatures.toString(16)}`,
    ...(launch.kernelHashes
      ? {
          kernel: launch.kernel ?? undefined,
          initrd: launch.initrd ?? undefined,
          append: launch.append ?? undefined,
        }
      : {}),
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
  return { name: path, ovmf: parseOvmf(bytes, path) };
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

function bootOf({ kernel, initrd, append }: MeasureArgs): DirectBootFiles | null {
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
    kernel: fileOption('kernel', kernel, BOOT_FILE_LIMIT_BYTES),
    initrd: initrd === undefined ? null : fileOption('initrd', initrd, BOOT_FILE_LIMIT_BYTES),
    append: append ?? null,
  };
}

/** Table of hashes of a direct boot. */
export function hashesOf({ kernel, initrd, append }: DirectBootFiles): Uint8Array {
  return kernelHashes(sha256, {
    kernel,
    ...(initrd === null ? {} : { initrd }),
    ...(append === null ? {} : { append }),
  });
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
  return {
    image: parseOvmf(fileOption('svsm', svsm, IMAGE_LIMIT_BYTES), svsm),
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
