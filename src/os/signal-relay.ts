// SPDX-License-Identifier: Apache-2.0
/**
 * Passing signals on to a command that is in our own process group.
 *
 * A terminal sends SIGINT to the whole group, so the command has it already; kill -INT PID sends it to this
 * process alone, and the command must be told. What we get looks the same in both cases: Node does not say
 * who sent a signal. So a process in the group that does nothing else is the witness: what was sent to the
 * group, it has too.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const;
type Relayed = (typeof SIGNALS)[number];

/** Says the name of each signal it gets, and ends with its input. */
const WITNESS = `
for name in ${SIGNALS.map((signal) => signal.slice(3)).join(' ')}; do trap "got=1; echo SIG$name" $name; done
echo ready
while :; do got=; read -r line; [ -n "$got" ] || exit 0; done`;

/** A witness is told in the same moment as we are; this much later it is about another signal. */
const SAME_MS = 100;
const POLL_MS = 2;
/** How long a witness that is stopped, or has no processor to run on, is waited for. */
const PATIENCE_MS = 500;

export class SignalRelay {
  readonly #send: (signal: NodeJS.Signals) => void;
  readonly #witness: ChildProcess;
  /** When the witness last told of a signal. */
  readonly #told = new Map<string, number>();
  readonly #forward = (signal: NodeJS.Signals): void => {
    void this.#judge(signal as Relayed);
  };

  private constructor(witness: ChildProcess, send: (signal: NodeJS.Signals) => void) {
    this.#witness = witness;
    this.#send = send;
    witness.stdout!.on('data', (chunk) => {
      for (const name of String(chunk).split('\n')) {
        this.#told.set(name, performance.now());
      }
    });
    for (const signal of SIGNALS) {
      process.on(signal, this.#forward);
    }
  }

  /**
   * Catches the signals from now on.
   *
   * `send` passes one on; it is called for what was sent to this process and not to its group.
   */
  static async start(send: (signal: NodeJS.Signals) => void): Promise<SignalRelay> {
    const witness = spawn('sh', ['-c', WITNESS], { stdio: ['pipe', 'pipe', 'ignore'] });
    witness.stdin.on('error', () => undefined);
    const relay = new SignalRelay(witness, send);
    await new Promise<void>((resolve) => {
      witness.stdout.once('data', () => resolve());
      // Without a witness every signal is passed on.
      witness.once('error', () => resolve());
      witness.once('exit', () => resolve());
    });
    return relay;
  }

  close(): void {
    for (const signal of SIGNALS) {
      process.off(signal, this.#forward);
    }
    this.#witness.stdin!.end();
  }

  async #judge(signal: Relayed): Promise<void> {
    const caught = performance.now();
    const isTold = (): boolean => (this.#told.get(signal) ?? Number.NEGATIVE_INFINITY) > caught - SAME_MS;
    while (!isTold() && performance.now() - caught < PATIENCE_MS) {
      const hasNone = this.#isWaiting(signal);
      // What it said before it began to wait again is read meanwhile.
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      await new Promise((resolve) => setImmediate(resolve));
      if (hasNone) {
        break;
      }
    }
    if (!isTold()) {
      this.#send(signal);
    }
  }

  /** Whether the witness sleeps and the signal is not on its way to it. */
  #isWaiting(signal: Relayed): boolean {
    let status: string;
    try {
      status = readFileSync(`/proc/${this.#witness.pid}/status`, 'latin1');
    } catch {
      // It is gone, or never was.
      return true;
    }
    const bit = 1n << BigInt(constants.signals[signal] - 1);
    const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)];
    return /^State:\s*S/m.test(status) && pending.every(([, mask]) => (BigInt(`0x${mask}`) & bit) === 0n);
  }
}
