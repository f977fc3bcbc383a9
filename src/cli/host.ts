// SPDX-License-Identifier: Apache-2.0
/** `softsnp host`: the secure processor of this host through /dev/sev, real or emulated. */
import { type ArgsDef, defineCommand } from 'citty';
import type { ProductLine } from '../abi/product.ts';
import { type SevUserDataSnpStatus, WrappedVlekHashstick } from '../abi/snp-commands.ts';
import { decodeTcb, encodeTcb, formatTcb, parseTcbText, tcbComponents } from '../abi/tcb-version.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { type DeviceFile, type OpenDevice, openDevice } from '../os/device-file.ts';
import { toJson } from './json.ts';
import { choiceOption, fileOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';
import { getId2, snpCommit, snpPlatformStatus, snpSetConfig, snpVlekLoad } from './sev-client.ts';

const COMMON_ARGS = {
  device: { type: 'string', valueHint: 'PATH', description: 'Device node', default: '/dev/sev' },
  json: { type: 'boolean', description: 'Print one JSON object' },
} as const satisfies ArgsDef;

/** How a chip lays its TCB words out; Genoa does as Milan. Null: the chip does not say who it is. */
type TcbShape = Extract<ProductLine, 'Milan' | 'Turin'> | null;

const CHIP_ID_SIZE = 64;
/** Significant bytes of a Turin chip's id; the rest is zero. */
const SHORT_HWID_SIZE = 8;

/** `softsnp host`, writing to `output`. */
export function hostVerb(output: Output, open: OpenDevice = openDevice): Verb {
  const using = async <T>(
    path: string,
    access: 'read' | 'read-write',
    use: (device: DeviceFile) => Promise<T>,
  ): Promise<T> => {
    const device = await open(path, access);
    try {
      return await use(device);
    } finally {
      await device.close();
    }
  };

  /** A command that changes something: done or refused. */
  const done = (json: boolean | undefined, sentence: string): number => {
    output.stdout(json === true ? toJson({ ok: true }) : `${sentence}\n`);
    return EXIT_OK;
  };

  const status = defineCommand({
    meta: { name: 'status', description: 'Show firmware version, state, TCBs and features' },
    args: COMMON_ARGS,
    run: ({ args }) =>
      using(args.device, 'read', async (device) => {
        const document = statusDocument(await snpPlatformStatus(device), await tcbShape(device));
        output.stdout(args.json === true ? toJson(document) : statusText(document));
        return EXIT_OK;
      }),
  });

  const identifier = defineCommand({
    meta: { name: 'identifier', description: 'Show the chip id as key service URLs have it (hwid)' },
    args: COMMON_ARGS,
    run: ({ args }) =>
      using(args.device, 'read', async (device) => {
        const ids = await getId2(device);
        const sockets: { identifier: Uint8Array; hwid: string }[] = [];
        for (let at = 0; at + CHIP_ID_SIZE <= ids.length; at += CHIP_ID_SIZE) {
          const id = ids.slice(at, at + CHIP_ID_SIZE);
          sockets.push({ identifier: id, hwid: toHex(isShort(id) ? id.subarray(0, SHORT_HWID_SIZE) : id) });
        }
        const text = sockets.map(({ hwid }) => `${hwid}\n`).join('');
        output.stdout(args.json === true ? toJson({ sockets }) : text);
        return EXIT_OK;
      }),
  });

  const configSet = defineCommand({
    meta: { name: 'set', description: 'Set the reported TCB or a mask; what is left out stays as it is' },
    args: {
      'reported-tcb': {
        type: 'string',
        valueHint: 'TCB',
        description: 'boot_loader,tee,snp,microcode; on Turin fmc first',
      },
      'mask-chip-id': {
        type: 'string',
        valueHint: 'on|off',
        description: 'Leave the chip id out of reports',
      },
      'mask-chip-key': { type: 'string', valueHint: 'on|off', description: 'Sign no report with the VCEK' },
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const text = args['reported-tcb'];
      const masks = {
        mask_chip_id: switchOption('mask-chip-id', args['mask-chip-id']),
        mask_chip_key: switchOption('mask-chip-key', args['mask-chip-key']),
      };
      if (text === undefined && masks.mask_chip_id === null && masks.mask_chip_key === null) {
        throw new InputError('OPTION_INVALID', 'nothing to set', { where: 'softsnp host config set' });
      }
      return using(args.device, 'read-write', async (device) => {
        const { reported_tcb, features } = await snpPlatformStatus(device);
        await snpSetConfig(device, {
          reported_tcb: text === undefined ? reported_tcb : await tcbWord(device, text),
          flags: {
            mask_chip_id: masks.mask_chip_id ?? features.mask_chip_id,
            mask_chip_key: masks.mask_chip_key ?? features.mask_chip_key,
          },
        });
        return done(args.json, 'The configuration is set; it holds until the next one or the next boot.');
      });
    },
  });

  const configReset = defineCommand({
    meta: { name: 'reset', description: 'Report the committed TCB and mask nothing' },
    args: COMMON_ARGS,
    run: ({ args }) =>
      using(args.device, 'read-write', async (device) => {
        await snpSetConfig(device, {});
        return done(args.json, 'The configuration is reset.');
      }),
  });

  const commit = defineCommand({
    meta: {
      name: 'commit',
      description: 'Commit the running firmware: there is no way back to an older one',
    },
    args: COMMON_ARGS,
    run: ({ args }) =>
      using(args.device, 'read-write', async (device) => {
        await snpCommit(device);
        return done(args.json, 'The running firmware is committed.');
      }),
  });

  const vlekLoad = defineCommand({
    meta: { name: 'vlek-load', description: 'Load a wrapped VLEK hash stick; reports are signed with it' },
    args: {
      file: {
        type: 'positional',
        required: true,
        valueHint: 'FILE',
        description: `Hash stick as the key service gives it, ${WrappedVlekHashstick.size} bytes`,
      },
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const hashstick = hashstickOf(args.file);
      return using(args.device, 'read-write', async (device) => {
        await snpVlekLoad(device, hashstick);
        return done(args.json, 'The VLEK is loaded.');
      });
    },
  });

  return defineCommand({
    meta: { name: 'host', description: 'Command the secure processor of this host through /dev/sev' },
    subCommands: {
      status,
      identifier,
      config: defineCommand({
        meta: { name: 'config', description: 'Change what reports say of this host' },
        subCommands: { set: configSet, reset: configReset },
      }),
      commit,
      'vlek-load': vlekLoad,
    },
  });
}

export const hostCommand: Verb = hostVerb(processOutput);

const isShort = (id: Uint8Array): boolean => isZero(id.subarray(SHORT_HWID_SIZE)) && !isZero(id);

/**
 * How the words of this chip are laid out, by its id.
 *
 * CPUID would say of the processor this program runs on, which an emulated device need not belong to.
 */
async function tcbShape(device: DeviceFile): Promise<TcbShape> {
  try {
    const id = (await getId2(device)).subarray(0, CHIP_ID_SIZE);
    return isZero(id) ? null : isShort(id) ? 'Turin' : 'Milan';
  } catch (error) {
    // The firmware need not have the command; the words are shown undivided then.
    if (error instanceof EnvironmentError && error.code === 'DEVICE_REFUSED') {
      return null;
    }
    throw error;
  }
}

async function tcbWord(device: DeviceFile, text: string): Promise<bigint> {
  const shape = (await tcbShape(device)) ?? (text.split(',').length === 5 ? 'Turin' : 'Milan');
  return encodeTcb(parseTcbText(text, shape), shape);
}

function switchOption(name: string, text: string | undefined): 0 | 1 | null {
  if (text === undefined) {
    return null;
  }
  return choiceOption(name, text, ['on', 'off']) === 'on' ? 1 : 0;
}

function hashstickOf(path: string): Uint8Array {
  const bytes = fileOption('FILE', path, WrappedVlekHashstick.size);
  // Throws for another length and for reserved bytes that are set: a damaged file, not for the firmware.
  WrappedVlekHashstick.decode(bytes);
  if (isZero(bytes)) {
    throw new InputError('OPTION_INVALID', 'all bytes are zero', {
      where: path,
      action:
        'Fetch the hash stick again; the key service of a provider gives it (docs/reference/kds-http.md).',
    });
  }
  return bytes;
}

interface TcbDocument {
  readonly word: bigint;
  readonly components: Readonly<Record<string, number>> | null;
  readonly text: string | null;
}

function tcbDocument(word: bigint, shape: TcbShape): TcbDocument {
  if (shape === null) {
    return { word, components: null, text: null };
  }
  const parts = decodeTcb(word, shape);
  const components = Object.fromEntries(tcbComponents(shape).map((name) => [name, parts[name]]));
  return { word, components, text: formatTcb(parts, shape) };
}

type StatusDocument = ReturnType<typeof statusDocument>;

function statusDocument(status: SevUserDataSnpStatus, shape: TcbShape) {
  return {
    api: `${status.api_major}.${status.api_minor}`,
    build_id: status.build_id,
    state: ['UNINIT', 'INIT'][status.state] ?? `${status.state}`,
    guest_count: status.guest_count,
    ...status.rmp,
    ...status.features,
    current_tcb: tcbDocument(status.current_tcb, shape),
    reported_tcb: tcbDocument(status.reported_tcb, shape),
  };
}

function statusText(document: StatusDocument): string {
  const lines = Object.entries(document).map(([name, value]) => [
    name,
    typeof value === 'object' ? tcbText(value) : `${value}`,
  ]);
  return lines.map(([name, value]) => `${name!.padEnd(26)}  ${value}\n`).join('');
}

function tcbText({ word, components, text }: TcbDocument): string {
  const hex = `0x${word.toString(16).padStart(16, '0')}`;
  return components === null ? hex : `${hex}  (${Object.keys(components).join(',')} = ${text})`;
}
