// SPDX-License-Identifier: Apache-2.0
/** The options that say which host a verb runs and how its guest is launched; attest, exec and up have them. */
import type { ArgsDef, ParsedArgs } from 'citty';
import { GUEST_POLICY_DEFAULT } from '../abi/guest-policy.ts';
import { VCPU_TYPES } from '../launch/vcpu-types.ts';

/** How a guest is launched. */
export const GUEST_ARGS = {
  bios: {
    type: 'string',
    valueHint: 'FILE',
    description: 'OVMF image with SEV metadata (an embedded image if left out)',
  },
  kernel: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Kernel whose hash goes into the measured hash table',
  },
  initrd: { type: 'string', valueHint: 'FILE', description: 'Initial RAM disk, with --kernel' },
  append: { type: 'string', valueHint: 'TEXT', description: 'Kernel command line, with --kernel' },
  smp: { type: 'string', valueHint: 'N', description: 'vCPUs', default: '1' },
  cpu: {
    type: 'string',
    valueHint: 'TYPE',
    description: `CPU type: ${Object.keys(VCPU_TYPES).join(', ')}`,
    default: 'EPYC-Milan-v2',
  },
  mem: { type: 'string', valueHint: 'SIZE', description: 'Guest memory', default: '4G' },
  policy: {
    type: 'string',
    valueHint: 'WORD',
    description: 'Guest policy',
    default: `0x${GUEST_POLICY_DEFAULT.toString(16)}`,
  },
  'host-data': { type: 'string', valueHint: 'HEX', description: 'Up to 32 bytes, filled with zeros' },
  'id-block': {
    type: 'string',
    valueHint: 'FILE',
    description: 'ID block (raw, hex or base64), with --id-auth',
  },
  'id-auth': {
    type: 'string',
    valueHint: 'FILE',
    description: 'ID authentication information (raw, hex or base64), with --id-block',
  },
  certs: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Certificate blob for the guest (made in the state folder if left out)',
  },
} as const satisfies ArgsDef;

/** Which host it is, and what is loaded into it. */
export const HOST_ARGS = {
  chip: {
    type: 'string',
    valueHint: 'milan|genoa|turin',
    description: 'Product line of the chip (that of the state folder; milan for a new one)',
  },
  'chip-id': {
    type: 'string',
    valueHint: 'HEX',
    description: 'CHIP_ID of a new chip (derived from its secret if left out)',
  },
  tcb: {
    type: 'string',
    valueHint: 'BL,TEE,SNP,UCODE',
    description: 'TCB of the running firmware; on Turin FMC comes first',
  },
  'report-version': {
    type: 'string',
    valueHint: '2|3|4|5',
    description: 'Version of the report the firmware makes',
  },
  key: {
    type: 'string',
    valueHint: 'vcek|vlek',
    description: "Key that signs: the chip's, or a cloud provider's",
    default: 'vcek',
  },
  seed: { type: 'string', valueHint: 'N', description: 'Take all randomness and the time from this number' },
  state: {
    type: 'string',
    valueHint: 'DIR',
    description: 'State folder: secrets, TCB, blob ($XDG_STATE_HOME/softsnp/CHIP if left out)',
  },
  verbose: {
    type: 'boolean',
    description: 'Print what the kernel, the VMM and the guest log, as it happens',
  },
} as const satisfies ArgsDef;

export const MACHINE_ARGS = { ...GUEST_ARGS, ...HOST_ARGS } as const satisfies ArgsDef;

export type GuestArgs = ParsedArgs<typeof GUEST_ARGS>;
export type MachineArgs = ParsedArgs<typeof MACHINE_ARGS>;
