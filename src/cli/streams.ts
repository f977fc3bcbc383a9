// SPDX-License-Identifier: Apache-2.0
/** What becomes of a command whose reader goes away or whose output cannot be written. */
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import { ERROR_CODES } from '../lib/error-codes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';

/** The process as far as it is needed here; a test gives another. */
export interface Process {
  readonly stdout: Writable;
  readonly stderr: Writable;
  exit(code: number): void;
  listenerCount(signal: 'SIGTERM'): number;
}

/**
 * Ends commands as SIGPIPE ends those of other languages: Node ignores that signal and throws instead.
 *
 * A closed stdout ends the command with 141, unless it ends on signals in an order of its own: a server
 * goes on without a reader. A closed stderr ends nothing, there is only nobody to complain to.
 */
export function watchStreams(process: Process): void {
  process.stdout.on('error', (error) => {
    if (errnoCode(error) !== 'EPIPE') {
      const { message, code, action } = new EnvironmentError('FILE_UNWRITABLE', errnoCode(error), {
        where: 'standard output',
        cause: error,
      });
      process.stderr.write(`softsnp: ${message} [${code}]\n  ${action}\n`);
      process.exit(ERROR_CODES.FILE_UNWRITABLE.exit);
    } else if (process.listenerCount('SIGTERM') === 0) {
      process.exit(128 + constants.signals.SIGPIPE);
    }
  });
  process.stderr.on('error', () => undefined);
}
