// SPDX-License-Identifier: Apache-2.0
/** sd_notify(3): telling a service manager how the process is. */
import { closeSync } from 'node:fs';
import { utf8, writeU16 } from '../lib/bytes.ts';
import { connect, ffiAvailable, socket, write } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** sun_path of struct sockaddr_un, which follows a family of two bytes. */
const PATH_OFFSET = 2;
const PATH_SIZE = 108;

/**
 * Sends lines such as READY=1 to $NOTIFY_SOCKET.
 *
 * Returns  false when nobody wants to know, or the message did not get through: never a reason to stop
 */
export function sdNotify(lines: readonly string[], env = process.env): boolean {
  const path = env['NOTIFY_SOCKET'] ?? '';
  const name = utf8(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (!/^[/@]./.test(path) || name.length > PATH_SIZE || !ffiAvailable()) {
    return false;
  }
  const address = new Uint8Array(PATH_OFFSET + name.length);
  writeU16(address, 0, AF_UNIX);
  address.set(name, PATH_OFFSET);
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  try {
    return connect(fd, address) === 0 && write(fd, utf8(lines.join('\n'))) > 0;
  } finally {
    closeSync(fd);
  }
}
