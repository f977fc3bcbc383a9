// SPDX-License-Identifier: Apache-2.0
/** /dev/kvm as a file. */
import { KvmIoctl } from '../../abi/kvm.ts';
import { KvmDeviceAttr } from '../../abi/kvm-structs.ts';
import type { FileNode, FsNode } from '../fuse/filesystem.ts';
import type { KvmDevice } from './device.ts';

/** The device node. An open file goes on with whichever machine is `current`. */
export function kvmFile(current: () => KvmDevice): FileNode {
  return {
    kind: 'file',
    mode: 0o666,
    open: () => ({
      ioctl: ({ cmd, arg, input, memory }) => {
        const isAttr = cmd === KvmIoctl.KVM_HAS_DEVICE_ATTR || cmd === KvmIoctl.KVM_GET_DEVICE_ATTR;
        return {
          result:
            isAttr && input.length === KvmDeviceAttr.size
              ? current().deviceAttr(cmd, input, memory)
              : current().ioctl(cmd, arg),
        };
      },
    }),
  };
}

/** To be shown where programs are to find the emulated processor, too: it hides a KVM that may be there. */
export function kvmPlaces(current: () => KvmDevice): Readonly<Record<string, FsNode>> {
  return { '/dev/kvm': kvmFile(current) };
}
