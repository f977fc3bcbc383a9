// SPDX-License-Identifier: Apache-2.0
/** /dev/sev-guest and what else programs look for in an SNP guest, as files. */
import { SnpGuestRequestIoctl } from '../../abi/dev-sev-guest.ts';
import { utf8 } from '../../lib/bytes.ts';
import {
  type FileHandle,
  type FileNode,
  type FsNode,
  fixedDirectory,
  type IoctlAnswer,
  type IoctlRequest,
  isRefusal,
  renderedFile,
} from '../fuse/filesystem.ts';
import { type SevGuestDriver, sevGuestIoctl } from './device.ts';

/** The device node: any open succeeds, and it has ioctls only. */
export function sevGuestFile(driver: SevGuestDriver): FileNode {
  const handle: FileHandle = { ioctl: (request) => ioctl(driver, request) };
  return { kind: 'file', mode: 0o600, open: () => handle };
}

/**
 * The kernel moves as many bytes as the ioctl number says, which for an unknown number need not be the 32
 * the driver moves whatever the number is. Then they are read and written at the argument itself.
 */
async function ioctl(driver: SevGuestDriver, request: IoctlRequest): Promise<IoctlAnswer> {
  const { cmd, arg, input, outputSize, memory } = request;
  const { size } = SnpGuestRequestIoctl;
  const argument = input.length >= size ? input.subarray(0, size) : memory.read(arg, size);
  if (isRefusal(argument)) {
    return { result: -argument.errno };
  }
  const { ret, argument: written } = await sevGuestIoctl(driver, memory, cmd, argument);
  if (written === null) {
    return { result: ret };
  }
  if (outputSize >= size) {
    return { result: ret, output: written };
  }
  const fault = memory.write(arg, written);
  return { result: fault === null ? ret : -fault.errno };
}

export interface SevGuestPlacesOptions {
  readonly driver: SevGuestDriver;
  /** Module parameter as it was given; -1: the key of the VMPL the kernel runs at. */
  readonly vmpckId?: number;
  /** VMPL the guest's kernel runs at. */
  readonly vmpl?: number;
}

/** What an SNP guest has, by absolute path. */
export function sevGuestPlaces(options: SevGuestPlacesOptions): Readonly<Record<string, FsNode>> {
  const { driver, vmpckId = -1, vmpl = 0 } = options;
  const text = (content: string): FileNode => renderedFile(() => utf8(content));
  return {
    '/dev/sev-guest': sevGuestFile(driver),
    '/sys/devices/platform/sev-guest': fixedDirectory({
      modalias: text('platform:sev-guest\n'),
      uevent: text('DRIVER=sev-guest\nMODALIAS=platform:sev-guest\n'),
    }),
    '/sys/module/sev_guest': fixedDirectory({
      parameters: fixedDirectory({ vmpck_id: text(`${vmpckId}\n`) }),
    }),
    '/sys/devices/system/cpu/sev': fixedDirectory({ vmpl: text(`${vmpl}\n`) }),
  };
}
