// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp/errors: the three kinds of exception softsnp throws. Everything the modelled machine can do wrong is a
 * returned value instead (firmware status, errno, SW_EXITINFO2, RMP fault): see `abi/`.
 */
import { ERROR_CODES, type ErrorCode } from './error-codes.ts';

export type { ErrorCode };

export interface ErrorDetail {
  /** Layout and offset, JSON path, option name or file path the error is about. */
  readonly where?: string;
  readonly cause?: unknown;
  /** What to do about it, where something better can be said than for all errors of the code. */
  readonly action?: string;
}

abstract class SoftsnpError extends Error {
  readonly code: ErrorCode;
  readonly where: string | undefined;
  /** What the person who sees the error can do about it. */
  readonly action: string;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(
      detail.where === undefined ? message : `${detail.where}: ${message}`,
      detail.cause === undefined ? undefined : { cause: detail.cause },
    );
    this.code = code;
    this.where = detail.where;
    this.action = detail.action ?? ERROR_CODES[code].action;
  }
}

/** Malformed bytes, text or arguments from a caller or a peer. */
export class InputError extends SoftsnpError {
  override readonly name = 'InputError';
}

/** The host lacks something: a file, a lock, a library, a permission. */
export class EnvironmentError extends SoftsnpError {
  override readonly name = 'EnvironmentError';
}

/** A defect in softsnp itself; caught only at the edge of the process. */
export class BugError extends SoftsnpError {
  override readonly name = 'BugError';

  constructor(message: string, detail: ErrorDetail = {}) {
    super('BUG', message, detail);
  }
}

/** States what must hold here; stays on in production. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) {
    throw new BugError(message);
  }
}
