// SPDX-License-Identifier: Apache-2.0
/**
 * Entering namespaces of one's own, in which devices can be put at their usual places without root.
 *
 * A process of several threads cannot unshare a user namespace, and Node always has several. So the
 * process becomes unshare(1), which becomes softsnp again: same process id, terminal and descriptors, one thread at
 * the moment of unsharing. /dev/fuse is opened after that, as the mount demands (linux-devices 7.2):
 *
 *   softsnp exec ...            enterNamespaces()
 *   └ unshare -Urm -- node ...  user namespace with 0 mapped to the caller, private mounts
 *     └ softsnp exec ...        arrivedInNamespaces(): PrivateTree, serveTree, runCommand
 *
 * Root in the outer world (CAP_SYS_ADMIN, and CAP_NET_ADMIN for a network) needs and gets no user namespace;
 * all else is the same, and nothing outside the mount namespace is touched in either case.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, readFileSync, readlinkSync } from 'node:fs';
import { errnoName } from '../abi/errno.ts';
import { utf8, writeU16 } from '../lib/bytes.ts';
import { EnvironmentError, invariant } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { inheritedDescriptors } from './inherited-descriptors.ts';
import { execvp, ioctl, socket } from './libc.ts';

export interface NamespaceOptions {
  /** A network of its own, with nothing in it but a loopback interface. */
  readonly network: boolean;
  /** Whether devices are served inside; those of a running host are only put in their places. */
  readonly fuse: boolean;
}

const UNSHARE = 'unshare';
const FUSE = '/dev/fuse';
/** Carries the outer mount namespace to the process inside, which must never mistake the outer one for its own. */
const MARK = 'SOFTSNP_OUTER_MOUNT_NAMESPACE';
/** Carries the numbers of the descriptors that whoever started us has left open for the command. */
const DESCRIPTORS = 'SOFTSNP_DESCRIPTORS';
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

export function mountNamespace(): string {
  return readlinkSync('/proc/self/ns/mnt');
}

function hasCapability(number: bigint): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return effective !== null && ((BigInt(`0x${effective[1]}`) >> number) & 1n) === 1n;
}

/** Whether mounts can be changed where we are, without a user namespace. */
export const isPrivileged = (): boolean => hasCapability(CAP_SYS_ADMIN);

function unshareArguments({ network }: NamespaceOptions): string[] {
  return [
    // A loopback interface is turned on by whoever may administer networks, which root in a container may not.
    ...(isPrivileged() && (!network || hasCapability(CAP_NET_ADMIN)) ? [] : ['--user', '--map-root-user']),
    '--mount',
    ...(network ? ['--net'] : []),
    '--',
  ];
}

/** Settings that are known to forbid what unshare(1) does, with the value that allows it. */
const SETTINGS: readonly (readonly [path: string, forbids: (value: string) => boolean, wanted: string])[] = [
  ['/proc/sys/user/max_user_namespaces', (value) => value === '0', 'a positive number'],
  ['/proc/sys/kernel/unprivileged_userns_clone', (value) => value === '0', '1'],
  ['/proc/sys/kernel/apparmor_restrict_unprivileged_userns', (value) => value === '1', '0'],
];

function fileText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

/** Why this user cannot serve devices, namespaces or not; null when nothing stands in the way. */
export function fuseObstacle(device = FUSE): string | null {
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
    return null;
  } catch (error) {
    return `${device} cannot be opened: ${errnoCode(error)}`;
  }
}

/**
 * What stands in the way of `enterNamespaces`, in sentences for the user.
 *
 * Returns  an empty list when a trial run succeeded: unshare, and a tmpfs mounted inside
 */
export function namespaceObstacles(options: NamespaceOptions): string[] {
  const found: string[] = [];
  const trial = spawnSync(
    UNSHARE,
    [...unshareArguments(options), 'mount', '-t', 'tmpfs', 'softsnp', '/tmp'],
    { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } },
  );
  if (trial.error !== undefined) {
    found.push(`${UNSHARE} of util-linux cannot be run (${errnoCode(trial.error)})`);
  } else if (trial.status !== 0) {
    found.push(`the kernel forbids private namespaces (${trial.stderr.trim()})`);
    for (const [path, forbids, wanted] of SETTINGS) {
      const value = fileText(path);
      if (value !== null && forbids(value)) {
        found.push(`${path} is ${value}, needed is ${wanted}`);
      }
    }
    if (/^Seccomp:\s*2$/m.test(fileText('/proc/self/status') ?? '')) {
      found.push('a seccomp filter is active, as in a container: it may be what forbids unshare(2)');
    }
  }
  return found;
}

/**
 * Starts this very program again, same arguments, in new namespaces; stdio, terminal and process id stay.
 *
 * Whatever this process has opened or started is gone, so call it first of all.
 *
 * Returns  never
 * Errors   FUSE_UNAVAILABLE when nothing but /dev/fuse is in the way; NAMESPACE_UNAVAILABLE, naming each
 *          obstacle; FFI_UNAVAILABLE
 */
export function enterNamespaces(options: NamespaceOptions): never {
  const device = options.fuse ? fuseObstacle() : null;
  const obstacles = [...(device === null ? [] : [device]), ...namespaceObstacles(options)];
  if (obstacles.length > 0) {
    const isDeviceAlone = device !== null && obstacles.length === 1;
    throw new EnvironmentError(
      isDeviceAlone ? 'FUSE_UNAVAILABLE' : 'NAMESPACE_UNAVAILABLE',
      obstacles.join('; '),
    );
  }
  process.env[MARK] = mountNamespace();
  const descriptors = inheritedDescriptors();
  process.env[DESCRIPTORS] = descriptors.join(',');
  // An IPC channel to a parent would be closed by now, and Node inside would look for it.
  delete process.env['NODE_CHANNEL_FD'];
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const result = execvp(UNSHARE, [...unshareArguments(options), ...again], descriptors);
  delete process.env[MARK];
  delete process.env[DESCRIPTORS];
  throw new EnvironmentError('NAMESPACE_UNAVAILABLE', `execvp answered ${errnoName(result)}`, {
    where: UNSHARE,
  });
}

/**
 * Whether this process was started by `enterNamespaces`. Tells once: the mark is taken off, so that a
 * softsnp started from inside enters namespaces of its own.
 *
 * Errors   BUG when the mark is there but the mount namespace is the outer one
 */
export function arrivedInNamespaces(): boolean {
  const outer = process.env[MARK];
  if (outer === undefined) {
    return false;
  }
  delete process.env[MARK];
  invariant(outer !== mountNamespace(), 'marked as being inside a private mount namespace, but it is not');
  return true;
}

/** The descriptors above 2 that came along into the namespaces. Tells once, as `arrivedInNamespaces` does. */
export function arrivedDescriptors(): readonly number[] {
  const text = process.env[DESCRIPTORS] ?? '';
  delete process.env[DESCRIPTORS];
  return text === '' ? [] : text.split(',').map(Number);
}

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 0x1;
const IFREQ_SIZE = 40;
const IFREQ_FLAGS = 16;

/**
 * Turns the loopback interface of a new network namespace on, without which nothing answers on 127.0.0.1.
 *
 * Errors   NAMESPACE_UNAVAILABLE
 */
export function raiseLoopback(): void {
  const request = new Uint8Array(IFREQ_SIZE);
  request.set(utf8('lo'));
  writeU16(request, IFREQ_FLAGS, IFF_UP);
  const fd = socket(AF_INET, SOCK_DGRAM, 0);
  const result = fd < 0 ? fd : ioctl(fd, SIOCSIFFLAGS, request);
  if (fd >= 0) {
    closeSync(fd);
  }
  if (result < 0) {
    throw new EnvironmentError('NAMESPACE_UNAVAILABLE', `loopback interface: ${errnoName(result)}`);
  }
}
