// SPDX-License-Identifier: Apache-2.0
/** Runs softsnp and the programs it is compared with. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const cache =
  process.env['SOFTSNP_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'softsnp');

export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function run(
  command: string,
  args: readonly string[],
  options: { input?: Uint8Array; env?: NodeJS.ProcessEnv } = {},
): Ran {
  const done = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    env: { ...process.env, ...options.env },
    ...(options.input === undefined ? {} : { input: options.input }),
  });
  return {
    status: done.status ?? -1,
    stdout: done.stdout ?? '',
    stderr: `${done.stderr ?? ''}${done.error?.message ?? ''}`,
  };
}

/** softsnp as a user calls it, with a state folder of its own unless one is given. */
export function softsnp(...args: string[]): Ran {
  return run(process.execPath, [join(root, 'bin', 'softsnp.js'), ...args]);
}

/** Path of an installed tool, or null after saying loudly what is left out. */
export function tool(relativePath: string, what: string): string | null {
  const path = join(cache, relativePath);
  if (existsSync(path)) {
    return path;
  }
  console.warn(`SKIPPED: ${what}: ${path} is not installed; .ci/run installs it`);
  return null;
}

export function onPath(command: string, args: readonly string[] = ['version']): boolean {
  return spawnSync(command, args).error === undefined;
}

/** A folder that is gone when the callback returns. */
export function withFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-oracle-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The same for work that is waited for. */
export async function withFolderAsync<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-oracle-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
