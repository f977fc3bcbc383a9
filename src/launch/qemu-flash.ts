// SPDX-License-Identifier: Apache-2.0
/** Finds the guest firmware that a QEMU command line loads. */
import {
  allOf,
  keyval,
  machineProperties,
  type Properties,
  type QemuOption,
  refuse,
} from './qemu-options.ts';

export interface QemuFirmware {
  /** Path of the firmware image: with a split build that is the code, the variables are not measured. */
  readonly ovmf: string;
  /** Flat SVSM image and the variables above it; null without svsm=on. */
  readonly svsm: { readonly image: string; readonly vars: string } | null;
}

/**
 * The firmware, from -bios or the first flash drive.
 *
 * Errors   OPTION_INVALID where there is none, where QEMU would refuse the drives, and where a drive holds
 *          something else than the bytes of its file
 * Source   [QEMU] hw/i386/pc_sysfw.c, pc_system_firmware_init; coconut-svsm/svsm docs/installation/INSTALL.md
 */
export function firmwareOf(options: readonly QemuOption[], isSvsm: boolean): QemuFirmware {
  const machine = machineProperties(options);
  if (machine.has('igvm-cfg')) {
    refuse('-machine', 'an IGVM file replaces the firmware; its measurement is not computed here');
  }
  const bios = machine.get('firmware');
  const flash = flashFiles(options, machine);
  const code = flash.get(0);
  if (bios !== undefined && flash.size > 0) {
    refuse('-bios', 'stands beside a flash drive, and QEMU loads one of them only; leave the other out');
  }
  const ovmf =
    bios ??
    code ??
    refuse('-bios', 'is missing, and no -drive if=pflash or -machine pflash0= takes its place');
  if (!isSvsm) {
    const more = [...flash.keys()].find((unit) => unit > 1);
    if (more !== undefined) {
      refuse(`-drive unit=${more}`, 'is no flash of a PC without svsm=on, QEMU refuses it');
    }
    return { ovmf, svsm: null };
  }
  const [vars, image] = [flash.get(1), flash.get(2)];
  if (vars === undefined || image === undefined || flash.size > 3) {
    refuse(
      '-object svsm=on',
      'goes with three flash drives: the firmware (unit=0), its variables (unit=1) and the SVSM (unit=2)',
    );
  }
  return { ovmf, svsm: { image, vars } };
}

/** Files of the flash drives by unit; a drive without a unit takes the first that is free, in order. */
function flashFiles(options: readonly QemuOption[], machine: Properties): Map<number, string> {
  const files = new Map<number, string>();
  const put = (where: string, unit: number, file: string): void => {
    if (files.has(unit)) {
      refuse(where, `flash unit ${unit} is given twice, QEMU refuses that`);
    }
    files.set(unit, file);
  };
  for (const { name, value } of options) {
    const drive = name === 'drive' ? keyval(name, value, null) : null;
    if (name !== 'pflash' && drive?.get('if') !== 'pflash') {
      continue;
    }
    let free = 0;
    while (files.has(free)) {
      free += 1;
    }
    const text = drive?.get('unit') ?? drive?.get('index') ?? String(free);
    if (!/^[0-9]$/.test(text)) {
      refuse('-drive if=pflash', `${JSON.stringify(text)} is no unit of the flash`);
    }
    put(`-${name} ${value}`, Number(text), drive === null ? value : fileOf(`-drive ${value}`, drive));
  }
  for (const unit of [0, 1]) {
    const node = machine.get(`pflash${unit}`);
    if (node !== undefined) {
      put(`-machine pflash${unit}=${node}`, unit, blockFile(options, node));
    }
  }
  return files;
}

/** Drivers that pass the bytes of the file through as they are. */
const RAW = ['raw', 'file', 'host_device'];

function refuseFormat(where: string, props: Properties): void {
  for (const name of ['format', 'driver', 'file.driver']) {
    const format = props.get(name);
    if (format !== undefined && !RAW.includes(format)) {
      refuse(
        where,
        `holds the firmware as ${format}, and what that unpacks to is not read here; convert it to raw`,
      );
    }
  }
  for (const name of ['offset', 'size']) {
    if (props.has(name)) {
      refuse(where, `takes a part of the file (${name}=): cut that part out`);
    }
  }
}

function fileOf(where: string, props: Properties): string {
  refuseFormat(where, props);
  const file = props.get('file') ?? props.get('file.filename') ?? props.get('filename');
  return file?.replace(/^file:/, '') ?? refuse(where, 'names no file');
}

/** Follows a chain of -blockdev nodes down to the file, or takes that of the -drive with this id. */
function blockFile(options: readonly QemuOption[], node: string): string {
  const drive = allOf(options, 'drive')
    .map((value) => keyval('drive', value, null))
    .find((props) => props.get('id') === node);
  if (drive !== undefined) {
    return fileOf(`-drive id=${node}`, drive);
  }
  const nodes = allOf(options, 'blockdev').map((value) => keyval('blockdev', value, null));
  let wanted = node;
  for (let depth = 0; depth <= nodes.length; depth++) {
    const found = nodes.find((props) => props.get('node-name') === wanted);
    if (found !== undefined) {
      refuseFormat(`-blockdev node-name=${wanted}`, found);
    }
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
