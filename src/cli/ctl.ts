// SPDX-License-Identifier: Apache-2.0
/** softsnp ctl: asks a running host, and changes it. docs/reference/control-api.md */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { WrappedVlekHashstick } from '../abi/snp-commands.ts';
import { toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { controlEvents } from '../service/control-client.ts';
import { asking, COMMON, group, type Request } from './ctl-request.ts';
import { snapshotCommand } from './ctl-snapshot.ts';
import { findControlSocket } from './find-host.ts';
import { guestWordsOf, withAbsolutePaths } from './guest-specs.ts';
import { GUEST_ARGS } from './machine-args.ts';
import { choiceOption, fileOption } from './options.ts';
import { EXIT_OK, processOutput, type Verb } from './run.ts';

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

function tcbRequest({ set, firmware }: ParsedArgs<typeof TCB_ARGS>): Request {
  if (set !== undefined) {
    const version = firmware === undefined ? {} : { version: firmware };
    return { method: 'PUT', path: '/v1/tcb', body: { tcb: set, ...version } };
  }
  if (firmware !== undefined) {
    throw new InputError('OPTION_INVALID', 'needs --set', { where: '--firmware' });
  }
  return { method: 'GET', path: '/v1/tcb' };
}

function configRequest(args: ParsedArgs<typeof CONFIG_ARGS>): Request {
  const body = {
    reported_tcb: args['reported-tcb'],
    mask_chip_id: onOff('mask-chip-id', args['mask-chip-id']),
    mask_chip_key: onOff('mask-chip-key', args['mask-chip-key']),
  };
  if (Object.values(body).every((value) => value === undefined)) {
    throw new InputError('OPTION_INVALID', 'nothing to set', { where: 'softsnp ctl config set' });
  }
  return { method: 'PATCH', path: '/v1/config', body };
}

const onFaults = (method: string, body?: unknown): Request => ({ method, path: '/v1/faults', body });

function faultRequest({ rule, guest }: ParsedArgs<typeof FAULT_ARGS>): Request {
  return onFaults('POST', { rule, ...(guest === undefined ? {} : { guest }) });
}

/** A rule on each line, as `fault add` takes it. */
function faultsText(answer: unknown): string {
  const faults = answer as readonly { readonly rule: string; readonly guest?: string }[];
  return faults.length === 0
    ? 'no faults\n'
    : faults.map(({ rule, guest }) => `${rule}${guest === undefined ? '' : ` --guest ${guest}`}\n`).join('');
}

function guestRequest(args: Readonly<Record<string, unknown>>): Request {
  const key = args['key'] === undefined ? {} : { key: args['key'] };
  const options = { ...withAbsolutePaths(guestWordsOf(args)), ...key };
  return { method: 'POST', path: '/v1/guests', body: { name: args['name'], options } };
}

const eventsCommand: Verb = defineCommand({
  meta: { name: 'events', description: 'Print the last events, one JSON object a line' },
  args: {
    ...COMMON,
    follow: { type: 'boolean', description: 'Go on with those to come, until the host ends' },
  },
  run: async ({ args }) => {
    const socket = await findControlSocket(args);
    await controlEvents(socket, args.follow === true, (line) => processOutput.stdout(`${line}\n`));
    return EXIT_OK;
  },
});

export const ctlCommand: Verb = group('ctl', 'Ask and change a host that softsnp up runs', {
  status: asking('status', 'Chip, firmware, TCBs, key and guests', {}, () => ({
    method: 'GET',
    path: '/v1/status',
  })),
  tcb: asking('tcb', 'Show the TCBs, or install other firmware', TCB_ARGS, tcbRequest),
  commit: asking('commit', 'SNP_COMMIT: the running firmware becomes the floor', {}, () => ({
    method: 'POST',
    path: '/v1/commit',
  })),
  config: group('config', 'What reports say of the platform', {
    set: asking('set', 'SNP_SET_CONFIG; what is left out stays', CONFIG_ARGS, configRequest),
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
    add: asking('add', 'Add a fault', FAULT_ARGS, faultRequest, faultsText),
    list: asking('list', 'Show the faults in force', {}, () => onFaults('GET'), faultsText),
    clear: asking('clear', 'Remove all faults', {}, () => onFaults('DELETE'), faultsText),
  }),
  guest: group('guest', 'Guests of the host', {
    add: asking('add', 'Launch a guest', GUEST_ADD_ARGS, guestRequest),
    remove: asking(
      'remove',
      'End a guest',
      { name },
      (args) => ({ method: 'DELETE', path: `/v1/guests/${encodeURIComponent(args.name)}` }),
      (_, args) => `guest ${args.name} removed\n`,
    ),
  }),
  snapshot: snapshotCommand,
  events: eventsCommand,
});
