// SPDX-License-Identifier: Apache-2.0

/** The errno name node:fs put on an exception, ENOENT say, or its message when there is none. */
export function errnoCode(error: unknown): string {
  if (error instanceof Error) {
    return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
  }
  return String(error);
}
