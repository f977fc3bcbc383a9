// SPDX-License-Identifier: Apache-2.0
/**
 * For a whole run of the tests, which is the unit that shares it: /dev/fuse is open to everybody, as on most
 * desktops, and afterwards what it was.
 */
import { chmodSync, existsSync, statSync } from 'node:fs';

const DEVICE = '/dev/fuse';

/** Returns what undoes it. */
export default function openFuse(): () => void {
  if (process.geteuid?.() !== 0 || !existsSync(DEVICE)) {
    return () => undefined;
  }
  const { mode } = statSync(DEVICE);
  chmodSync(DEVICE, 0o666);
  return () => chmodSync(DEVICE, mode & 0o777);
}
