// SPDX-License-Identifier: Apache-2.0
/**
 * Running the user's command inside namespaces this process serves: terminal, signals and exit status
 * pass through, and nothing of it outlives this process, however this process ends.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { CpuidTracer, type CpuidTracing } from './cpuid-tracer.ts';
import { errnoCode } from './errno.ts';
import { closeOnExec } from './libc.ts';
import { makeProcessSpace } from './process-space.ts';
import { SignalRelay } from './signal-relay.ts';
import { keepTerminal } from './terminal.ts';
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
  /** Descriptors above 2 that the command is to have. */
  readonly descriptors?: readonly number[];
}

/** A command under way. */
interface Started {
  readonly ended: Promise<CommandEnd>;
  kill(signal: NodeJS.Signals): void;
  /** To be called when nothing of it is left. */
  close(): void;
}

/**
 * Runs a command to its end with our stdio, in our process group. To be called inside a private mount
 * namespace, once: what else the command has started is ended with it, as the devices it was started for
 * are going.
 *
 * Errors   CPUID_UNAVAILABLE when that was asked for and cannot be; NAMESPACE_UNAVAILABLE
 */
export async function runCommand(
  command: readonly string[],
  { env = process.env, cpuid = null, descriptors = [] }: CommandOptions = {},
): Promise<CommandEnd> {
  const giveTerminalBack = keepTerminal();
  let started: Started | null = null;
  // Before there is a command: it may do something that makes others send signals at once.
  const relay = await SignalRelay.start((signal) => started?.kill(signal));
  try {
    // Neither the processes around the command nor we may keep open what was given to the command alone.
    descriptors.forEach(closeOnExec);
    const space = await makeProcessSpace();
    try {
      const wrapped = space.wrap(command);
      started =
        cpuid === null ? start(wrapped, env, descriptors) : startTracing(wrapped, env, cpuid, descriptors);
      return await started.ended;
    } finally {
      await space.close();
      started?.close();
    }
  } finally {
    giveTerminalBack();
    relay.close();
  }
}

function start(
  [file = '', ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
  descriptors: readonly number[],
): Started {
  const stdio = Array.from({ length: 1 + Math.max(2, ...descriptors) }, (_, fd) =>
    fd <= 2 || descriptors.includes(fd) ? fd : ('ignore' as const),
  );
  const child = spawn(file, args, { stdio, env });
  const ended = new Promise<CommandEnd>((resolve) => {
    child.once('error', (error) => {
      process.stderr.write(`softsnp: ${file}: ${errnoCode(error)}\n`);
      resolve({ code: errnoCode(error) === 'ENOENT' ? NOT_FOUND : NOT_EXECUTABLE, signal: null });
    });
    child.once('exit', (code, signal) => {
      resolve({ code: signal === null ? (code ?? 0) : 128 + constants.signals[signal], signal });
    });
  });
  return { ended, kill: (signal) => child.kill(signal), close: () => undefined };
}

function startTracing(
  command: readonly string[],
  env: NodeJS.ProcessEnv,
  tracing: CpuidTracing,
  descriptors: readonly number[],
): Started {
  const tracer = new CpuidTracer(command, { env, descriptors }, tracing);
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
