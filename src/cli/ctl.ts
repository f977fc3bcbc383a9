// SPDX-License-Identifier: Apache-2.0
/** softsnp ctl: asks a running host, and changes it. docs/reference/control-api.md */
import { join, resolve } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { WrappedVlekHashstick } from '../abi/snp-commands.ts';
import { toHex } from '../lib/bytes.ts';
import { controlEvents, controlRequest } from '../service/control-client.ts';
import { guestWordsOf } from './guest-specs.ts';
import { CONTROL_SOCKET, defaultStateDir } from './host-state.ts';
import { GUEST_ARGS } from './machine-args.ts';
import { choiceOption, fileOption } from './options.ts';
import { EXIT_OK, processOutput, type Verb } from './run.ts';

const COMMON = {
  state: {
    type: 'string',
    valueHint: 'DIR',
    description: 'State folder of the host ($XDG_STATE_HOME/softsnp/milan if left out)',
  },
  json: { type: 'boolean', description: 'Print the answer as JSON' },
} as const satisfies ArgsDef;

type Common = ParsedArgs<typeof COMMON>;

interface Request {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

const socketOf = ({ state }: Common): string => join(state ?? defaultStateDir('Milan'), CONTROL_SOCKET);

/** A verb that makes one request of its arguments and prints the answer. */
function asking<const A extends ArgsDef>(
  name: string,
  description: string,
  args: A,
  requestOf: (args: ParsedArgs<A & typeof COMMON>) => Request,
): Verb {
  return defineCommand({
    meta: { name, description },
    args: { ...COMMON, ...args },
    run: async ({ args: given }) => {
      const parsed = given as ParsedArgs<A & typeof COMMON>;
      const { method, path, body } = requestOf(parsed);
      const common = given as Common;
      const answer = await controlRequest(socketOf(common), method, path, body);
      processOutput.stdout(common.json === true ? `${JSON.stringify(answer)}\n` : readable(answer, ''));
      return EXIT_OK;
    },
  });
}

const group = (name: string, description: string, subCommands: Record<string, Verb>): Verb =>
  defineCommand({ meta: { name, description }, subCommands });

/** One line for each value, its path before it. */
function readable(value: unknown, path: string): string {
  if (typeof value !== 'object' || value === null) {
    return `${path}${path === '' ? '' : ' '}${value === null ? '-' : String(value)}\n`;
  }
  if (Array.isArray(value) && value.every((item) => typeof item !== 'object')) {
    return `${path} ${value.length === 0 ? '-' : value.join(' ')}\n`;
  }
  return Object.entries(value)
    .map(([name, item]) => {
      const label = Array.isArray(value) && isNamed(item) ? item.name : name;
      return readable(item, path === '' ? label : `${path}.${label}`);
    })
    .join('');
}

const isNamed = (value: unknown): value is { readonly name: string } =>
  typeof value === 'object' && value !== null && 'name' in value && typeof value.name === 'string';

const YES_NO = ['on', 'off'] as const;

const onOff = (name: string, text: string | undefined): boolean | undefined =>
  text === undefined ? undefined : choiceOption(name, text, YES_NO) === 'on';

const name = { type: 'positional', description: 'Name of the guest', required: true } as const;

const CONFIG_ARGS = {
  'reported-tcb': {
    type: 'string',
    valueHint: 'BL,TEE,SNP,UCODE',
    description: 'TCB that reports advertise, at most the committed one; on Turin FMC comes first',
  },
  'mask-chip-id': { type: 'string', valueHint: 'on|off', description: 'Reports carry no CHIP_ID' },
  'mask-chip-key': {
    type: 'string',
    valueHint: 'on|off',
    description: 'Reports are not signed with the VCEK',
  },
} as const satisfies ArgsDef;

const TCB_ARGS = {
  set: {
    type: 'string',
    valueHint: 'BL,TEE,SNP,UCODE',
    description: 'Install firmware of this TCB while the guests run; commit makes it the floor',
  },
  firmware: { type: 'string', valueHint: 'X.Y.Z', description: 'Version of that firmware, with --set' },
} as const satisfies ArgsDef;

const FAULT_ARGS = {
  rule: {
    type: 'positional',
    required: true,
    description:
      'certs=busy|missing|malformed|grow:BYTES[*TIMES] for guests; RESOURCE=FAULT[:ARGUMENT][*TIMES] for the key service',
  },
  guest: { type: 'string', valueHint: 'NAME', description: 'Spoil the certificates of this guest alone' },
} as const satisfies ArgsDef;

const GUEST_ADD_ARGS = {
  ...Object.fromEntries(
    // What is not given is as softsnp up was told.
    Object.entries(GUEST_ARGS).map(([option, { type, valueHint, description }]) => [
      option,
      { type, valueHint, description },
    ]),
  ),
  name,
  key: { type: 'string', valueHint: 'auto|vcek|vlek', description: 'Key the certificates are for' },
} as const satisfies ArgsDef;

/** Options whose values are paths, which mean the same to the host only when they are absolute. */
const PATHS = ['bios', 'kernel', 'initrd', 'id-block', 'id-auth', 'certs'];

function guestRequest(args: Readonly<Record<string, unknown>>): Request {
  const words = Object.entries(guestWordsOf(args)).map(([option, value]) => [
    option,
    PATHS.includes(option) ? resolve(value) : value,
  ]);
  const key = args['key'] === undefined ? {} : { key: args['key'] };
  const options = { ...Object.fromEntries(words), ...key };
  return { method: 'POST', path: '/v1/guests', body: { name: args['name'], options } };
}

const eventsCommand: Verb = defineCommand({
  meta: { name: 'events', description: 'Print the last events, one JSON object a line' },
  args: {
    ...COMMON,
    follow: { type: 'boolean', description: 'Go on with those to come, until the host ends' },
  },
  run: async ({ args }) => {
    await controlEvents(socketOf(args), args.follow === true, (line) => processOutput.stdout(`${line}\n`));
    return EXIT_OK;
  },
});

export const ctlCommand: Verb = group('ctl', 'Ask and change a host that softsnp up runs', {
  status: asking('status', 'Chip, firmware, TCBs, key and guests', {}, () => ({
    method: 'GET',
    path: '/v1/status',
  })),
  tcb: asking('tcb', 'Show the TCBs, or install other firmware', TCB_ARGS, ({ set, firmware }) =>
    set === undefined
      ? { method: 'GET', path: '/v1/tcb' }
      : {
          method: 'PUT',
          path: '/v1/tcb',
          body: { tcb: set, ...(firmware === undefined ? {} : { version: firmware }) },
        },
  ),
  commit: asking('commit', 'SNP_COMMIT: the running firmware becomes the floor', {}, () => ({
    method: 'POST',
    path: '/v1/commit',
  })),
  config: group('config', 'What reports say of the platform', {
    set: asking('set', 'SNP_SET_CONFIG; what is left out stays', CONFIG_ARGS, (args) => ({
      method: 'PATCH',
      path: '/v1/config',
      body: {
        reported_tcb: args['reported-tcb'],
        mask_chip_id: onOff('mask-chip-id', args['mask-chip-id']),
        mask_chip_key: onOff('mask-chip-key', args['mask-chip-key']),
      },
    })),
    reset: asking('reset', 'SNP_SET_CONFIG with zeros: the committed TCB, nothing masked', {}, () => ({
      method: 'DELETE',
      path: '/v1/config',
    })),
  }),
  vlek: group('vlek', "A cloud provider's key", {
    load: asking(
      'load',
      'SNP_VLEK_LOAD: reports are signed with the VLEK from now on',
      {
        file: {
          type: 'string',
          valueHint: 'FILE',
          description: "Wrapped hash stick (the provider's for the reported TCB if left out)",
        },
      },
      ({ file }) => ({
        method: 'PUT',
        path: '/v1/vlek',
        body:
          file === undefined ? {} : { wrapped: toHex(fileOption('file', file, WrappedVlekHashstick.size)) },
      }),
    ),
    remove: asking('remove', 'Take the VLEK away: the VCEK signs again', {}, () => ({
      method: 'DELETE',
      path: '/v1/vlek',
    })),
  }),
  fault: group('fault', 'Make certificates and the key service fail on demand', {
    add: asking('add', 'Add a fault', FAULT_ARGS, ({ rule, guest }) => ({
      method: 'POST',
      path: '/v1/faults',
      body: { rule, ...(guest === undefined ? {} : { guest }) },
    })),
    list: asking('list', 'Show the faults in force', {}, () => ({ method: 'GET', path: '/v1/faults' })),
    clear: asking('clear', 'Remove all faults', {}, () => ({ method: 'DELETE', path: '/v1/faults' })),
  }),
  guest: group('guest', 'Guests of the host', {
    add: asking('add', 'Launch a guest', GUEST_ADD_ARGS, guestRequest),
    remove: asking('remove', 'End a guest', { name }, (args) => ({
      method: 'DELETE',
      path: `/v1/guests/${encodeURIComponent(args.name)}`,
    })),
  }),
  events: eventsCommand,
});
