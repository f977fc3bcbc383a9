// SPDX-License-Identifier: Apache-2.0
/**
 * Running the user's command inside namespaces this process serves: terminal, signals and exit status
 * pass through, and nothing of it outlives this process, however this process ends.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { isatty } from 'node:tty';
import { CpuidTracer, type CpuidTracing } from './cpuid-tracer.ts';
import { errnoCode } from './errno.ts';
import { mountNamespace } from './namespaces.ts';
import { NOT_EXECUTABLE, NOT_FOUND } from './traced-process.ts';

export interface CommandEnd {
  /** What a shell would give as $?: 126 and 127 when the command could not be started. */
  readonly code: number;
  /** The signal that ended the command, if one did. */
  readonly signal: NodeJS.Signals | null;
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Answers the command's CPUID instructions; null lets the processor do it. */
  readonly cpuid?: CpuidTracing | null;
}

/** A command under way. */
interface Started {
  readonly ended: Promise<CommandEnd>;
  kill(signal: NodeJS.Signals): void;
  /** To be called when nothing of it is left. */
  close(): void;
}

/** Sent to us alone by whoever manages processes, so the command must be told. */
const FORWARDED: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'];
/** Sent by the terminal to the whole foreground group: the command has them already. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

const GRACE_MS = 500;
const POLL_MS = 10;

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

/**
 * Runs a command to its end with our stdio. To be called inside a private mount namespace: what else is
 * left in the namespace when the command ends is ended too, as the devices it was started for are going.
 *
 * Errors   CPUID_UNAVAILABLE when that was asked for and cannot be
 */
export async function runCommand(
  command: readonly string[],
  { env = process.env, cpuid = null }: CommandOptions = {},
): Promise<CommandEnd> {
  const watchdog = spawn('sh', ['-c', WATCHDOG], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  // Without a watchdog everything works but the end by kill -9.
  watchdog.on('error', () => undefined);
  let started: Started | null = null;
  const quiet = isatty(0);
  const forward = (signal: NodeJS.Signals): void => {
    if (!(quiet && FROM_TERMINAL.includes(signal))) {
      started?.kill(signal);
    }
  };
  // Caught before there is a command: it may do something that makes others send signals at once.
  const caught = [...FORWARDED, ...FROM_TERMINAL];
  for (const signal of caught) {
    process.on(signal, forward);
  }
  try {
    started = cpuid === null ? start(command, env) : startTracing(command, env, cpuid);
    return await started.ended;
  } finally {
    await endStragglers(watchdog.pid);
    started?.close();
    watchdog.stdin.on('error', () => undefined);
    watchdog.stdin.end('done\n');
    for (const signal of caught) {
      process.off(signal, forward);
    }
  }
}

function start([file = '', ...args]: readonly string[], env: NodeJS.ProcessEnv): Started {
  const child = spawn(file, args, { stdio: 'inherit', env });
  const ended = new Promise<CommandEnd>((resolve) => {
    child.once('error', (error) => {
      resolve({ code: errnoCode(error) === 'ENOENT' ? NOT_FOUND : NOT_EXECUTABLE, signal: null });
    });
    child.once('exit', (code, signal) => {
      resolve({ code: signal === null ? (code ?? 0) : 128 + constants.signals[signal], signal });
    });
  });
  return { ended, kill: (signal) => child.kill(signal), close: () => undefined };
}

function startTracing(command: readonly string[], env: NodeJS.ProcessEnv, tracing: CpuidTracing): Started {
  const tracer = new CpuidTracer(command, env, tracing);
  return {
    ended: tracer.ended.then(({ code, signal }) => ({
      code,
      signal: signal === null ? null : nameOf(signal),
    })),
    kill: (signal) => tracer.kill(signal),
    close: () => tracer.close(),
  };
}

/** Null for a real-time signal: those have no names, and Node cannot send them. */
function nameOf(signal: number): NodeJS.Signals | null {
  const found = Object.entries(constants.signals).find(([, number]) => number === signal);
  return found === undefined ? null : (found[0] as NodeJS.Signals);
}

/** Ends this process the way the command ended: by the same signal, or with the same exit code. */
export function endAs(end: CommandEnd): never {
  if (end.signal !== null) {
    process.kill(process.pid, end.signal);
  }
  process.exit(end.code);
}

/** Processes of this mount namespace other than this one and the one named. */
function others(except: number | undefined): number[] {
  const namespace = mountNamespace();
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)
    .filter((pid) => {
      if (pid === process.pid || pid === except) {
        return false;
      }
      try {
        return readlinkSync(`/proc/${pid}/ns/mnt`) === namespace;
      } catch {
        // It has just ended, or is another user's and so not of this namespace.
        return false;
      }
    });
}

async function endStragglers(except: number | undefined): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const left = others(except);
    if (left.length === 0) {
      return;
    }
    const signal = waitedMs === 0 ? 'SIGTERM' : waitedMs >= GRACE_MS ? 'SIGKILL' : null;
    if (signal !== null) {
      for (const pid of left) {
        try {
          process.kill(pid, signal);
        } catch {
          // It has ended since.
        }
      }
    }
    if (waitedMs > 2 * GRACE_MS) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
