// SPDX-License-Identifier: Apache-2.0
/**
 * The devices of a running host where programs outside can reach them: in a folder, and for a machine that
 * plays the guest as a whole, at the system's own paths.
 */
import { lstatSync, mkdirSync, readFileSync, rmdirSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { FsNode } from '../devices/fuse/filesystem.ts';
import { type ServedTree, serveTree } from '../devices/fuse/server.ts';
import { utf8 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { detachStale, makeMountPoint } from '../os/fuse-mount.ts';
import { orUnwritable, replaceFile } from '../os/state-dir.ts';
import { LiveDirectory, type Places, pathsOf, treeOf } from './device-tree.ts';
import type { HostService } from './host-service.ts';

export interface DeviceFolder {
  /** DIR/host holds what a host has, DIR/guests/NAME what a guest has, at the usual paths below. */
  readonly target: string;
  /** Paths of the system at which devices are shown too; null when that was not asked for. */
  readonly system: readonly string[] | null;
  /** Leaves every place. Idempotent. */
  close(): Promise<void>;
}

export interface DeviceFolderOptions {
  readonly service: HostService;
  /** Made when it is missing. */
  readonly folder: string;
  /** Guest whose devices, with the host's, are also shown at the system's paths; null for none. */
  readonly system: string | null;
  /** File that names the places in use, for the start after a kill -9. */
  readonly record: string;
  readonly onFault: (error: unknown, request: string) => void;
  /** A place of the system at which nothing could be shown, and why: a line for the operator. */
  readonly onMissing: (line: string) => void;
}

/** Paths without which programs find nothing; others are shown where the system allows it. */
const REQUIRED = new Set(['/dev/sev', '/dev/sev-guest']);

/**
 * Serves the devices.
 *
 * Errors   FUSE_UNAVAILABLE, MOUNT_REFUSED, MOUNT_POINT_INVALID, FFI_UNAVAILABLE, STATE_UNWRITABLE; then
 *          nothing is mounted
 */
export async function serveDevices(options: DeviceFolderOptions): Promise<DeviceFolder> {
  const { service, record, onFault } = options;
  const folder = await makeMountPoint(options.folder);
  const system = systemPlaces(options);
  const places = utf8(JSON.stringify([...Object.keys(system), folder]));
  orUnwritable(record, 'cannot write', () => replaceFile(dirname(record), basename(record), places));
  const guests = new LiveDirectory();
  const root = new LiveDirectory();
  root.set('host', treeOf({ ...service.hostPlaces, ...service.processorPlaces }));
  root.set('guests', guests);
  for (const [name, { door }] of service.guests) {
    guests.set(name, treeOf(door.places));
  }
  const unfollow = service.events.follow((event) => {
    if (event.type === 'guest' && event.what === 'removed') {
      guests.delete(event.guest);
    } else if (event.type === 'guest' && event.what === 'added') {
      guests.set(event.guest, treeOf(service.guests.get(event.guest)!.door.places));
    }
  });
  const made: string[] = [];
  let tree: ServedTree | null = null;
  const close = async (): Promise<void> => {
    unfollow();
    await tree?.close();
    made.reverse().forEach(removePlace);
    rmSync(record, { force: true });
  };
  try {
    tree = await serveTree(folder, { root, onFault });
    const shown: string[] = [];
    for (const [path, { inner, node }] of Object.entries(system)) {
      if (await showAt(tree, path, inner, node, made, options.onMissing)) {
        shown.push(...pathsOf({ [path]: node }));
      }
    }
    return { target: tree.target, system: options.system === null ? null : shown, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Detaches what a killed softsnp of this state folder left mounted. */
export async function detachRecorded(record: string): Promise<void> {
  for (const place of recordedPlaces(record)) {
    try {
      await detachStale(place);
    } catch (error) {
      // Another softsnp, which is alive, has the place now.
      if (!(error instanceof EnvironmentError && error.code === 'MOUNT_POINT_INVALID')) {
        throw error;
      }
    }
  }
  rmSync(record, { force: true });
}

function recordedPlaces(record: string): readonly string[] {
  try {
    const places: unknown = JSON.parse(readFileSync(record, 'utf8'));
    return Array.isArray(places) ? places.filter((place): place is string => typeof place === 'string') : [];
  } catch {
    // No record, or one that is no longer whole: a mount that is still there is met when its place is used.
    return [];
  }
}

/** By path: what is to be seen there, and where it is in the served tree. */
function systemPlaces({ service, system }: DeviceFolderOptions) {
  const shown: Record<string, { readonly inner: string; readonly node: FsNode }> = {};
  const add = (places: Places, below: string): void => {
    for (const [path, node] of Object.entries(places)) {
      shown[path] = { inner: below + path, node };
    }
  };
  if (system !== null) {
    add(service.hostPlaces, 'host');
    add(service.guests.get(system)?.door.places ?? {}, `guests/${system}`);
  }
  return shown;
}

async function showAt(
  tree: ServedTree,
  path: string,
  inner: string,
  { kind }: FsNode,
  made: string[],
  onMissing: (line: string) => void,
): Promise<boolean> {
  try {
    await detachStale(path);
    made.push(...makePlace(path, kind === 'file'));
    await tree.bind(inner, path);
    return true;
  } catch (error) {
    const why = error instanceof EnvironmentError ? error.message : `${path}: ${errnoCode(error)}`;
    if (REQUIRED.has(path)) {
      throw new EnvironmentError('MOUNT_REFUSED', why, { where: path, cause: error });
    }
    onMissing(`not shown at its place in the system: ${why}`);
    return false;
  }
}

/** Makes what is missing to mount on; the paths to remove afterwards, outer ones first. */
function makePlace(path: string, isFile: boolean): string[] {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there !== undefined) {
    // An empty file in /dev that is no device is what an earlier, killed softsnp made.
    return isFile && there.isFile() && there.size === 0 && path.startsWith('/dev/') ? [path] : [];
  }
  const folders: string[] = [];
  for (let folder = isFile ? dirname(path) : path; !isThere(folder); folder = dirname(folder)) {
    folders.unshift(folder);
  }
  folders.forEach((folder) => {
    mkdirSync(folder);
  });
  if (isFile) {
    writeFileSync(path, '', { mode: 0o600 });
  }
  return isFile ? [...folders, path] : folders;
}

const isThere = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;

function removePlace(path: string): void {
  try {
    if (lstatSync(path).isDirectory()) {
      rmdirSync(path);
    } else {
      unlinkSync(path);
    }
  } catch {
    // Somebody put something there meanwhile: it is theirs now.
  }
}

/** Where the devices are when only the system's paths were asked for. */
export const systemFolder = (stateFolder: string): string => join(stateFolder, 'devices');
