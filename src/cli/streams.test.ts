// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { watchStreams } from './streams.ts';

const bin = fileURLToPath(new URL('../../bin/softsnp.js', import.meta.url));

/** A process that notes its end. */
function watched({ handlers = 0 } = {}) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const codes: number[] = [];
  watchStreams({ stdout, stderr, exit: (code) => codes.push(code), listenerCount: () => handlers });
  return { stdout, stderr, codes };
}

const failure = (code: string): Error => Object.assign(new Error(`write ${code}`), { code });

describe('a command', () => {
  it('ends as by SIGPIPE when its reader goes away', () => {
    const { stdout, stderr, codes } = watched();
    stdout.emit('error', failure('EPIPE'));
    expect(codes).toEqual([141]);
    expect(stderr.read()).toBeNull();
  });

  it('goes on without a reader when it ends in an order of its own', () => {
    const { stdout, codes } = watched({ handlers: 1 });
    stdout.emit('error', failure('EPIPE'));
    expect(codes).toEqual([]);
  });

  it('goes on when nobody hears its complaints', () => {
    const { stderr, codes } = watched();
    stderr.emit('error', failure('EPIPE'));
    expect(codes).toEqual([]);
  });

  it('says that its output cannot be written', () => {
    const { stdout, stderr, codes } = watched({ handlers: 1 });
    stdout.emit('error', failure('ENOSPC'));
    expect(String(stderr.read())).toMatch(/^softsnp: standard output: ENOSPC \[FILE_UNWRITABLE\]\n {2}Check/);
    expect(codes).toEqual([1]);
  });
});

describe('softsnp as a process', () => {
  it.each([
    ['stdout', ['measure', '--help'], 141],
    ['stdout', ['measure', 'sev', '--ovmf', 'default'], 141],
    ['stderr', ['measure', 'snp'], 1],
  ] as const)(
    'with a closed %s, given %j, ends with %i and says nothing else',
    async (closed, argv, code) => {
      const child = spawn(process.execPath, [bin, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
      child[closed].destroy();
      const said: string[] = [];
      child[closed === 'stdout' ? 'stderr' : 'stdout'].on('data', (chunk) => said.push(String(chunk)));
      expect(await once(child, 'close')).toEqual([code, null]);
      expect(said.join('')).toBe('');
    },
  );

  it.skipIf(!existsSync('/dev/full'))('on a full disk says so', async () => {
    const full = openSync('/dev/full', 'w');
    const child = spawn(process.execPath, [bin, 'measure', '--help'], { stdio: ['ignore', full, 'pipe'] });
    closeSync(full);
    const said: string[] = [];
    child.stderr!.on('data', (chunk) => said.push(String(chunk)));
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(said.join('')).toMatch(/standard output: ENOSPC/);
  });
});
