// SPDX-License-Identifier: Apache-2.0
/** The kernel's lock contract, with a program that is not ours on the other side: Python's fcntl. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { certificateBlob, type Guest } from '../../src/machine/index.ts';
import { BlobFile } from '../../src/os/blob-file.ts';
import { extReportCall, World } from './world.ts';

const python = spawnSync('python3', ['--version']).error === undefined;
if (!python) {
  console.warn('SKIPPED: the lock scenarios need python3 as the other program');
}

// lock: try the write lock and say whether it was had; unlock: drop it. struct flock of x86-64 and arm64.
const HOLDER = `
import fcntl, struct, sys
blob = open(sys.argv[1], 'r+b')
def lock(kind):
    fcntl.fcntl(blob, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', kind, 0, 0, 0, 0))
for line in sys.stdin:
    try:
        lock(fcntl.F_WRLCK if line.strip() == 'lock' else fcntl.F_UNLCK)
        print('done', flush=True)
    except OSError as error:
        print('errno', error.errno, flush=True)
`;

class OtherProgram {
  readonly #child;
  readonly #lines;

  constructor(path: string) {
    this.#child = spawn('python3', ['-c', HOLDER, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask(what: 'lock' | 'unlock'): Promise<string> {
    this.#child.stdin.write(`${what}\n`);
    const { value } = await this.#lines.next();
    return value as string;
  }

  end(): void {
    this.#child.kill();
  }
}

/** Steps vCPU 0 until a step of the trace has been taken. */
function runToStep(world: World, guest: Guest, step: string): void {
  for (let turns = 0; turns < 10_000 && !world.steps.some((event) => event.step === step); turns++) {
    guest.step(0);
  }
  expect(world.steps.map((event) => event.step)).toContain(step);
}

describe.skipIf(!python)('the certificate lock', () => {
  let folder: string;
  let path: string;
  let world: World;
  let other: OtherProgram;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'softsnp-lock-'));
    path = join(folder, 'certs.blob');
    world = new World();
    writeFileSync(path, certificateBlob(world.host.chain('VCEK')));
    other = new OtherProgram(path);
  });

  afterEach(() => {
    other.end();
    rmSync(folder, { recursive: true, force: true });
  });

  it('held by another program makes the guest see 0x2_0000_0000, and the request succeeds after release', async () => {
    const guest = world.guest('a', new BlobFile(path));
    expect(await other.ask('lock')).toBe('done');
    const job = guest.kernel.sevGuestIoctl(extReportCall());
    let waits = 0;
    const end = await guest.runUntilAsync(
      () => job.done,
      async (ms) => {
        waits += ms > 0 ? 1 : 0;
        world.clock.advance(ms);
        if (waits === 3) {
          waits = 4;
          await other.ask('unlock');
        }
      },
    );
    expect(end).toEqual({ kind: 'done' });
    expect(job.result?.ret).toBe(0);
    const steps = world.takeSteps('a');
    const refused = steps.filter(
      ({ step, detail }) => step === 'complete-req-certs' && detail['sw_exit_info_2'] === '0x200000000',
    );
    expect(refused).toHaveLength(3);
    expect(steps.filter(({ step }) => step === 'guest-request')).toHaveLength(1);
    expect(steps.at(-1)?.step).toBe('open-response');
  });

  it('cannot be taken by another program between steps 3 and 6, and can right after', async () => {
    const guest = world.guest('a', new BlobFile(path));
    const job = guest.kernel.sevGuestIoctl(extReportCall());
    runToStep(world, guest, 'req-certs');
    expect(await other.ask('lock')).toBe('errno 11');
    runToStep(world, guest, 'guest-request');
    expect(world.steps.map(({ step }) => step)).not.toContain('lock-scope');
    expect(await other.ask('lock')).toBe('errno 11');
    runToStep(world, guest, 'lock-scope');
    expect(await other.ask('lock')).toBe('done');
    expect(await other.ask('unlock')).toBe('done');
    guest.runUntil(() => job.done, world.sleep);
    expect(job.result?.ret).toBe(0);
    expect(world.takeSteps('a').map(({ step }) => step)).toEqual([
      'extended-report',
      'ext-guest-request',
      'req-certs',
      'complete-req-certs',
      'guest-request',
      'lock-scope',
      'open-response',
    ]);
  });

  it('is shared by two guests of one host at the same time', async () => {
    const one = world.guest('one', new BlobFile(path));
    const two = world.guest('two', new BlobFile(path));
    const jobs = [one.kernel.sevGuestIoctl(extReportCall()), two.kernel.sevGuestIoctl(extReportCall())];
    const count = (step: string): number => world.steps.filter((event) => event.step === step).length;
    for (const guest of [one, two]) {
      const before = count('req-certs');
      for (let turns = 0; turns < 10_000 && count('req-certs') === before; turns++) {
        guest.step(0);
      }
    }
    expect(count('req-certs')).toBe(2);
    expect(count('lock-scope')).toBe(0);
    one.runUntil(() => jobs[0]!.done, world.sleep);
    expect(await other.ask('lock')).toBe('errno 11');
    two.runUntil(() => jobs[1]!.done, world.sleep);
    expect(await other.ask('lock')).toBe('done');
    expect(jobs.map(({ result }) => result?.ret)).toEqual([0, 0]);
  });
});
