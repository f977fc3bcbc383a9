// SPDX-License-Identifier: Apache-2.0
import { errnoName } from '../abi/errno.ts';
import { EnvironmentError } from '../lib/errors.ts';

/** The errno name node:fs put on an exception, ENOENT say, or its message when there is none. */
export function errnoCode(error: unknown): string {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const { code, errno } = error as NodeJS.ErrnoException;
  // Node has no name for some, EDQUOT for one.
  if (typeof errno === 'number' && (code === undefined || /^unknown/i.test(code))) {
    return errnoName(errno);
  }
  return typeof code === 'string' ? code : error.message;
}

/** What the system has no more of, by errno. */
const EXHAUSTED: Readonly<Record<string, string>> = {
  EMFILE: 'too many open files in this process',
  ENFILE: 'too many open files in the system',
  ENOMEM: 'out of memory',
  ENOSPC: 'no space left on the device',
  EDQUOT: 'the disk quota is used up',
};

/**
 * What an exception of Node says of the surroundings rather than of softsnp: something has run out, or a
 * module is not there.
 *
 * Returns  null for any other
 */
export function environmentErrorOf(error: unknown): EnvironmentError | null {
  if (!(error instanceof Error) || error instanceof EnvironmentError) {
    return null;
  }
  const { path, syscall } = error as NodeJS.ErrnoException;
  const code = errnoCode(error);
  const where = path ?? syscall;
  const detail = { cause: error, ...(where === undefined ? {} : { where }) };
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') {
    return new EnvironmentError('INSTALLATION_INCOMPLETE', error.message.split('\n')[0]!, { cause: error });
  }
  if (code === 'EAGAIN' && syscall?.startsWith('spawn') === true) {
    return new EnvironmentError('RESOURCES_EXHAUSTED', 'no further process can be started: EAGAIN', detail);
  }
  const what = EXHAUSTED[code];
  return what === undefined ? null : new EnvironmentError('RESOURCES_EXHAUSTED', `${what}: ${code}`, detail);
}
