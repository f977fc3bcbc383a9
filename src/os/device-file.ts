// SPDX-License-Identifier: Apache-2.0
/** A device node opened by its path: real or emulated, the calls are the same. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { addressOf, ioctlOnPool, requireFfi } from './libc.ts';

/** Memory that does not move, so that structures can point at it. */
export interface PinnedMemory {
  readonly bytes: Uint8Array;
  readonly address: bigint;
}

export interface DeviceFile {
  /** A copy of the bytes at an address that holds until the device is closed. */
  pin(content: Uint8Array): PinnedMemory;
  /** ioctl(2): its result, or -errno. The structure is read and written in place. */
  ioctl(request: number, argument: PinnedMemory): Promise<number>;
  close(): Promise<void>;
}

export type OpenDevice = (path: string, access: 'read' | 'read-write') => Promise<DeviceFile>;

/**
 * Opens a device.
 *
 * Opening and every call run on a pool thread, so that this process may itself be serving the device.
 *
 * Errors   DEVICE_UNAVAILABLE with the errno, FFI_UNAVAILABLE
 */
export const openDevice: OpenDevice = async (path, access) => {
  requireFfi('ioctl clients');
  let file: FileHandle;
  try {
    file = await open(path, access === 'read' ? constants.O_RDONLY : constants.O_RDWR);
  } catch (cause) {
    throw new EnvironmentError('DEVICE_UNAVAILABLE', `cannot be opened: ${errnoCode(cause)}`, {
      where: path,
      cause,
    });
  }
  // What the kernel is given addresses of must outlive the calls, whoever else refers to it.
  const pinned: PinnedMemory[] = [];
  return {
    pin(content) {
      const bytes = new Uint8Array(new ArrayBuffer(content.length));
      bytes.set(content);
      const memory = { bytes, address: addressOf(bytes) };
      pinned.push(memory);
      return memory;
    },
    ioctl: (request, argument) => ioctlOnPool(file.fd, request, argument.bytes),
    async close() {
      await file.close();
      pinned.length = 0;
    },
  };
};
