// SPDX-License-Identifier: Apache-2.0
import { errnoName } from '../abi/errno.ts';

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
