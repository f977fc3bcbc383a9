// SPDX-License-Identifier: Apache-2.0
/** `softsnp measure --against`: which launch does the measurement in a report come from? */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AttestationReportV2, AttestationReportV3, REPORT_SIZE } from '../abi/attestation-report.ts';
import { cpuidFms } from '../abi/product.ts';
import { LAUNCH_DIGEST_SIZE } from '../launch/digest.ts';
import { kernelHashTableOf } from '../launch/kernel-hashes.ts';
import { type OvmfImage, parseOvmf } from '../launch/ovmf.ts';
import { type Fit, findLaunch, type Suspect, type SuspectKind } from '../launch/suspects.ts';
import { VCPU_TYPES } from '../launch/vcpu-types.ts';
import { VMM_TYPES, type VmmType } from '../launch/vmsa.ts';
import { concat, fromHex, toHex, utf8 } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { decodedText } from '../lib/text.ts';
import { reportFile } from './evidence-files.ts';
import { EXIT_DIFFERENT } from './measure-launch.ts';
import {
  type BootFiles,
  bootOf,
  type DirectBootHashes,
  hashesOf,
  type MeasureRequest,
  sha256,
  sha384,
} from './measure-request.ts';
import { fileLabel, fileOption } from './options.ts';
import { EXIT_OK, type Output } from './run.ts';

/** vCPU counts tried; more cost a hash each for every combination of the rest. */
const MAX_VCPUS = 256;
const MAX_IMAGES = 24;
/** Where distributions keep guest firmware. */
const FIRMWARE_FOLDERS = [
  '/usr/share/ovmf',
  '/usr/share/OVMF',
  '/usr/share/edk2/ovmf',
  '/usr/share/edk2/x64',
  '/usr/share/qemu',
];
/** Feature words hosts have been seen to launch with, and where they come from. */
const FEATURE_WORDS: readonly Suspect<bigint>[] = [
  { name: '0x1 (SNPActive alone, the default of kernels other than 6.6 to 6.8)', value: 0x1n },
  { name: '0x21 (with DebugSwap, as kernels 6.6 to 6.8 turn on unasked)', value: 0x21n },
  { name: '0x201 (with SecureTSC)', value: 0x201n },
  { name: '0x221 (with DebugSwap and SecureTSC)', value: 0x221n },
  { name: '0x9 (with RestrictedInjection)', value: 0x9n },
  { name: '0x29 (with RestrictedInjection and DebugSwap)', value: 0x29n },
];
const VMM_NAMES: Readonly<Record<VmmType, string>> = {
  QEMU: 'QEMU',
  ec2: 'ec2',
  gce: 'gce',
  krun: 'krun',
  'ec2-virtee': 'ec2-virtee (EC2 as virtee/sev computes it, RDX 0)',
  'QEMU-before-6.10': 'QEMU-before-6.10 (a host kernel before 6.10, which left the FPU state zero)',
};

const KIND_NAMES: Readonly<Record<SuspectKind, string>> = {
  vcpus: 'vCPUs',
  cpu: 'CPU',
  features: 'guest features',
  boot: 'direct boot',
  vmmType: 'VMM',
  image: 'OVMF build',
};

/**
 * Searches for the launch behind a report and prints what fits.
 *
 * Returns  0 when the options as given fit, 2 when another launch fits or none does
 * Errors   OPTION_INVALID
 */
export function explainMeasurement(
  request: MeasureRequest,
  against: string,
  json: boolean,
  output: Output,
): number {
  if (request.mode !== 'snp' || request.seed !== null) {
    throw new InputError('OPTION_INVALID', 'searches snp launches of a whole image only', {
      where: '--against',
    });
  }
  const { measurement, hostSig } = readAgainst(against);
  if (request.isHostCpu && hostSig === null) {
    throw new InputError(
      'OPTION_INVALID',
      'is the CPU of the host, which only reports from version 3 on tell; give its signature as --vcpu-sig',
      { where: '--qemu: -cpu host' },
    );
  }
  const fits = findLaunch(sha384, measurement, {
    images: imagesOf(request),
    boots: bootsOf(request),
    vmmTypes: [request.vmmType, ...VMM_TYPES.filter((type) => type !== request.vmmType)].map((value) => ({
      name: VMM_NAMES[value],
      value,
    })),
    cpus: cpusOf(request, hostSig),
    features: featuresOf(request.guestFeatures),
    vcpus: request.vcpus,
    maxVcpus: Math.max(MAX_VCPUS, request.vcpus ?? 0),
  });
  const asGiven = fits[0]?.changed.length === 0;
  if (json) {
    output.stdout(
      `${JSON.stringify({ measurement: toHex(measurement), as_given: asGiven, fits }, null, 2)}\n`,
    );
  } else {
    output.stdout(fitText(request, measurement, fits));
  }
  return asGiven ? EXIT_OK : EXIT_DIFFERENT;
}

/** The measurement in a report file, or the digest given itself; and the chip the report comes from. */
function readAgainst(against: string): { measurement: Uint8Array; hostSig: number | null } {
  const given = existsSync(against) ? null : digestOf(against);
  if (given !== null) {
    return { measurement: given, hostSig: null };
  }
  const { report } = reportFile(against, 'against');
  const digest = report.length === REPORT_SIZE ? null : digestIn(report);
  if (digest !== null) {
    return { measurement: digest, hostSig: null };
  }
  if (report.length !== REPORT_SIZE) {
    throw new InputError(
      'OPTION_INVALID',
      `${fileLabel(against)} is neither a report of ${REPORT_SIZE} bytes, in whatever wrapping, nor a digest`,
      {
        where: '--against',
        action:
          'Give a report as softsnp show report reads it, or the 96 hexadecimal digits of a measurement.',
      },
    );
  }
  const version = AttestationReportV2.get(report, 'version');
  const get = (field: 'cpuid_fam_id' | 'cpuid_mod_id' | 'cpuid_step'): number =>
    AttestationReportV3.get(report, field);
  return {
    measurement: AttestationReportV2.get(report, 'measurement'),
    hostSig: version < 3 ? null : cpuidFms(get('cpuid_fam_id'), get('cpuid_mod_id'), get('cpuid_step')),
  };
}

/** A digest in hexadecimal, in UTF-16 and with white space around it. */
const MAX_DIGEST_TEXT_BYTES = 256;

/** The digest that a file holds in place of a report: its bytes, or what measure prints. */
function digestIn(bytes: Uint8Array): Uint8Array | null {
  if (bytes.length === LAUNCH_DIGEST_SIZE) {
    return bytes;
  }
  return digestOf((decodedText(bytes.subarray(0, MAX_DIGEST_TEXT_BYTES)) ?? '').trim());
}

/** A digest in hex or in base64. */
function digestOf(text: string): Uint8Array | null {
  if (/^(0x)?[0-9a-fA-F]{96}$/.test(text)) {
    return fromHex(text);
  }
  return /^[A-Za-z0-9+/]{64}$/.test(text) ? Uint8Array.from(Buffer.from(text, 'base64')) : null;
}

/** The image given, then every other firmware image that could have been meant. */
function* imagesOf({ image }: MeasureRequest): Generator<Suspect<OvmfImage>> {
  yield { name: image.name, value: image.ovmf };
  const seen = new Set([toHex(sha256(image.ovmf.bytes))]);
  const folders = [...(image.name === 'default' ? [] : [dirname(image.name)]), ...FIRMWARE_FOLDERS];
  for (const path of folders.flatMap(firmwareFiles)) {
    const ovmf = readImage(path);
    const id = ovmf === null ? '' : toHex(sha256(ovmf.bytes));
    if (ovmf !== null && ovmf.sections !== null && !seen.has(id) && seen.size < MAX_IMAGES) {
      seen.add(id);
      yield { name: path, value: ovmf };
    }
  }
}

function firmwareFiles(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => /\.(fd|bin|rom)$/i.test(name))
      .map((name) => join(folder, name))
      .filter((path) => {
        const stat = statSync(path);
        return stat.isFile() && stat.size % 4096 === 0 && stat.size <= 2 ** 25;
      })
      .slice(0, 4 * MAX_IMAGES);
  } catch {
    return []; // A folder that is not there or not readable holds no suspects.
  }
}

function readImage(path: string): OvmfImage | null {
  try {
    return parseOvmf(fileOption('ovmf', path, 2 ** 25), path);
  } catch {
    return null; // Not a guest firmware image, or not ours to read.
  }
}

/** The direct boot given, then what goes wrong with one. */
function bootsOf({ boot, unmeasuredBoot }: MeasureRequest): Suspect<Uint8Array | null>[] {
  const none = { name: 'no kernel measured (kernel-hashes=off)', value: null };
  if (boot !== null) {
    return [...measuredBoots(boot), none];
  }
  const unmeasured = unmeasuredBoot === null ? null : readableBoot(unmeasuredBoot);
  return unmeasured === null
    ? [{ ...none, name: 'no kernel' }]
    : [
        none,
        ...measuredBoots(unmeasured).map(({ name, value }) => ({
          name: `kernel measured (kernel-hashes=on), ${name}`,
          value,
        })),
      ];
}

/** Files that a command line names without measuring them need not be on this machine. */
function readableBoot(files: BootFiles): DirectBootHashes | null {
  try {
    return bootOf(files);
  } catch (error) {
    if (error instanceof EnvironmentError) {
      return null;
    }
    throw error;
  }
}

function measuredBoots(boot: DirectBootHashes): Suspect<Uint8Array>[] {
  const append = boot.append ?? '';
  const initrd = boot.initrd ?? sha256(new Uint8Array(0));
  const hashed = (cmdline: Uint8Array): Uint8Array =>
    kernelHashTableOf([sha256(cmdline), initrd, boot.kernel]);
  const variants: Suspect<Uint8Array>[] = [
    { name: 'as given', value: hashesOf(boot) },
    {
      name: 'command line without white space around it',
      value: hashesOf({ ...boot, append: append.trim() }),
    },
    { name: 'command line with a newline at its end', value: hashesOf({ ...boot, append: `${append}\n` }) },
    { name: 'command line with a space at its end', value: hashesOf({ ...boot, append: `${append} ` }) },
    {
      name: 'command line hashed without its NUL',
      value: hashed(utf8(append)),
    },
    {
      name: 'command line hashed with two NULs',
      value: hashed(concat(utf8(append), new Uint8Array(2))),
    },
    { name: 'no command line', value: hashesOf({ ...boot, append: null }) },
    { name: 'no initrd', value: hashesOf({ ...boot, initrd: null }) },
    { name: 'no initrd and no command line', value: hashesOf({ ...boot, initrd: null, append: null }) },
  ];
  const seen = new Set<string>();
  return variants.filter(({ value }) => {
    const id = toHex(value);
    return !seen.has(id) && seen.add(id);
  });
}

function cpusOf({ cpu: given, isHostCpu }: MeasureRequest, hostSig: number | null): Suspect<number>[] {
  const host =
    hostSig === null
      ? []
      : [{ name: `host (signature 0x${hostSig.toString(16)}, from the report)`, value: hostSig }];
  const types = Object.entries(VCPU_TYPES)
    .filter(([type]) => !/-v\d$|IBPB/.test(type))
    .map(([name, value]) => ({ name, value }));
  const expected = given === null ? [] : [{ name: given.name, value: given.sig }];
  const seen = new Set<number>();
  return (isHostCpu ? [...host, ...types] : [...expected, ...types, ...host]).filter(
    ({ value }) => !seen.has(value) && seen.add(value),
  );
}

function featuresOf(given: bigint): Suspect<bigint>[] {
  const known = FEATURE_WORDS.find(({ value }) => value === given);
  return [
    known ?? { name: `0x${given.toString(16)}`, value: given },
    ...FEATURE_WORDS.filter(({ value }) => value !== given),
  ];
}

function fitText(request: MeasureRequest, measurement: Uint8Array, fits: readonly Fit[]): string {
  const lines = [`measurement ${toHex(measurement)}`];
  const [best] = fits;
  if (best === undefined) {
    lines.push(
      'no launch of the usual suspects measures to it',
      `tried: 1 to ${MAX_VCPUS} vCPUs, every CPU type, ${FEATURE_WORDS.length} feature words, every VMM,`,
      '       the firmware images beside --ovmf and under /usr/share, and slips of the command line',
      'left: a firmware image that is not on this machine, another kernel or initrd, other feature bits',
    );
  } else if (best.changed.length === 0) {
    const vcpus = request.vcpus === null ? `, with ${best.vcpus} vCPUs` : '';
    const cpu = request.isHostCpu ? `, CPU ${best.cpu}` : '';
    lines.push(`is the launch as given${vcpus}${cpu}`);
  } else {
    lines.push('is another launch than the one given:');
    for (const kind of best.changed) {
      lines.push(`  ${KIND_NAMES[kind]}: ${best[kind]}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
