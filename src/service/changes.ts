// SPDX-License-Identifier: Apache-2.0
/**
 * What becomes of a command that changes the key when the disk does not take what goes with it. It is either
 * complete, state saved and blobs written, or taken back. Where there is no way back (what SNP_COMMIT raises
 * stays up) it is incomplete, and told so, until a later change or a guest's next try finds the disk better.
 */
import { formatTcb } from '../abi/tcb-version.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { goBack, type Host, isAt, type PlatformPoint } from '../machine/index.ts';
import { tryLockBlobs } from '../os/blob-file.ts';
import type { EventLog } from './event-log.ts';
import { signingKeyOf } from './host-blobs.ts';
import type { KeptFiles } from './kept-files.ts';
import type { ServedGuest } from './served-guest.ts';

export interface ChangesOptions {
  readonly files: KeptFiles;
  readonly events: EventLog;
  /** The machine that runs now, and its guests. */
  readonly host: () => Host;
  readonly guests: () => Iterable<ServedGuest>;
}

/** Commands that there is no way back from. */
const FINAL: ReadonlySet<string> = new Set(['SNP_COMMIT']);

/** What a command that is not complete has done to the platform. */
type Outcome = 'taken back' | 'done' | 'without effect';

export class Changes {
  readonly #options: ChangesOptions;
  #failure: string | null = null;

  constructor(options: ChangesOptions) {
    this.#options = options;
  }

  /** Why not all of the files are in step with the machine; null when they are. */
  get failure(): string | null {
    return this.#isComplete ? null : this.#failure;
  }

  get #isComplete(): boolean {
    const { files, host } = this.#options;
    return files.isSaved(host()) && this.#behind().length === 0;
  }

  /** Guests whose certificates are not of the key that signs. */
  #behind(): ServedGuest[] {
    const { files, host, guests } = this.#options;
    return files.behind(host(), guests());
  }

  /**
   * Before a command: one that is final is given only when the disk has just taken what it may have to write.
   *
   * Errors   STATE_UNWRITABLE; the command is not to be given
   */
  begin(command: string): void {
    const { files, host, guests } = this.#options;
    if (!FINAL.has(command)) {
      return;
    }
    try {
      files.rehearse(host(), guests());
    } catch (error) {
      throw told(error, `${command} was not given`);
    }
  }

  /**
   * After a command, with the exclusive locks of the blobs held: writes what it has changed, or takes it back.
   *
   * Errors   STATE_UNWRITABLE with nothing changed; CHANGE_INCOMPLETE
   */
  complete(command: string, before: PlatformPoint): void {
    const { files, host, guests } = this.#options;
    const changed = !isAt(host(), before);
    try {
      files.settle(host(), guests());
    } catch (error) {
      throw this.#takeBack(command, changed ? before : null, error);
    }
    if (changed) {
      this.tellPlatform(command);
    }
    this.recovered();
  }

  /** @param before null when the command has changed nothing: what could not be written is of an earlier one */
  #takeBack(command: string, before: PlatformPoint | null, error: unknown): unknown {
    const { files, host, guests } = this.#options;
    if (before === null) {
      return this.incomplete(command, 'without effect', error);
    }
    if (!goBack(host(), before)) {
      return this.incomplete(command, 'done', error);
    }
    try {
      files.settle(host(), guests());
    } catch {
      return this.incomplete(command, 'taken back', error);
    }
    this.#tell(command, 'taken back', error);
    this.recovered();
    return told(error, `${command} is taken back`);
  }

  /** Tells of it, and remembers it until it is complete. */
  incomplete(command: string, outcome: Outcome, error: unknown): EnvironmentError {
    const { files, host } = this.#options;
    const said = this.#tell(command, outcome, error);
    const behind = this.#behind().map(({ spec }) => spec.name);
    const parts = [
      said,
      `${command} is ${outcome}`,
      ...(files.isSaved(host()) ? [] : ['a restart finds what was before']),
      ...(behind.length === 0 ? [] : [`no certificates now for ${behind.join(', ')}`]),
    ];
    this.#failure = parts.join('; ');
    return new EnvironmentError('CHANGE_INCOMPLETE', this.#failure, { cause: error });
  }

  /** Returns  what the error says */
  #tell(command: string, outcome: Outcome, thrown: unknown): string {
    const { events, files, host } = this.#options;
    const error = thrown instanceof Error ? thrown.message : String(thrown);
    events.emit({
      ...{ type: 'failure', command, outcome, error },
      saved: files.isSaved(host()),
      guests: this.#behind().map(({ spec }) => spec.name),
    });
    return error;
  }

  tellPlatform(command: string): void {
    const { events, host } = this.#options;
    const { reportedTcb, chip } = host();
    const key = signingKeyOf(host());
    events.emit({ type: 'platform', command, reported_tcb: formatTcb(reportedTcb, chip.product), key });
  }

  /** Something has been written: perhaps all of it is complete now. */
  recovered(): void {
    if (this.#failure !== null && this.#isComplete) {
      this.#failure = null;
      this.#options.events.emit({ type: 'recovery' });
    }
  }

  /** For a guest that asks for certificates while its own are behind: perhaps they can be written now. */
  catchUp(): void {
    const { files, host } = this.#options;
    const behind = this.#behind();
    try {
      const update = tryLockBlobs(behind.map(({ blob }) => blob.name));
      try {
        if (update !== null) {
          files.settle(host(), behind);
          this.recovered();
        }
      } finally {
        update?.release();
      }
    } catch {
      // It was told when it failed first, and the guest asks again in two seconds.
    }
  }
}

/** The error, with what became of the command; one that nobody foresaw stays as it is. */
function told(error: unknown, what: string): unknown {
  return error instanceof EnvironmentError
    ? new EnvironmentError(error.code, `${error.message}; ${what}`, { cause: error })
    : error;
}
