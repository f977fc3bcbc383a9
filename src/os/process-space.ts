// SPDX-License-Identifier: Apache-2.0
/**
 * A place for all processes of a command, from which none gets away: when it is closed, or this process
 * dies by whatever means, all of them end.
 *
 * It is a pid namespace where the kernel gives us one. Its first process does nothing but wait for the end
 * of a pipe whose other end is ours; when that process ends, the kernel kills all others, whatever session,
 * mount or further pid namespace they are in. A pid namespace wants a /proc that shows it, and a container
 * that hides parts of its own /proc lets nobody mount one: there the processes are told by their mount
 * namespace instead, and one that has made itself another mount namespace is not found.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { errnoName } from '../abi/errno.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from './errno.ts';
import { Libc, unshare } from './libc.ts';

export interface ProcessSpace {
  /** What to execute instead, so that a command is in this space. */
  wrap(command: readonly string[]): readonly string[];
  /** Ends what is left in it: SIGTERM first, and after a while SIGKILL. */
  close(): Promise<void>;
}

/** A mount namespace with a /proc of the pid namespace it is in, and a program in it. */
const WITH_OWN_PROC = ['unshare', '--mount-proc', '--'];
/** The same one level further down, to see whether it can be had. */
const TRIAL = ['unshare', '--pid', '--fork', '--mount-proc', '--', 'true'];

/**
 * The first process of a pid namespace: gets the orphans of the others, whom the kernel buries for it where
 * env(1) can make it ignore SIGCHLD, and ends when its input does.
 */
const FIRST = `
if env --ignore-signal=CHLD true 2>/dev/null; then reap='env --ignore-signal=CHLD'; fi
echo ready
exec $reap cat`;

/**
 * Waits, with a session of its own, for this process to die; a line says that it ended in order. After
 * kill -9 it kills every process of the mount namespace, several rounds against those that fork meanwhile.
 */
const WATCHDOG = `
trap '' HUP INT TERM
read -r line && exit
ns=$(readlink /proc/self/ns/mnt)
for round in 1 2 3 4 5; do
  pids=$(ls -l /proc/[0-9]*/ns/mnt 2>/dev/null | grep -F -- "-> $ns" | sed 's|.*/proc/\\([0-9]*\\)/ns/mnt.*|\\1|' | grep -vx "$$")
  kill -KILL $pids 2>/dev/null
done`;

const GRACE_MS = 500;
const POLL_MS = 10;

/**
 * Makes the space. To be called inside a private mount namespace, once: every process that this one starts
 * afterwards is in it.
 *
 * The main thread can start no thread any more: those of Node's pool are there before.
 *
 * Errors   NAMESPACE_UNAVAILABLE where the kernel refuses what it has just allowed
 */
export async function makeProcessSpace(): Promise<ProcessSpace> {
  return (await succeeds(TRIAL)) ? pidNamespace() : mountNamespaceAlone();
}

async function pidNamespace(): Promise<ProcessSpace> {
  await access('/');
  const result = unshare(Libc.CLONE_NEWPID);
  if (result < 0) {
    throw new EnvironmentError('NAMESPACE_UNAVAILABLE', `unshare(2) answered ${errnoName(result)}`, {
      where: 'pid namespace',
    });
  }
  const [file = '', ...args] = [...WITH_OWN_PROC, 'sh', '-c', FIRST];
  const first = spawn(file, args, { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
  first.stdin.on('error', () => undefined);
  const ended = endOf(first);
  const isReady = await Promise.race([once(first.stdout, 'data').then(() => true), ended.then(() => false)]);
  if (!isReady) {
    throw new EnvironmentError('NAMESPACE_UNAVAILABLE', 'its first process cannot be started', {
      where: 'pid namespace',
    });
  }
  const namespace = namespaceOf(first.pid!, 'pid');
  return {
    wrap: (command) => [...WITH_OWN_PROC, ...command],
    async close() {
      await askToEnd(() => membersOf('pid', namespace, [first.pid!]));
      first.stdin.end();
      await ended;
    },
  };
}

function mountNamespaceAlone(): ProcessSpace {
  const watchdog = spawn('sh', ['-c', WATCHDOG], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  // Without a watchdog everything works but the end by kill -9.
  watchdog.on('error', () => undefined);
  watchdog.stdin.on('error', () => undefined);
  const members = (): readonly number[] =>
    membersOf('mnt', namespaceOf('self', 'mnt'), [process.pid, watchdog.pid]);
  return {
    wrap: (command) => command,
    async close() {
      await askToEnd(members);
      await insist(members);
      watchdog.stdin.end('done\n');
    },
  };
}

function endOf(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
}

function succeeds([file = '', ...args]: readonly string[]): Promise<boolean> {
  const child = spawn(file, args, { stdio: 'ignore' });
  return new Promise((resolve) => {
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

type Kind = 'pid' | 'mnt';

function namespaceOf(pid: number | 'self', kind: Kind): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

/** Processes of a namespace but those named, and those that have ended and wait to be buried. */
function membersOf(
  kind: Kind,
  namespace: string,
  except: readonly (number | undefined)[],
): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return !except.includes(pid) && namespaceOf(pid, kind) === namespace && !isZombie(pid);
      } catch {
        // It has just ended, or is another user's and so not of this namespace.
        return false;
      }
    });
}

function isZombie(pid: number): boolean {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The name before the state may have any character in it.
  return stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z');
}

async function askToEnd(members: () => readonly number[]): Promise<void> {
  signalAll(members(), 'SIGTERM');
  await untilNone(members);
}

async function insist(members: () => readonly number[]): Promise<void> {
  signalAll(members(), 'SIGKILL');
  await untilNone(members);
}

/** Waits until all are gone, for some time. */
async function untilNone(members: () => readonly number[]): Promise<void> {
  for (let waitedMs = 0; waitedMs < GRACE_MS && members().length > 0; waitedMs += POLL_MS) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      // ESRCH: it has ended since. What may not be signalled is not ours.
      if (!['ESRCH', 'EPERM'].includes(errnoCode(error))) {
        throw error;
      }
    }
  }
}
