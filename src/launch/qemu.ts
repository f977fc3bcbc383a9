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
  const options = readOptions(words);
  const guest = guestObject(options);
  const cpu = lastOf(options, 'cpu');
  if (cpu === null) {
    refuse('-cpu', 'is missing: QEMU would start its default CPU, which cannot run an SEV guest');
  }
  const [cpuType = '', ...cpuProperties] = splitCommas(cpu);
  const cpuProps = propertiesOf(cpuProperties);
  const kernel = lastOf(options, 'kernel');
  return {
    mode: guest.mode,
    ovmf: firmware(options),
    vcpus: vcpuCount(lastOf(options, 'smp')),
    cpuType,
    cpuFms: {
      ...numberProperty(cpuProps, 'family'),
      ...numberProperty(cpuProps, 'model'),
      ...numberProperty(cpuProps, 'stepping'),
    },
    guestFeatures: guest.features,
    kernel,
    initrd: lastOf(options, 'initrd'),
    append: lastOf(options, 'append'),
    kernelHashes: kernel !== null && guest.kernelHashes,
  };
}

interface Option {
  readonly name: string;
  readonly value: string;
}

function refuse(where: string, message: string): never {
  throw new InputError('OPTION_INVALID', message, { where: `--qemu: ${where}` });
}

/** Options that take no value, as far as people give them to confidential guests. */
const FLAGS = new Set(
  'nographic nodefaults no-reboot no-shutdown enable-kvm daemonize snapshot S s no-user-config no-acpi no-hpet full-screen usb'.split(
    ' ',
  ),
);

function readOptions(words: readonly string[]): Option[] {
  const options: Option[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith('-') || word === '-') {
      continue; // The program's name, or the disk image QEMU takes without an option.
    }
    const name = word.replace(/^--?/, '');
    if (!FLAGS.has(name)) {
      i += 1;
      options.push({ name, value: words[i] ?? '' });
    }
  }
  return options;
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

function propertiesOf(parts: readonly string[]): Properties {
  return new Map(
    parts.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, 'on'] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );
}

const isOn = (text: string | undefined): boolean =>
  text !== undefined && ['on', 'yes', 'true', 'y'].includes(text);

function numberProperty<N extends string>(props: Properties, name: N): { readonly [K in N]?: number } {
  const text = props.get(name);
  if (text === undefined) {
    return {};
  }
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 0xfff) {
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
  const objects = allOf(options, 'object').map((value) => {
    const [type = '', ...rest] = splitCommas(value);
    return { type: type.replace(/^qom-type=/, ''), props: propertiesOf(rest) };
  });
  const guests = objects.filter(({ type }) => type === 'sev-snp-guest' || type === 'sev-guest');
  const named =
    machineProperty(options, 'confidential-guest-support') ?? machineProperty(options, 'memory-encryption');
  const guest = named === null ? guests[0] : guests.find(({ props }) => props.get('id') === named);
  if (guest === undefined) {
    refuse(
      '-object',
      named === null
        ? 'has no sev-snp-guest and no sev-guest: this starts an ordinary guest'
        : `has no sev-snp-guest or sev-guest with the id ${JSON.stringify(named)} that -machine names`,
    );
  }
  const { type, props } = guest;
  const kernelHashes = isOn(props.get('kernel-hashes'));
  if (type === 'sev-guest') {
    const policy = Number(props.get('policy') ?? '1');
    return { mode: (policy & SEV_POLICY_ES) === 0 ? 'sev' : 'seves', features: 0n, kernelHashes };
  }
  let features = 1n;
  for (const [property, bit] of Object.entries(FEATURE_BITS)) {
    features |= isOn(props.get(property)) ? bit : 0n;
  }
  return { mode: 'snp', features, kernelHashes };
}

function machineProperty(options: readonly Option[], name: string): string | null {
  for (const value of [...allOf(options, 'machine'), ...allOf(options, 'M')].reverse()) {
    const found = propertiesOf(splitCommas(value)).get(name);
    if (found !== undefined) {
      return found;
    }
  }
  return null;
}

/** -bios, or the first flash drive: with a split build that is the code, the variables are not measured. */
function firmware(options: readonly Option[]): string {
  if (options.some(({ name }) => name === 'igvm-cfg') || machineProperty(options, 'igvm-cfg') !== null) {
    refuse('-machine', 'an IGVM file replaces the firmware; its measurement is not computed here');
  }
  const bios = lastOf(options, 'bios');
  if (bios !== null) {
    return bios;
  }
  const flash = machineProperty(options, 'pflash0');
  if (flash !== null) {
    return blockdevFile(options, flash);
  }
  const drives = allOf(options, 'drive')
    .map((value) => propertiesOf(splitCommas(value)))
    .filter((props) => props.get('if') === 'pflash');
  const first =
    drives.find((props) => props.get('unit') === '0') ?? drives.find((props) => !props.has('unit'));
  const file = first?.get('file') ?? lastOf(options, 'pflash');
  if (file === null || file === undefined) {
    refuse('-bios', 'is missing, and no -drive if=pflash or -machine pflash0= takes its place');
  }
  return file;
}

/** Follows a chain of -blockdev nodes down to the file. */
function blockdevFile(options: readonly Option[], node: string): string {
  const nodes = allOf(options, 'blockdev').map((value) =>
    value.startsWith('{') ? jsonProperties(value) : propertiesOf(splitCommas(value)),
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

/** libvirt writes -blockdev as JSON. */
function jsonProperties(value: string): Properties {
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch {
    parsed = null;
  }
  if (typeof parsed !== 'object' || parsed === null) {
    refuse('-blockdev', `${value.slice(0, 60)} is not JSON`);
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

/** vCPUs present at launch; maxcpus are not measured. */
function vcpuCount(smp: string | null): number {
  if (smp === null) {
    return 1;
  }
  const [first = '', ...rest] = splitCommas(smp);
  const props = propertiesOf(/^[0-9]+$/.test(first) ? [`cpus=${first}`, ...rest] : [first, ...rest]);
  const number = (name: string): number | null => {
    const text = props.get(name);
    if (text === undefined) {
      return null;
    }
    return /^[0-9]+$/.test(text) ? Number(text) : refuse('-smp', `${name}=${text} is no number`);
  };
  const topology = ['drawers', 'books', 'sockets', 'dies', 'clusters', 'modules', 'cores', 'threads'];
  const product = topology.reduce((sum, name) => sum * (number(name) ?? 1), 1);
  return number('cpus') ?? number('maxcpus') ?? product;
}

/**
 * Splits a command line as a POSIX shell does, without expanding anything.
 *
 * Errors   OPTION_INVALID for a quote that is not closed
 */
export function splitShell(text: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  let quote: '"' | "'" | null = null;
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
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
    } else {
      word = (word ?? '') + char;
    }
  }
  if (quote !== null) {
    refuse('quotes', `a ${quote} is not closed`);
  }
  return word === null ? words : [...words, word];
}
