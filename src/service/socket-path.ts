// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';

/** sockaddr_un.sun_path without its NUL. */
const SOCKET_PATH_LIMIT = 107;

/**
 * A path for bind(2) and connect(2) that is short enough however deep the folder is.
 *
 * Returns  what to use, and what to call when it has been used
 */
export function shortSocketPath(path: string): { readonly path: string; readonly done: () => void } {
  if (Buffer.byteLength(path) <= SOCKET_PATH_LIMIT) {
    return { path, done: () => undefined };
  }
  const fd = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${fd}/${basename(path)}`, done: () => closeSync(fd) };
}
