// SPDX-License-Identifier: Apache-2.0
/** softsnp as a process of its own, as root and as an ordinary user. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ffiAvailable } from '../../src/os/libc.ts';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The launcher, which builds what changed; a built one for those who change the source meanwhile. */
export const bin = process.env['SOFTSNP_BIN'] ?? join(root, 'bin', 'softsnp.js');

/** All of it, many times; otherwise what differs between root and others only as one of them. */
export const LONG = process.env['SOFTSNP_LONG'] === '1';

export const isRoot = process.geteuid?.() === 0;

/** A user that owns nothing here: nobody, unless whoever runs the tests has made one for them (UID:GID). */
const [uid = 0, gid = uid] = (process.env['SOFTSNP_TEST_USER'] ?? '65534:65534').split(':').map(Number);
export const ORDINARY = { uid, gid };

/** Who runs softsnp, and what stands in the way. */
export interface Identity {
  readonly who: string;
  readonly options: SpawnOptions;
  readonly obstacle: string | null;
}

function obstacle(options: SpawnOptions): string | null {
  if (!ffiAvailable() || !existsSync('/dev/fuse')) {
    return 'koffi or /dev/fuse is missing';
  }
  const can = (...command: string[]): boolean =>
    spawnSync(command[0]!, command.slice(1), { stdio: 'ignore', ...asSync(options) }).status === 0;
  if (![bin, join(root, 'node_modules', 'koffi', 'package.json')].every((path) => can('test', '-r', path))) {
    return `this user cannot read ${root}: clone it where everybody may`;
  }
  if (!can(process.execPath, '-e', '0')) {
    return `this user cannot run ${process.execPath}`;
  }
  if (!can('test', '-r', '/dev/fuse', '-a', '-w', '/dev/fuse')) {
    return 'this user cannot open /dev/fuse';
  }
  const unshare = isRoot && options.uid === undefined ? ['-m', 'true'] : ['-Urm', 'true'];
  return can('unshare', ...unshare) ? null : 'the kernel forbids namespaces to this user';
}

const asSync = ({ uid, gid }: SpawnOptions) => (uid === undefined ? {} : { uid, gid: gid! });

function identity(who: string, options: SpawnOptions): Identity {
  const why = obstacle(options);
  if (why !== null) {
    process.stderr.write(`SKIPPED: softsnp as ${who}: ${why}\n`);
  }
  return { who, options, obstacle: why };
}

/** Root where we are root, and a user with no rights in either case. */
export const identities: readonly Identity[] = isRoot
  ? [identity('root', {}), identity('an ordinary user', ORDINARY)]
  : [identity('an ordinary user', {})];

/** A folder of this user's own. */
export function folderOf({ options }: Identity): string {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-process-'));
  if (options.uid !== undefined) {
    chownSync(folder, options.uid, options.gid!);
  }
  return folder;
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A softsnp that runs, or another program. */
export class Process {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';

  constructor(
    args: readonly string[],
    folder: string,
    options: SpawnOptions = {},
    [program = process.execPath, ...first]: readonly string[] = [process.execPath, bin],
  ) {
    this.child = spawn(program, [...first, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: folder,
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        HOME: folder,
        SOFTSNP: `${process.execPath} ${bin}`,
        NO_COLOR: '1',
      },
      ...options,
    });
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += String(chunk);
    });
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += String(chunk);
    });
    this.ended = once(this.child, 'close').then(([code, signal]) => ({
      ...{ code, signal },
      ...{ stdout: this.stdout, stderr: this.stderr },
    }));
  }

  /** Resolves when stdout has this; rejects when the process ends first. */
  async says(text: string): Promise<void> {
    while (!this.stdout.includes(text)) {
      await Promise.race([
        once(this.child.stdout!, 'data'),
        this.ended.then(({ stderr }) => {
          throw new TypeError(`ended without ${text}: ${stderr}`);
        }),
      ]);
    }
  }
}

/** Runs softsnp to its end. */
export function softsnp(args: readonly string[], folder: string, options: SpawnOptions = {}): Promise<Ended> {
  return new Process(args, folder, options).ended;
}

/** Processes whose files are in the folder: those of a test and what they left. */
export function processesIn(folder: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`) === folder;
      } catch {
        return false;
      }
    });
}

/** softsnp's mounts that this process sees below a folder. */
export function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(' - fuse.softsnp ') && line.split(' ')[4]!.startsWith(folder));
}
