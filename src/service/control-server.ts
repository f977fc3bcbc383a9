// SPDX-License-Identifier: Apache-2.0
/** The control API over HTTP on a unix socket that only its owner can reach. docs/reference/control-api.md */
import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { BugError, EnvironmentError, InputError } from '../lib/errors.ts';
import { environmentErrorOf, errnoCode } from '../os/errno.ts';
import type { LoggedEvent } from './event-log.ts';
import { type HostControl, MachineRefusal } from './host-control.ts';
import { KDS_REQUEST_LIMIT_BYTES } from './kds-door.ts';
import { SNAPSHOT_LIMIT_BYTES } from './snapshot-document.ts';
import { shortSocketPath } from './socket-path.ts';

/** A guest's options are the longest usual body: some paths and a command line. */
const BODY_LIMIT_BYTES = 64 * 1024;
const RESTORE = 'PUT /v1/snapshot';
const KDS = 'POST /v1/kds';
/** Requests with longer ones. */
const BODY_LIMITS: Readonly<Record<string, number>> = {
  [RESTORE]: SNAPSHOT_LIMIT_BYTES,
  [KDS]: KDS_REQUEST_LIMIT_BYTES,
};
/** A follower that reads this much too slowly is cut off. */
const FOLLOWER_LIMIT_BYTES = 4 << 20;

export interface ControlServer {
  readonly path: string;
  close(): Promise<void>;
}

export interface ControlServerOptions {
  readonly control: HostControl;
  /** Nobody else may be serving there: the state folder's lock sees to that. */
  readonly path: string;
  readonly onFault: (error: unknown, request: string) => void;
}

/**
 * Opens the socket, mode 0600.
 *
 * Errors   LISTEN_FAILED
 */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const { path } = options;
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    void serve(request, response, options);
  });
  rmSync(path, { force: true });
  await listen(server, path);
  return {
    path,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, path: string): Promise<void> {
  const socket = shortSocketPath(path);
  // The node gets its mode when it is made: there is no moment at which others could connect.
  const umask = process.umask(0o177);
  return new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `cannot listen: ${errnoCode(cause)}`;
      reject(new EnvironmentError('LISTEN_FAILED', message, { where: path, cause }));
    });
    server.listen(socket.path, resolve);
    process.umask(umask);
  }).finally(socket.done);
}

type Handler = (control: HostControl, body: unknown, name: string) => unknown;

/** Method and path; a last segment * stands for a name. */
const ROUTES: Readonly<Record<string, Handler>> = {
  'GET /v1/status': (control) => control.status(),
  'GET /v1/tcb': (control) => control.tcb(),
  'PUT /v1/tcb': (control, body) => control.updateFirmware(body),
  'POST /v1/commit': (control) => control.commit(),
  'PATCH /v1/config': (control, body) => control.config(body),
  'DELETE /v1/config': (control) => control.resetConfig(),
  'PUT /v1/vlek': (control, body) => control.loadVlek(body),
  'DELETE /v1/vlek': (control) => control.removeVlek(),
  'GET /v1/faults': (control) => control.faults(),
  'POST /v1/faults': (control, body) => control.addFault(body),
  'DELETE /v1/faults': (control) => control.clearFaults(),
  [KDS]: (control, body) => control.kds(body),
  'POST /v1/guests': (control, body) => control.addGuest(body),
  'DELETE /v1/guests/*': (control, _, name) => control.removeGuest(name),
  'GET /v1/snapshot': (control) => control.saveSnapshot(),
  [RESTORE]: (control, body) => control.restoreSnapshot(body),
};

/** Every request there is, as docs/reference/control-api.md lists them. */
export const CONTROL_REQUESTS: readonly string[] = ['GET /v1/events', ...Object.keys(ROUTES)];

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  { control, onFault }: ControlServerOptions,
): Promise<void> {
  const [path = '', query = ''] = (request.url ?? '').split('?');
  const asked = `${request.method} ${path}`;
  try {
    if (asked === 'GET /v1/events') {
      sendEvents(control, response, query === 'follow=1');
      return;
    }
    const [route, name] = routeOf(asked);
    if (route === undefined) {
      send(response, 404, problem('CONTROL_UNKNOWN', `no such request: ${asked.slice(0, 80)}`));
      return;
    }
    const body = await readJson(request, BODY_LIMITS[asked] ?? BODY_LIMIT_BYTES);
    const answer = await route(control, body, name);
    if (answer instanceof MachineRefusal) {
      const { step, reason, errno, fw_status } = answer;
      const more = { step, errno, fw_status };
      send(response, 409, problem('MACHINE_REFUSED', `${step}: ${reason}`, more));
      return;
    }
    send(response, 200, answer);
  } catch (error) {
    const { status, document } = judged(error);
    if (status === 500) {
      onFault(error, asked);
    }
    send(response, status, document);
  }
}

function routeOf(asked: string): [route: Handler | undefined, name: string] {
  const at = asked.lastIndexOf('/') + 1;
  const exact = ROUTES[asked];
  return exact === undefined ? [ROUTES[`${asked.slice(0, at)}*`], asked.slice(at)] : [exact, ''];
}

async function readJson(request: IncomingMessage, limitBytes: number): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limitBytes) {
      throw new InputError('OPTION_INVALID', `more than ${limitBytes} bytes`, { where: 'request' });
    }
    chunks.push(chunk);
  }
  if (size === 0) {
    return {};
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    throw new InputError('OPTION_INVALID', 'not a JSON document', { where: 'request', cause });
  }
}

function send(response: ServerResponse, status: number, document: unknown): void {
  const body = `${JSON.stringify(document)}\n`;
  response.writeHead(status, {
    // What is left of a body that was refused must not be read as the next request.
    connection: 'close',
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

const problem = (code: string, message: string, more: object = {}): object => ({
  error: { code, message, ...more },
});

/** How an exception looks from outside. */
function judged(thrown: unknown): { readonly status: number; readonly document: object } {
  const error = environmentErrorOf(thrown) ?? thrown;
  if (error instanceof InputError) {
    return {
      status: error.code === 'GUEST_UNKNOWN' ? 404 : 400,
      document: problem(error.code, error.message),
    };
  }
  if (error instanceof EnvironmentError) {
    return { status: 503, document: problem(error.code, error.message) };
  }
  const bug = error instanceof BugError ? error : new BugError('unexpected exception', { cause: error });
  return { status: 500, document: problem(bug.code, bug.message) };
}

/** One JSON object a line: the last events, then with `follow` those to come. */
function sendEvents({ service }: HostControl, response: ServerResponse, follow: boolean): void {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.flushHeaders();
  const write = (event: LoggedEvent): void => {
    response.write(`${JSON.stringify(event)}\n`);
    if (response.writableLength > FOLLOWER_LIMIT_BYTES) {
      response.destroy();
    }
  };
  service.events.recent().forEach(write);
  if (!follow) {
    response.end();
    return;
  }
  response.once('close', service.events.follow(write));
}
