// SPDX-License-Identifier: Apache-2.0
/** The kernel's lock contract, with a program that is not ours on the other side: Python's fcntl. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Errno } from '../../src/abi/errno.ts';
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

  async kill(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
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

  /** An extended request while the other program has the lock; it lets go after so many milliseconds. */
  async function askWhileLocked(
    guest: Guest,
    heldMs: number,
    letGo: () => Promise<unknown> = () => other.ask('unlock'),
  ) {
    expect(await other.ask('lock')).toBe('done');
    const began = world.clock.monotonicMs();
    const job = guest.kernel.sevGuestIoctl(extReportCall());
    let held = true;
    const end = await guest.runUntilAsync(
      () => job.done,
      async (ms) => {
        world.clock.advance(ms);
        if (held && world.clock.monotonicMs() - began >= heldMs) {
          held = false;
          await letGo();
        }
      },
    );
    expect(end).toEqual({ kind: 'done' });
    return { result: job.result!, waitedMs: world.clock.monotonicMs() - began };
  }

  it('held by another program makes the guest see 0x2_0000_0000, and the request succeeds after release', async () => {
    const guest = world.guest('a', new BlobFile(path));
    expect((await askWhileLocked(guest, 5000)).result.ret).toBe(0);
    const steps = world.takeSteps('a');
    const refused = steps.filter(
      ({ step, detail }) => step === 'complete-req-certs' && detail['sw_exit_info_2'] === '0x200000000',
    );
    expect(refused).toHaveLength(3);
    expect(steps.filter(({ step }) => step === 'guest-request')).toHaveLength(1);
    expect(steps.at(-1)?.step).toBe('open-response');
  });

  it.each([100, 10_000])('held for %i ms costs the guest that and at most one more wait', async (heldMs) => {
    const guest = world.guest('a', new BlobFile(path));
    const { result, waitedMs } = await askWhileLocked(guest, heldMs);
    expect(result.ret).toBe(0);
    expect(result.certs!.subarray(0, 64)).toEqual(Uint8Array.from(readFileSync(path).subarray(0, 64)));
    expect(waitedMs).toBeGreaterThanOrEqual(heldMs);
    expect(waitedMs).toBeLessThanOrEqual(heldMs + 2000);
  });

  it('held for ever ends the request with ETIMEDOUT, and that guest; others are served after the release', async () => {
    const guest = world.guest('a', new BlobFile(path));
    const { result, waitedMs } = await askWhileLocked(guest, Number.POSITIVE_INFINITY);
    expect(result.ret).toBe(-Errno.ETIMEDOUT);
    expect(waitedMs).toBeGreaterThanOrEqual(60_000);
    expect(waitedMs).toBeLessThanOrEqual(62_000);
    expect(world.takeSteps('a').filter(({ step }) => step === 'guest-request')).toEqual([]);
    expect(await other.ask('unlock')).toBe('done');
    const next = guest.kernel.sevGuestIoctl(extReportCall());
    guest.runUntil(() => next.done, world.sleep);
    expect(next.result?.ret).toBe(-Errno.ENOTTY);
    const another = world.guest('b', new BlobFile(path));
    const job = another.kernel.sevGuestIoctl(extReportCall());
    another.runUntil(() => job.done, world.sleep);
    expect(job.result?.ret).toBe(0);
  });

  it('is free again when the program that held it is killed', async () => {
    const guest = world.guest('a', new BlobFile(path));
    const { result, waitedMs } = await askWhileLocked(guest, 3000, () => other.kill());
    expect(result.ret).toBe(0);
    expect(waitedMs).toBeLessThanOrEqual(5000);
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
