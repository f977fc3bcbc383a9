// SPDX-License-Identifier: Apache-2.0
/** Asks a running host over its control socket. */
import { type IncomingMessage, request } from 'node:http';
import { ERROR_CODES, type ErrorCode } from '../lib/error-codes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { shortSocketPath } from './socket-path.ts';

/**
 * One request.
 *
 * Returns  the document of the answer
 * Errors   CONTROL_UNREACHABLE when nobody is there, CONTROL_DENIED when it is for others; else what the host says, MACHINE_REFUSED among it
 */
export async function controlRequest(
  socket: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const response = await send(socket, method, path, body);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += chunk;
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new EnvironmentError('CONTROL_UNREACHABLE', 'the answer is not of a softsnp', {
      where: socket,
      cause,
    });
  }
  if (response.statusCode === 200) {
    return document;
  }
  throw refusalOf(document, socket);
}

/** Calls back for each event, oldest first; with `follow` until the host ends. */
export async function controlEvents(
  socket: string,
  follow: boolean,
  onEvent: (line: string) => void,
): Promise<void> {
  const response = await send(socket, 'GET', `/v1/events${follow ? '?follow=1' : ''}`);
  let rest = '';
  try {
    for await (const chunk of response.setEncoding('utf8')) {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      lines.forEach(onEvent);
    }
  } catch (error) {
    // The host ended, or was killed: that is how following ends.
    if (errnoCode(error) !== 'ECONNRESET') {
      throw error;
    }
  }
}

/** Whether somebody accepts connections there. */
export function isAnswering(socket: string): Promise<boolean> {
  return send(socket, 'HEAD', '/').then(
    (response) => {
      response.resume();
      return true;
    },
    () => false,
  );
}

function send(socket: string, method: string, path: string, body?: unknown): Promise<IncomingMessage> {
  const unreachable = (cause: unknown): EnvironmentError => {
    const code = errnoCode(cause);
    return ['EACCES', 'EPERM'].includes(code)
      ? new EnvironmentError('CONTROL_DENIED', `may not be used: ${code}`, { where: socket, cause })
      : new EnvironmentError('CONTROL_UNREACHABLE', `no host answers: ${code}`, { where: socket, cause });
  };
  return new Promise((resolve, reject) => {
    let short: ReturnType<typeof shortSocketPath>;
    try {
      short = shortSocketPath(socket);
    } catch (error) {
      reject(unreachable(error));
      return;
    }
    const asked = request({ socketPath: short.path, method, path, agent: false }, resolve);
    asked.once('socket', (connection) => {
      connection.once('connect', short.done);
      connection.once('error', short.done);
    });
    asked.once('error', (error) => reject(unreachable(error)));
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function refusalOf(document: unknown, socket: string): InputError | EnvironmentError {
  const { code, message } = (document as { error?: { code?: unknown; message?: unknown } }).error ?? {};
  if (typeof code !== 'string' || typeof message !== 'string' || !(code in ERROR_CODES)) {
    return new EnvironmentError('CONTROL_UNREACHABLE', 'the answer is not of this softsnp', {
      where: socket,
    });
  }
  const known = code as ErrorCode;
  return ERROR_CODES[known].kind === 'input'
    ? new InputError(known, message)
    : new EnvironmentError(known, message);
}
