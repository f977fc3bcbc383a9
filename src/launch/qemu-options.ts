// SPDX-License-Identifier: Apache-2.0
/** Takes a QEMU command line apart into options and their properties, and refuses one that quotes fell out of. */
import { InputError } from '../lib/errors.ts';
import { nearestName } from '../lib/nearest.ts';
import { type ShellWord, shellWords } from './shell-words.ts';

export interface QemuOption {
  readonly name: string;
  readonly value: string;
}

export function refuse(where: string, message: string): never {
  throw new InputError('OPTION_INVALID', message, { where: `--qemu: ${where}` });
}

const names = (...lines: readonly string[]): Set<string> => new Set(lines.flatMap((line) => line.split(' ')));

/**
 * Options without a value, of QEMU 2.12 (the first with -object sev-guest) to 10.
 *
 * Source   [QEMU] qemu-options.hx, DEF(name, 0, ...)
 */
const FLAGS = names(
  'S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-kvm enable-sync-profile',
  'full-screen h help jitdump localtime mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm no-quit',
  'no-reboot no-shutdown no-user-config nodefaults nodefconfig nographic old-param only-migratable perfmap',
  'portrait preconfig s sdl semihosting show-cursor singlestep snapshot usb version win2k-hack xen-attach',
  'xen-create xen-domid-restrict',
);
/**
 * Options with a value: the next word, whatever it begins with.
 *
 * Source   [QEMU] qemu-options.hx, DEF(name, HAS_ARG, ...)
 */
const VALUED = names(
  'D L M accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bt cdrom chardev chroot',
  'compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda',
  'hdachs hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock',
  'name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty',
  'qtest qtest-log readconfig realtime rotate rtc run-with runas sandbox sd seed semihosting-config serial set',
  'shim smbios smp soundhw spice tb-size tpmdev trace usbdevice uuid vga virtfs virtioconsole vnc watchdog',
  'watchdog-action writeconfig xen-domid',
);
/** Options whose effect on the measurement is not to be seen on the command line. */
const OPAQUE: Readonly<Record<string, string>> = {
  readconfig: 'the file may hold any option; write them on the command line',
  shim: 'a shim is not computed here',
};
/** Options whose whole value is measured, or names a file that is. */
const WHOLE = names('append kernel initrd bios pflash');
/** Options with measured properties. */
const PROPERTIES = names('machine M object smp cpu drive blockdev device global set');
/** Of all these the names that nobody comes upon by chance. */
const MEASURED = [...WHOLE, ...PROPERTIES].filter(({ length }) => length > 2);

const isOption = (word: string): boolean => word.startsWith('-') && word !== '-';
const nameOf = (word: string): string => word.replace(/^--?/, '');
const isKnown = (name: string): boolean => FLAGS.has(name) || VALUED.has(name) || OPAQUE[name] !== undefined;

/**
 * Dashes, quotes and spaces that word processors and web pages put in place of those of ASCII, and the
 * character that stands for bytes which are no UTF-8.
 */
const LOOKALIKE =
  /[\u00a0\u00b4\u1680\u2000-\u200b\u2010-\u201f\u202f\u2032-\u2037\u205f\u2212\u3000\ufe58\ufe63\ufeff\uff02\uff07\uff0d]/u;

/**
 * The options of a command line, in their order.
 *
 * Returns  unknown: the options that no QEMU known here has
 * Errors   OPTION_INVALID where words stand that QEMU would not take, or would take for something else than
 *          they were: the quotes of a value are lost where a list of processes is printed
 * Source   [QEMU] system/vl.c, qemu_init: one word without an option is the disk image
 */
export function readOptions(commandLine: string): { options: QemuOption[]; unknown: string[] } {
  refuseLookalikes(commandLine);
  const words = shellWords(commandLine);
  if (words.length === 1 && !isOption(words[0]!.text)) {
    const [{ text }] = words as [ShellWord];
    refuse(text, `is one word, no command line; if it names a file, give its text: --qemu "$(cat ${text})"`);
  }
  const options: QemuOption[] = [];
  const unknown: string[] = [];
  const bare: string[] = [];
  let last: QemuOption | 'unknown' | null = null;
  for (let i = argumentsBegin(words); i < words.length; i++) {
    const word = words[i]!.text;
    if (!isOption(word)) {
      if (last !== 'unknown') {
        refuseContinuation(last, word);
        bare.push(word);
      }
      last = null;
      if (bare.length > 1) {
        refuse(
          bare.map((text) => JSON.stringify(text)).join(' and '),
          'belong to no option; QEMU takes one such word, as a disk image, so the quotes of a value were lost',
        );
      }
      continue;
    }
    const name = nameOf(word);
    if (OPAQUE[name] !== undefined) {
      refuse(`-${name}`, OPAQUE[name]);
    }
    if (VALUED.has(name)) {
      last = { name, value: nextWord(name, words[i + 1]) };
      options.push(last);
      i += 1;
    } else if (FLAGS.has(name)) {
      last = null;
    } else {
      refuseSlip(word);
      if (last !== null && last !== 'unknown' && last.name === 'append') {
        refuse(
          `-${last.name} ${last.value}`,
          `is followed by ${word}, which is no option of QEMU: quote the value if that belongs to it, put the option elsewhere if not`,
        );
      }
      // Of an option of another QEMU the value is left where it stands, a word like the disk image.
      unknown.push(word);
      last = 'unknown';
    }
  }
  return { options, unknown };
}

function refuseLookalikes(commandLine: string): void {
  if (commandLine.includes('\ufffd')) {
    refuse('U+FFFD', 'stands for bytes that are no UTF-8, and which they were cannot be known');
  }
  const found = LOOKALIKE.exec(commandLine);
  if (found !== null) {
    const code = found[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
    const around = commandLine.slice(Math.max(0, found.index - 10), found.index + 10);
    refuse(
      JSON.stringify(around),
      `has U+${code}, which is no dash, quote or space of ASCII: retype what it stands for`,
    );
  }
}

/** Behind the program: words before it belong to sudo, taskset and their like, or set variables. */
function argumentsBegin(words: readonly ShellWord[]): number {
  for (const [i, { text }] of words.entries()) {
    if (/(^|\/)(qemu|kvm)[^/=]*$/.test(text)) {
      return i + 1;
    }
    if (isOption(text) && VALUED.has(nameOf(text))) {
      break;
    }
  }
  const first = words.findIndex(({ text }) => !/^[A-Za-z_]\w*=/.test(text));
  return first >= 0 && !isOption(words[first]!.text) ? first + 1 : 0;
}

function nextWord(name: string, word: ShellWord | undefined): string {
  if (word === undefined) {
    refuse(`-${name}`, 'needs a value');
  }
  if (!word.isQuoted && isOption(word.text) && isKnown(nameOf(word.text))) {
    refuse(
      `-${name}`,
      `would take ${word.text} as its value; an empty value is written '', and one that is meant so is quoted`,
    );
  }
  return word.text;
}

/** A word behind a complete option is the disk image, unless it looks like the rest of a value. */
function refuseContinuation(option: QemuOption | null, word: string): void {
  if (option === null) {
    return;
  }
  const { name, value } = option;
  const looksCut = value.endsWith(',') || /^,|^[A-Za-z][\w.-]*=/.test(word);
  if (WHOLE.has(name) || looksCut || (PROPERTIES.has(name) && !/[./]/.test(word))) {
    refuse(
      `-${name} ${value}`,
      `is followed by ${JSON.stringify(word)}, which would be a disk image: quote the value if that belongs to it, give the image to -drive if not`,
    );
  }
}

/** What is measured must not be missed for a slip of the pen. */
function refuseSlip(word: string): void {
  const name = nameOf(word).toLowerCase();
  if (!/^[a-z0-9]/.test(name)) {
    refuse(word, 'is no option of QEMU');
  }
  const [before = '', inline] = name.split(/=(.*)/s);
  if (inline !== undefined && isKnown(before)) {
    refuse(word, `QEMU takes no "=" there: the value of -${before} is the next word`);
  }
  const meant = nearestName(before, MEASURED, 1);
  if (meant !== null) {
    refuse(word, `is no option of QEMU; is -${meant} meant?`);
  }
}

export const allOf = (options: readonly QemuOption[], name: string): string[] =>
  options.filter((option) => option.name === name).map(({ value }) => value);
export const lastOf = (options: readonly QemuOption[], name: string): string | null =>
  allOf(options, name).at(-1) ?? null;

export type Properties = ReadonlyMap<string, string>;

/** "a,b=c,,d" -> ["a", "b=c,d"]: QEMU writes a comma inside a value twice. */
export function splitCommas(value: string): string[] {
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

/** Comma-separated properties, of which the first may go without its name; or JSON, as libvirt writes it. */
export function keyval(option: string, value: string, implied: string | null): Properties {
  if (value.startsWith('{')) {
    return jsonProperties(`-${option}`, value);
  }
  const [first = '', ...rest] = splitCommas(value);
  return propertiesOf([implied === null || first.includes('=') ? first : `${implied}=${first}`, ...rest]);
}

export function propertiesOf(parts: readonly string[]): Properties {
  return new Map(
    parts.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, 'on'] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );
}

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

export function isOn(where: string, text: string | undefined): boolean {
  if (text === undefined || ['off', 'no', 'false', 'n'].includes(text)) {
    return false;
  }
  return (
    ['on', 'yes', 'true', 'y'].includes(text) || refuse(where, `${JSON.stringify(text)} is not on or off`)
  );
}

/**
 * Properties of the machine, the later ones winning; -smp, -bios, -kernel and their like are short for some.
 *
 * Source   [QEMU] system/vl.c, qemu_apply_legacy_machine_options and machine_parse_property_opt
 */
export function machineProperties(options: readonly QemuOption[]): Properties {
  const all = new Map<string, string>();
  for (const { name, value } of options) {
    const short = SHORT_FOR_MACHINE[name];
    if (name === 'machine' || name === 'M') {
      for (const [property, text] of keyval(name, value, 'type')) {
        all.set(property, text);
      }
    } else if (name === 'smp') {
      for (const [property, text] of keyval(name, value, 'cpus')) {
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
