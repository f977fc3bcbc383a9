// SPDX-License-Identifier: Apache-2.0
/** Reads what machine-args.ts declares. */
import type { ReportVersion } from '../abi/attestation-report.ts';
import { IdAuth, IdBlock, SevPublicKey } from '../abi/id-block.ts';
import type { ProductLine } from '../abi/product.ts';
import { parseTcbText, type TcbParts } from '../abi/tcb-version.ts';
import type { ChipConfig } from '../firmware/chip.ts';
import {
  cpuSigOf,
  defaultImage,
  kernelHashes,
  type LaunchPlan,
  parseOvmf,
  planLaunch,
} from '../launch/index.ts';
import { fromHex, isZero } from '../lib/bytes.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import type { LaunchSettings } from '../vmm/launch-vm.ts';
import { type OpenHostState, openHostState } from './host-state.ts';
import { blockBytes } from './idblock-files.ts';
import type { GuestArgs, MachineArgs } from './machine-args.ts';
import {
  choiceOption,
  fileOption,
  hexOption,
  integerOption,
  productOption,
  sizeOption,
  wordOption,
} from './options.ts';

const BIOS_LIMIT_BYTES = 64 * 2 ** 20;
const BOOT_FILE_LIMIT_BYTES = 2 ** 31 - 1;

/** What the options say of a guest. */
export interface GuestOptions {
  readonly plan: (crypto: MachineCrypto) => LaunchPlan;
  readonly bios: string;
  readonly cpu: string;
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly policy: bigint;
  readonly hostData: Uint8Array;
  readonly idBlock: NonNullable<LaunchSettings['idBlock']> | null;
  readonly certs: string | null;
}

/** What the options say of the host and of one guest. */
export interface MachineOptions extends GuestOptions {
  readonly product: ProductLine | null;
  readonly chipId: string | null;
  readonly tcb: string | null;
  readonly reportVersion: ReportVersion | null;
  readonly key: 'vcek' | 'vlek';
  readonly seed: number | null;
  readonly state: string | null;
  readonly verbose: boolean;
}

export function readGuestOptions(args: GuestArgs): GuestOptions {
  const vcpus = integerOption('smp', args.smp, 1, 4096);
  const cpuSig = cpuSigOf(args.cpu);
  const ovmf = parseOvmf(
    args.bios === undefined ? defaultImage() : fileOption('bios', args.bios, BIOS_LIMIT_BYTES),
  );
  const boot = readBootFiles(args);
  return {
    plan: (crypto) =>
      planLaunch({
        ovmf,
        vcpus,
        cpuSig,
        ...(boot === null ? {} : { kernelHashes: kernelHashes(crypto.sha256, boot) }),
      }),
    bios: args.bios ?? 'embedded',
    cpu: args.cpu,
    vcpus,
    memoryBytes: sizeOption('mem', args.mem),
    policy: wordOption('policy', args.policy),
    hostData: hexOption('host-data', args['host-data'] ?? '', 32),
    idBlock: readIdBlockFiles(args),
    certs: args.certs ?? null,
  };
}

export function readMachineOptions(args: MachineArgs): MachineOptions {
  return {
    ...readGuestOptions(args),
    product: args.chip === undefined ? null : productOption('chip', args.chip),
    chipId: args['chip-id'] ?? null,
    tcb: args.tcb ?? null,
    reportVersion:
      args['report-version'] === undefined
        ? null
        : (integerOption('report-version', args['report-version'], 2, 5) as ReportVersion),
    key: choiceOption('key', args.key, ['vcek', 'vlek']),
    seed: args.seed === undefined ? null : integerOption('seed', args.seed, 0, Number.MAX_SAFE_INTEGER),
    state: args.state ?? null,
    verbose: args.verbose === true,
  };
}

function readBootFiles(args: GuestArgs) {
  if (args.kernel === undefined) {
    if (args.initrd !== undefined || args.append !== undefined) {
      throw new InputError('OPTION_INVALID', 'needs --kernel', {
        where: args.initrd === undefined ? '--append' : '--initrd',
      });
    }
    return null;
  }
  return {
    kernel: fileOption('kernel', args.kernel, BOOT_FILE_LIMIT_BYTES),
    ...(args.initrd === undefined
      ? {}
      : { initrd: fileOption('initrd', args.initrd, BOOT_FILE_LIMIT_BYTES) }),
    ...(args.append === undefined ? {} : { append: args.append }),
  };
}

function readIdBlockFiles(args: GuestArgs): GuestOptions['idBlock'] {
  const { 'id-block': blockPath, 'id-auth': authPath } = args;
  if (blockPath === undefined || authPath === undefined) {
    if (blockPath !== authPath) {
      throw new InputError('OPTION_INVALID', '--id-block and --id-auth go together', { where: '--id-block' });
    }
    return null;
  }
  const block = blockOption('id-block', blockPath, IdBlock.size);
  const auth = blockOption('id-auth', authPath, IdAuth.size);
  const authorKey = auth.subarray(
    IdAuth.offsetOf('author_key'),
    IdAuth.offsetOf('author_key') + SevPublicKey.size,
  );
  return { block, auth, authorKey: !isZero(authorKey) };
}

/** A file in the forms that `softsnp idblock` reads; hex with line ends is the longest. */
function blockOption(name: string, path: string, size: number): Uint8Array {
  const bytes = fileOption(name, path, 4 * size);
  const decoded = blockBytes(bytes) ?? bytes;
  if (decoded.length !== size) {
    throw new InputError(
      'OPTION_INVALID',
      `${path} holds ${decoded.length} bytes, not ${size}, also not as hex or base64`,
      {
        where: `--${name}`,
        action: 'softsnp idblock create writes both files as they are wanted here.',
      },
    );
  }
  return decoded;
}

/** Opens the state folder of the host the options name. */
export function openMachineState(options: MachineOptions): OpenHostState {
  return openHostState({
    product: options.product,
    chipId: options.chipId === null ? null : chipIdOption(options.chipId, options.product ?? 'Milan'),
    seed: options.seed,
    stateDir: options.state,
  });
}

function chipIdOption(text: string, product: ProductLine): Uint8Array {
  const given = fromHex(text, '--chip-id');
  const wanted = product === 'Turin' ? [8] : [64];
  const id = new Uint8Array(64);
  id.set(given.subarray(0, 64));
  if (!wanted.includes(given.length) && !(given.length === 64 && isZero(id.subarray(8)))) {
    throw new InputError(
      'OPTION_INVALID',
      `${given.length} bytes given; a CHIP_ID of ${product} has ${wanted[0]}`,
      {
        where: '--chip-id',
      },
    );
  }
  return id;
}

/** How a guest of these options is launched. */
export function launchSettings(options: GuestOptions, plan: LaunchPlan): LaunchSettings {
  return {
    plan,
    memoryBytes: options.memoryBytes,
    policy: options.policy,
    hostData: options.hostData,
    ...(options.idBlock === null ? {} : { idBlock: options.idBlock }),
  };
}

/** What differs from a usual chip of the product. */
export function chipOverrides(
  { tcb, reportVersion }: MachineOptions,
  product: ProductLine,
): Partial<ChipConfig> {
  const parts: TcbParts | null = tcb === null ? null : parseTcbText(tcb, product);
  return {
    ...(parts === null ? {} : { currentTcb: parts, committedTcb: parts, reportedTcb: parts }),
    ...(reportVersion === null ? {} : { reportVersion }),
  };
}
