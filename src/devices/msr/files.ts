// SPDX-License-Identifier: Apache-2.0
/** /dev/cpu/N/msr as a file. */
import { Errno } from '../../abi/errno.ts';
import { type FileNode, type FsNode, refuse } from '../fuse/filesystem.ts';
import { type Msrs, readMsr } from './device.ts';

/**
 * The registers of one CPU, writes refused as with the module parameter allow_writes=off.
 *
 * Differs  reading moves the file position, which the msr driver leaves where it is
 */
export function msrFile(msrs: Msrs): FileNode {
  return {
    kind: 'file',
    mode: 0o600,
    open: () => ({
      read: (offset, size) => readMsr(msrs, offset, size),
      write: () => refuse(Errno.EPERM),
    }),
  };
}

/** The first CPU's registers, at the path programs look at. Host and guest share it: merge their registers. */
export function msrPlaces(...sets: readonly Msrs[]): Readonly<Record<string, FsNode>> {
  return { '/dev/cpu/0/msr': msrFile(new Map(sets.flatMap((msrs) => [...msrs]))) };
}
