// SPDX-License-Identifier: Apache-2.0
/** Taking away what a killed softsnp up left mounted, before another verb uses its state folder. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isPrivileged } from '../os/namespaces.ts';
import { defaultStateDir, MOUNT_RECORD } from './host-state.ts';
import { productOption } from './options.ts';

/**
 * Detaches what the record of the folder names, if there is one and nobody has the folder open.
 *
 * To be called outside of a mount namespace of one's own, where those mounts are.
 *
 * Errors   STATE_BUSY when the host is running; OPTION_INVALID, MOUNT_REFUSED
 */
export async function detachAfterKill(options: {
  readonly state?: string | undefined;
  readonly chip?: string | undefined;
  readonly seed?: string | undefined;
}): Promise<void> {
  const { state, chip = 'milan', seed } = options;
  if (state === undefined && seed !== undefined) {
    return;
  }
  const folder = state ?? defaultStateDir(productOption('chip', chip));
  if (!existsSync(join(folder, MOUNT_RECORD)) || !isPrivileged()) {
    return;
  }
  const { StateDirectory } = await import('../os/state-dir.ts');
  const { detachRecorded } = await import('../service/device-folder.ts');
  const directory = StateDirectory.open(folder);
  try {
    await detachRecorded(directory.fileOf(MOUNT_RECORD));
  } finally {
    directory.close();
  }
}
