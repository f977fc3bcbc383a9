// SPDX-License-Identifier: Apache-2.0
/** Reads what is measured out of a QEMU command line. */
import { InputError } from '../lib/errors.ts';

export interface QemuLaunch {
  readonly mode: 'snp' | 'seves' | 'sev';
  /** Path of the firmware image. */
  readonly ovmf: string;
  readonly vcpus: number;
  /** Name of the CPU model, without its properties. */
  readonly cpuType: string;
  /** family, model and stepping where -cpu sets them. */
  readonly cpuFms: { readonly family?: number; readonly model?: number; readonly stepping?: number };
  readonly guestFeatures: bigint;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly append: string | null;
  /** Whether kernel, initrd and append are part of the measurement. */
  readonly kernelHashes: boolean;
  /** Options that no QEMU known here has: they were passed over. */
  readonly unknown: readonly string[];
}

/** Properties of -object sev-snp-guest that set bits of SEV_FEATURES. */
const FEATURE_BITS: Readonly<Record<string, bigint>> = { 'debug-swap': 1n << 5n, 'secure-tsc': 1n << 9n };
/** Policy bit of -object sev-guest that turns SEV into SEV-ES. */
const SEV_POLICY_ES = 4;

/**
 * The launch a QEMU command line describes.
 *
 * Errors   OPTION_INVALID, naming the option that is missing or cannot be followed
 * Source   [QEMU] qemu-options.hx; docs/system/i386/amd-memory-encryption.rst
 */
export function parseQemu(commandLine: string): QemuLaunch {
  const words = splitShell(commandLine);
  const { options, unknown } = readOptions(words);
  const guest = guestObject(options);
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
  refuseOverrides(options);
  return {
    mode: guest.mode,
    ovmf: firmware(options),
    vcpus: vcpuCount(options),
    cpuType,
    cpuFms: {
      ...numberProperty(cpuProps, 'family'),
      ...numberProperty(cpuProps, 'model'),
      ...numberProperty(cpuProps, 'stepping'),
    },
    guestFeatures: guest.features,
    kernel,
    initrd: machine.get('initrd') ?? null,
    append: machine.get('append') ?? null,
    kernelHashes: kernel !== null && guest.kernelHashes,
    unknown,
  };
}

/** -set and -global change from afar what other options say. */
function refuseOverrides(options: readonly Option[]): void {
  for (const value of allOf(options, 'set').filter((text) =>
    /^(drive|machine|object|smp-opts)\./.test(text),
  )) {
    refuse('-set', `${value} may change what is measured; write it where it belongs`);
  }
  for (const value of allOf(options, 'global')) {
    if (/cpu[.,].*(family|model|stepping)/.test(value)) {
      refuse('-global', `${value} changes the CPU signature; give family, model and stepping to -cpu`);
    }
  }
}

interface Option {
  readonly name: string;
  readonly value: string;
}

function refuse(where: string, message: string): never {
  throw new InputError('OPTION_INVALID', message, { where: `--qemu: ${where}` });
}

/**
 * Options without a value, of QEMU 2.12 (the first with -object sev-guest) to 10.
 *
 * Source   [QEMU] qemu-options.hx, DEF(name, 0, ...)
 */
const FLAGS = new Set(
  [
    'S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-kvm enable-sync-profile',
    'full-screen h help jitdump localtime mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm no-quit',
    'no-reboot no-shutdown no-user-config nodefaults nodefconfig nographic old-param only-migratable perfmap',
    'portrait preconfig s sdl semihosting show-cursor singlestep snapshot usb version win2k-hack xen-attach',
    'xen-create xen-domid-restrict',
  ].flatMap((line) => line.split(' ')),
);
/**
 * Options with a value: the next word, whatever it begins with.
 *
 * Source   [QEMU] qemu-options.hx, DEF(name, HAS_ARG, ...)
 */
const VALUED = new Set(
  [
    'D L M accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bt cdrom chardev chroot',
    'compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda',
    'hdachs hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock',
    'name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty',
    'qtest qtest-log readconfig realtime rotate rtc run-with runas sandbox sd seed semihosting-config serial set',
    'shim smbios smp soundhw spice tb-size tpmdev trace usbdevice uuid vga virtfs virtioconsole vnc watchdog',
    'watchdog-action writeconfig xen-domid',
  ].flatMap((line) => line.split(' ')),
);
/** Options whose effect on the measurement is not to be seen on the command line. */
const OPAQUE: Readonly<Record<string, string>> = {
  readconfig: 'the file may hold any option; write them on the command line',
  shim: 'a shim is not computed here',
};

function readOptions(words: readonly string[]): { options: Option[]; unknown: string[] } {
  const options: Option[] = [];
  const unknown: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith('-') || word === '-') {
      continue; // The program's name, or the disk image QEMU takes without an option.
    }
    const name = word.replace(/^--?/, '');
    if (OPAQUE[name] !== undefined) {
      refuse(`-${name}`, OPAQUE[name]);
    }
    if (FLAGS.has(name)) {
      continue;
    }
    if (VALUED.has(name)) {
      options.push({ name, value: words[i + 1] ?? refuse(`-${name}`, 'needs a value') });
      i += 1;
    } else {
      // Of an option of another QEMU the value is left where it stands, a word like the disk image.
      unknown.push(word);
    }
  }
  return { options, unknown };
}

const allOf = (options: readonly Option[], name: string): string[] =>
  options.filter((option) => option.name === name).map(({ value }) => value);
const lastOf = (options: readonly Option[], name: string): string | null =>
  allOf(options, name).at(-1) ?? null;

type Properties = ReadonlyMap<string, string>;

/** "a,b=c,,d" -> ["a", "b=c,d"]: QEMU writes a comma inside a value twice. */
function splitCommas(value: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < value.length; i++) {
    if (value[i] !== ',') {
      part += value[i];
    } else if (value[i + 1] === ',') {
      part += ',';
      i += 1;
    } else {
      parts.push(part);
      part = '';
    }
  }
  return [...parts, part];
}

/** Comma-separated properties, of which the first may go without its name. */
function keyval(value: string, implied: string): Properties {
  const [first = '', ...rest] = splitCommas(value);
  return propertiesOf([first.includes('=') ? first : `${implied}=${first}`, ...rest]);
}

function propertiesOf(parts: readonly string[]): Properties {
  return new Map(
    parts.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, 'on'] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );
}

function isOn(where: string, text: string | undefined): boolean {
  if (text === undefined || ['off', 'no', 'false', 'n'].includes(text)) {
    return false;
  }
  return (
    ['on', 'yes', 'true', 'y'].includes(text) || refuse(where, `${JSON.stringify(text)} is not on or off`)
  );
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

interface GuestObject {
  readonly mode: QemuLaunch['mode'];
  readonly features: bigint;
  readonly kernelHashes: boolean;
}

/** The -object that the machine names as its protection. */
function guestObject(options: readonly Option[]): GuestObject {
  const guests = allOf(options, 'object')
    .map((value) => (value.startsWith('{') ? jsonProperties('-object', value) : keyval(value, 'qom-type')))
    .filter((props) => ['sev-snp-guest', 'sev-guest'].includes(props.get('qom-type') ?? ''));
  const machine = machineProperties(options);
  const named = machine.get('confidential-guest-support') ?? machine.get('memory-encryption');
  const guest = named === undefined ? guests[0] : guests.find((props) => props.get('id') === named);
  if (guest === undefined) {
    refuse(
      '-object',
      named === undefined
        ? 'has no sev-snp-guest and no sev-guest: this starts an ordinary guest'
        : `has no sev-snp-guest or sev-guest with the id ${JSON.stringify(named)} that -machine names`,
    );
  }
  const on = (property: string): boolean => isOn(`-object ${property}`, guest.get(property));
  const kernelHashes = on('kernel-hashes');
  if (guest.get('qom-type') === 'sev-guest') {
    const text = guest.get('policy') ?? '1';
    const policy = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text)
      ? Number(text)
      : refuse('-object policy', `${JSON.stringify(text)} is no number`);
    return { mode: (policy & SEV_POLICY_ES) === 0 ? 'sev' : 'seves', features: 0n, kernelHashes };
  }
  let features = 1n;
  for (const [property, bit] of Object.entries(FEATURE_BITS)) {
    features |= on(property) ? bit : 0n;
  }
  return { mode: 'snp', features, kernelHashes };
}

/**
 * Properties of the machine, the later ones winning; -smp, -bios, -kernel and their like are short for some.
 *
 * Source   [QEMU] system/vl.c, qemu_apply_legacy_machine_options and machine_parse_property_opt
 */
function machineProperties(options: readonly Option[]): Properties {
  const all = new Map<string, string>();
  for (const { name, value } of options) {
    const short = SHORT_FOR_MACHINE[name];
    if (name === 'machine' || name === 'M') {
      for (const [property, text] of keyval(value, 'type')) {
        all.set(property, text);
      }
    } else if (name === 'smp') {
      for (const [property, text] of keyval(value, 'cpus')) {
        all.set(`smp.${property}`, text);
      }
    } else if (short !== undefined) {
      all.set(short, value);
    }
  }
  return all;
}

const SHORT_FOR_MACHINE: Readonly<Record<string, string>> = {
  bios: 'firmware',
  kernel: 'kernel',
  initrd: 'initrd',
  append: 'append',
};

/** -bios, or the first flash drive: with a split build that is the code, the variables are not measured. */
function firmware(options: readonly Option[]): string {
  const machine = machineProperties(options);
  if (machine.has('igvm-cfg')) {
    refuse('-machine', 'an IGVM file replaces the firmware; its measurement is not computed here');
  }
  const bios = machine.get('firmware');
  if (bios !== undefined) {
    return bios;
  }
  const flash = machine.get('pflash0');
  if (flash !== undefined) {
    return blockdevFile(options, flash);
  }
  const drives = allOf(options, 'drive')
    .map((value) => propertiesOf(splitCommas(value)))
    .filter((props) => props.get('if') === 'pflash');
  const unit = (props: Properties): string | undefined => props.get('unit') ?? props.get('index');
  const first =
    drives.find((props) => unit(props) === '0') ?? drives.find((props) => unit(props) === undefined);
  const file = first?.get('file') ?? lastOf(options, 'pflash');
  if (file === null || file === undefined) {
    refuse('-bios', 'is missing, and no -drive if=pflash or -machine pflash0= takes its place');
  }
  return file;
}

/** Follows a chain of -blockdev nodes down to the file. */
function blockdevFile(options: readonly Option[], node: string): string {
  const nodes = allOf(options, 'blockdev').map((value) =>
    value.startsWith('{') ? jsonProperties('-blockdev', value) : propertiesOf(splitCommas(value)),
  );
  let wanted = node;
  for (let depth = 0; depth <= nodes.length; depth++) {
    const found = nodes.find((props) => props.get('node-name') === wanted);
    const file = found?.get('filename') ?? found?.get('file.filename');
    if (file !== undefined) {
      return file;
    }
    const below = found?.get('file');
    if (below === undefined) {
      break;
    }
    wanted = below;
  }
  return refuse('-blockdev', `no file stands behind the node ${JSON.stringify(node)}`);
}

/** libvirt writes -blockdev and -object as JSON. */
function jsonProperties(where: string, value: string): Properties {
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch {
    parsed = null;
  }
  if (typeof parsed !== 'object' || parsed === null) {
    refuse(where, `${value.slice(0, 60)} is not JSON`);
  }
  const flat: [string, string][] = [];
  for (const [name, entry] of Object.entries(parsed)) {
    if (typeof entry === 'object' && entry !== null) {
      for (const [inner, text] of Object.entries(entry)) {
        flat.push([`${name}.${inner}`, String(text)]);
      }
    } else {
      flat.push([name, String(entry)]);
    }
  }
  return new Map(flat);
}

const TOPOLOGY = ['drawers', 'books', 'sockets', 'dies', 'clusters', 'modules', 'cores', 'threads'];

/** vCPUs present at launch; maxcpus are not measured. */
function vcpuCount(options: readonly Option[]): number {
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
  return number('cpus') ?? number('maxcpus') ?? product;
}

/** What a shell replaces before QEMU sees it. */
const EXPANDED = /^(\$[A-Za-z_0-9({@*#?$!-]|`)/;
/** What ends a word and begins something else. */
const OPERATORS = ';|&<>()';

/**
 * Splits a command line as a POSIX shell does, without expanding anything.
 *
 * Errors   OPTION_INVALID for a quote that is not closed, and for what only a shell can evaluate
 */
export function splitShell(text: string, where = '--qemu'): string[] {
  const fail = (message: string): never => {
    throw new InputError('OPTION_INVALID', message, { where });
  };
  const words: string[] = [];
  let word: string | null = null;
  let quote: '"' | "'" | null = null;
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    const two = text.slice(i, i + 2);
    if (quote !== "'" && (EXPANDED.test(two) || (quote === null && (two === "$'" || two === '$"')))) {
      fail(
        `${JSON.stringify(text.slice(i, i + 20))} is for a shell to evaluate: write what it stands for, or quote it with '`,
      );
    }
    if (quote === "'") {
      if (char === "'") {
        quote = null;
      } else {
        word += char;
      }
    } else if (char === '\\') {
      const next = text[i + 1] ?? '';
      if (quote === '"' && !'"\\$`\n'.includes(next)) {
        word = `${word ?? ''}\\`;
        continue;
      }
      i += 1;
      word = next === '\n' ? word : (word ?? '') + next;
    } else if (quote === '"') {
      if (char === '"') {
        quote = null;
      } else {
        word += char;
      }
    } else if (char === '"' || char === "'") {
      quote = char;
      word ??= '';
    } else if (/\s/.test(char)) {
      if (word !== null) {
        words.push(word);
      }
      word = null;
    } else if (OPERATORS.includes(char)) {
      fail(`${JSON.stringify(char)} is the shell’s: give one command alone, or quote it with '`);
    } else if (char === '#' && word === null) {
      const end = text.indexOf('\n', i);
      i = end < 0 ? text.length : end;
    } else {
      word = (word ?? '') + char;
    }
  }
  if (quote !== null) {
    fail(`a ${quote} is not closed`);
  }
  return word === null ? words : [...words, word];
}
