// SPDX-License-Identifier: Apache-2.0
/** Reads what is measured out of a QEMU command line. */
import { firmwareOf, type QemuFirmware } from './qemu-flash.ts';
import {
  allOf,
  isOn,
  keyval,
  lastOf,
  machineProperties,
  type Properties,
  propertiesOf,
  type QemuOption,
  readOptions,
  refuse,
  splitCommas,
} from './qemu-options.ts';

export interface QemuLaunch extends QemuFirmware {
  readonly mode: 'snp' | 'snp:svsm' | 'seves' | 'sev';
  readonly vcpus: number;
  /** Name of the CPU model, without its properties. */
  readonly cpuType: string;
  /** family, model and stepping where -cpu sets them. */
  readonly cpuFms: { readonly family?: number; readonly model?: number; readonly stepping?: number };
  /** State of the vCPUs: SEV-ES guests are made through an interface of KVM that leaves the FPU zero. */
  readonly vmmType: 'QEMU' | 'QEMU-before-6.10';
  /** SEV_FEATURES of the vCPUs. */
  readonly guestFeatures: bigint;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly append: string | null;
  /** Whether kernel, initrd and append are part of the measurement. */
  readonly kernelHashes: boolean;
  /** Options that no QEMU known here has: they were passed over. */
  readonly unknown: readonly string[];
  /** What was taken for granted. */
  readonly notes: readonly string[];
}

/** Properties of the guest objects that set bits of SEV_FEATURES. */
const FEATURE_BITS: Readonly<Record<string, bigint>> = { 'debug-swap': 1n << 5n, 'secure-tsc': 1n << 9n };
/** Policy bit of -object sev-guest that turns SEV into SEV-ES. */
const SEV_POLICY_ES = 4;

/**
 * Properties of the guest objects: those read here, and those known not to be measured. The last line is
 * of the forks that launched SNP guests before QEMU 9.1.
 *
 * Source   [QEMU] target/i386/sev.c, sev_common_class_init and its like; qapi/qom.json
 */
const GUEST_PROPERTIES = {
  common: ['qom-type', 'id', 'sev-device', 'cbitpos', 'reduced-phys-bits', 'kernel-hashes', 'debug-swap'],
  'sev-guest': ['policy', 'handle', 'dh-cert-file', 'session-file', 'legacy-vm-type'],
  'sev-snp-guest': [
    ...['policy', 'guest-visible-workarounds', 'id-block', 'id-auth', 'author-key-enabled', 'vcek-disabled'],
    ...['host-data', 'secure-tsc', 'tsc-frequency'],
    ...['svsm', 'init-flags', 'auth-key-enabled', 'certs-path', 'discard', 'upm-mode'],
  ],
} as const satisfies Record<string, readonly string[]>;
type GuestType = 'sev-guest' | 'sev-snp-guest';

/**
 * The launch a QEMU command line describes.
 *
 * Errors   OPTION_INVALID, naming the option that is missing or cannot be followed
 * Source   [QEMU] qemu-options.hx; docs/system/i386/amd-memory-encryption.rst
 */
export function parseQemu(commandLine: string): QemuLaunch {
  const { options, unknown } = readOptions(commandLine);
  const { kernelHashes, ...guest } = guestObject(options);
  const cpu = lastOf(options, 'cpu');
  if (cpu === null) {
    refuse('-cpu', 'is missing: QEMU would start its default CPU, which cannot run an SEV guest');
  }
  const [cpuType = '', ...cpuProperties] = splitCommas(cpu);
  const cpuProps = propertiesOf(cpuProperties);
  const machine = machineProperties(options);
  const kernel = machine.get('kernel') ?? null;
  for (const name of ['initrd', 'append']) {
    if (kernel === null && machine.has(name)) {
      refuse(`-${name}`, 'needs -kernel beside it, QEMU refuses it alone');
    }
  }
  if (guest.mode === 'snp:svsm' && kernel !== null && kernelHashes) {
    refuse('-object kernel-hashes', 'with svsm=on: what QEMU measures of a kernel then is not known here');
  }
  refuseOverrides(options);
  return {
    ...guest,
    ...firmwareOf(options, guest.mode === 'snp:svsm'),
    vcpus: vcpuCount(options),
    cpuType,
    cpuFms: {
      ...numberProperty(cpuProps, 'family'),
      ...numberProperty(cpuProps, 'model'),
      ...numberProperty(cpuProps, 'stepping'),
    },
    kernel,
    // QEMU takes an empty name of an initrd for none.
    initrd: machine.get('initrd') || null,
    append: machine.get('append') ?? null,
    kernelHashes: kernel !== null && kernelHashes,
    unknown,
  };
}

/** -set and -global change from afar what other options say. */
function refuseOverrides(options: readonly QemuOption[]): void {
  for (const value of allOf(options, 'set').filter((text) =>
    /^(drive|machine|object|smp-opts)\./.test(text),
  )) {
    refuse('-set', `${value} may change what is measured; write it where it belongs`);
  }
  for (const value of allOf(options, 'global')) {
    if (/cpu[.,].*(family|model|stepping)/.test(value)) {
      refuse('-global', `${value} changes the CPU signature; give family, model and stepping to -cpu`);
    }
    if (/sev-(snp-)?guest/.test(value)) {
      refuse('-global', `${value} may change what is measured; write it into -object`);
    }
  }
}

function numberProperty<N extends string>(props: Properties, name: N): { readonly [K in N]?: number } {
  const text = props.get(name);
  if (text === undefined) {
    return {};
  }
  const value = /^(0x[0-9a-f]+|0|[1-9][0-9]*)$/i.test(text) ? Number(text) : Number.NaN;
  if (!(value <= 0xfff)) {
    refuse(`-cpu ${name}`, `${JSON.stringify(text)} is no number`);
  }
  return { [name]: value } as { readonly [K in N]?: number };
}

type GuestObject = Pick<QemuLaunch, 'mode' | 'vmmType' | 'guestFeatures' | 'kernelHashes' | 'notes'>;

/** The -object that the machine names as its protection. */
function guestObject(options: readonly QemuOption[]): GuestObject {
  const guest = namedGuest(options);
  const type = guest.get('qom-type') as GuestType;
  const known: readonly string[] = [...GUEST_PROPERTIES.common, ...GUEST_PROPERTIES[type]];
  for (const name of guest.keys()) {
    if (name === 'igvm-file') {
      refuse('-object igvm-file', 'an IGVM file replaces the firmware; its measurement is not computed here');
    }
    if (!known.includes(name)) {
      refuse(
        `-object ${type}`,
        `has no property ${JSON.stringify(name)} known here; it may change what is measured`,
      );
    }
  }
  const on = (property: string): boolean => isOn(`-object ${property}`, guest.get(property));
  const kernelHashes = on('kernel-hashes');
  if (type === 'sev-guest') {
    return { ...sevGuest(guest, on('debug-swap')), kernelHashes };
  }
  if (numberOf(guest, 'init-flags', '0') !== 0) {
    refuse('-object init-flags', 'restricts interrupts of the guest, which SEV_FEATURES may show; give 0');
  }
  let features = 1n;
  for (const [property, bit] of Object.entries(FEATURE_BITS)) {
    features |= on(property) ? bit : 0n;
  }
  const isSvsm = on('svsm');
  if (isSvsm && features !== 1n) {
    refuse('-object svsm=on', 'with debug-swap or secure-tsc: no QEMU known here has both');
  }
  return {
    mode: isSvsm ? 'snp:svsm' : 'snp',
    vmmType: 'QEMU',
    guestFeatures: features,
    kernelHashes,
    notes: [],
  };
}

function namedGuest(options: readonly QemuOption[]): Properties {
  const guests = allOf(options, 'object')
    .map((value) => keyval('object', value, 'qom-type'))
    .filter((props) => ['sev-snp-guest', 'sev-guest'].includes(props.get('qom-type') ?? ''));
  const machine = machineProperties(options);
  const named = machine.get('confidential-guest-support') ?? machine.get('memory-encryption');
  const found = guests.filter((props) => props.get('id') === named);
  if (named === undefined && guests.length > 0) {
    const id = guests[0]!.get('id') ?? 'ID';
    refuse(
      '-machine',
      `names no object as confidential-guest-support=, so this starts an ordinary guest; is confidential-guest-support=${id} meant?`,
    );
  }
  if (found.length > 1) {
    refuse('-object', `the id ${JSON.stringify(named)} is given twice, QEMU refuses that`);
  }
  return (
    found[0] ??
    refuse(
      '-object',
      named === undefined
        ? 'has no sev-snp-guest and no sev-guest: this starts an ordinary guest'
        : `has no sev-snp-guest or sev-guest with the id ${JSON.stringify(named)} that -machine names`,
    )
  );
}

function numberOf(guest: Properties, name: string, standard: string): number {
  const text = guest.get(name) ?? standard;
  return /^(0x[0-9a-f]+|[0-9]+)$/i.test(text)
    ? Number(text)
    : refuse(`-object ${name}`, `${JSON.stringify(text)} is no number`);
}

/**
 * An SEV or SEV-ES guest.
 *
 * Source   [QEMU] target/i386/sev.c, sev_kvm_type: KVM_SEV_ES_INIT where legacy-vm-type is on, and where it
 *          is auto and no feature needs KVM_SEV_INIT2. Before 9.1 there was no other; in 9.1 off was the default
 */
function sevGuest(guest: Properties, debugSwap: boolean): Omit<GuestObject, 'kernelHashes'> {
  const isEs = (numberOf(guest, 'policy', '1') & SEV_POLICY_ES) !== 0;
  if (!isEs) {
    if (debugSwap) {
      refuse('-object debug-swap', 'needs SEV-ES (bit 2 of the policy), QEMU refuses it without');
    }
    return { mode: 'sev', vmmType: 'QEMU', guestFeatures: 0n, notes: [] };
  }
  const text = guest.get('legacy-vm-type');
  const isAuto = text === undefined || text === 'auto';
  const isLegacy = isAuto ? !debugSwap : isOn('-object legacy-vm-type', text);
  if (isLegacy && debugSwap) {
    refuse('-object legacy-vm-type', 'excludes debug-swap=on: the older interface of KVM takes no features');
  }
  return {
    mode: 'seves',
    vmmType: isLegacy ? 'QEMU-before-6.10' : 'QEMU',
    guestFeatures: debugSwap ? FEATURE_BITS['debug-swap']! : 0n,
    notes:
      text === undefined && isLegacy
        ? [
            'legacy-vm-type is not set: taken as auto, as every QEMU but 9.1 does; for QEMU 9.1 give --vmm-type QEMU',
          ]
        : [],
  };
}

const TOPOLOGY = ['drawers', 'books', 'sockets', 'dies', 'clusters', 'modules', 'cores', 'threads'];
/** Levels that QEMU computes from the number of vCPUs where they are not given; the others are 1 then. */
const COMPUTED = ['sockets', 'cores', 'threads'];

/**
 * vCPUs present at launch; maxcpus are not measured.
 *
 * Source   [QEMU] hw/core/machine-smp.c, machine_parse_smp_config
 */
function vcpuCount(options: readonly QemuOption[]): number {
  const given = machineProperties(options);
  for (const name of given.keys()) {
    if (name.startsWith('smp.') && !['cpus', 'maxcpus', ...TOPOLOGY].includes(name.slice(4))) {
      refuse('-smp', `${JSON.stringify(name.slice(4))} is no property of it`);
    }
  }
  const number = (name: string): number | null => {
    const text = given.get(`smp.${name}`);
    if (text === undefined) {
      return null;
    }
    return /^[1-9][0-9]*$/.test(text)
      ? Number(text)
      : refuse('-smp', `${name}=${text} is no number from 1 on`);
  };
  const product = TOPOLOGY.reduce((sum, name) => sum * (number(name) ?? 1), 1);
  const most = number('maxcpus') ?? number('cpus') ?? product;
  const present = number('cpus') ?? most;
  const fits = COMPUTED.some((name) => number(name) === null) ? most % product === 0 : most === product;
  if (!fits) {
    refuse('-smp', `the topology makes ${product} vCPUs and not ${most}, QEMU refuses that`);
  }
  const all = present + pluggedVcpus(options);
  if (all > most) {
    refuse('-smp', `${all} vCPUs are more than maxcpus=${most}, QEMU refuses that`);
  }
  return all;
}

/** vCPUs that -device adds: they are there at launch, and start as every other. */
function pluggedVcpus(options: readonly QemuOption[]): number {
  const cpus = allOf(options, 'device')
    .filter((value) => value.includes('-x86_64-cpu'))
    .map((value) => keyval('device', value, 'driver'))
    .filter((props) => props.get('driver')?.endsWith('-x86_64-cpu'));
  for (const props of cpus) {
    for (const name of ['family', 'model', 'stepping']) {
      if (props.has(name)) {
        refuse('-device', `${name} of one vCPU differs from that of -cpu; such guests are not measured here`);
      }
    }
  }
  return cpus.length;
}
