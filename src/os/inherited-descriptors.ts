// SPDX-License-Identifier: Apache-2.0
/**
 * Which descriptors above 2 this process was given, such as the jobserver of make(1) or a file a shell has
 * opened. Node has opened others of its own by the time anybody can look, and nothing says whose they are.
 */
import { fstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

const OWN = '/proc/self';
/** O_ACCMODE of open(2). */
const ACCESS_MODE = 3;

interface Descriptor {
  readonly fd: number;
  /** What it is open on, as /proc says it. */
  readonly target: string;
  readonly isReader: boolean;
}

/**
 * Numbers of the descriptors that were there when this process started.
 *
 * Not among them, as Node has them itself: epoll instances and event counters, /dev/null for reading, its
 * channel to a parent, and pipes with both ends here that the parent process does not know.
 */
export function inheritedDescriptors(): readonly number[] {
  const open = descriptorsOf(OWN);
  const outside = new Set(descriptorsOf(`/proc/${process.ppid}`).map(({ target }) => target));
  const channel = Number(process.env['NODE_CHANNEL_FD'] ?? -1);
  const isNodes = ({ fd, target, isReader }: Descriptor): boolean =>
    fd === channel ||
    target.startsWith('anon_inode:') ||
    (target === '/dev/null' && isReader) ||
    (target.startsWith('pipe:') &&
      !outside.has(target) &&
      open.some((other) => other.target === target && other.isReader !== isReader));
  return open
    .filter((descriptor) => descriptor.fd > 2 && !isNodes(descriptor))
    .map(({ fd }) => fd)
    .sort((a, b) => a - b);
}

function descriptorsOf(process: string): readonly Descriptor[] {
  try {
    return readdirSync(`${process}/fd`).flatMap((name) => descriptorOf(process, Number(name)));
  } catch {
    // The parent is another user's, or gone.
    return [];
  }
}

function descriptorOf(process: string, fd: number): readonly Descriptor[] {
  try {
    if (process === OWN) {
      // That of the folder that is being read is closed by now.
      fstatSync(fd);
    }
    const target = readlinkSync(`${process}/fd/${fd}`);
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`${process}/fdinfo/${fd}`, 'latin1'))?.[1] ?? '';
    return [{ fd, target, isReader: (Number.parseInt(flags, 8) & ACCESS_MODE) === 0 }];
  } catch {
    return [];
  }
}
