// SPDX-License-Identifier: Apache-2.0
/** `softsnp console`: serves the page that verifies evidence in the browser; it receives nothing from it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type ArgsDef, defineCommand } from 'citty';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { shutdownSignal } from '../os/shutdown.ts';
import { integerOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';

const DEFAULT_PORT = 8485;

const ARGS = {
  port: {
    type: 'string',
    valueHint: 'N',
    description: 'Port; 0 for any free one',
    default: String(DEFAULT_PORT),
  },
  host: { type: 'string', valueHint: 'HOST', description: 'Address to listen on', default: '127.0.0.1' },
} as const satisfies ArgsDef;

/** `softsnp console`, writing to `output` and serving until the promise resolves. */
export function consoleVerb(
  output: Output,
  page: () => Promise<string> = builtPage,
  untilEnd: () => Promise<unknown> = shutdownSignal,
): Verb {
  return defineCommand({
    meta: {
      name: 'console',
      description:
        'Serve the page that verifies evidence in the browser. Prints a line when it is ready; SIGTERM and SIGINT end it',
    },
    args: ARGS,
    run: async ({ args }) => {
      const port = integerOption('port', args.port, 0, 65_535);
      const files = readPage(await page());
      const server = createServer((request, response) => answer(files, request, response));
      const ended = untilEnd();
      await listening(server, args.host, port);
      output.stdout(`softsnp console ready http=${urlOf(server)}\n`);
      if (!LOOPBACK.test(args.host)) {
        output.stderr(
          'softsnp: browsers have no WebCrypto on plain http from another machine; put https in front\n',
        );
      }
      await ended;
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      return EXIT_OK;
    },
  });
}

const LOOPBACK = /^(127\.|::1$|localhost$)/;

export const consoleCommand: Verb = consoleVerb(processOutput);

const CONSOLE = fileURLToPath(new URL('../../console/', import.meta.url));

/** The folder with the page: in a clone built when its source changed, in a package as it came. */
async function builtPage(): Promise<string> {
  const builder = join(CONSOLE, 'build.js');
  if (!existsSync(builder)) {
    return packagedPage(join(CONSOLE, 'dist'));
  }
  const { ensureConsoleBuilt } = (await import(pathToFileURL(builder).href)) as {
    ensureConsoleBuilt(): Promise<string>;
  };
  return ensureConsoleBuilt();
}

/**
 * The page of a package.
 *
 * Errors   INSTALLATION_INCOMPLETE when the package was made without it
 */
export function packagedPage(folder: string): string {
  if (!existsSync(join(folder, 'index.html'))) {
    throw new EnvironmentError('INSTALLATION_INCOMPLETE', 'the package was made without the page', {
      where: folder,
    });
  }
  return folder;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

interface PageFile {
  readonly type: string;
  readonly data: Uint8Array;
}

/** All files of the page by URL path, read once: no request ever names a file of this machine. */
function readPage(folder: string): ReadonlyMap<string, PageFile> {
  try {
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    const files = new Map<string, PageFile>();
    for (const name of names) {
      const type = TYPES[extname(name)];
      if (type !== undefined) {
        files.set(`/${name}`, { type, data: readFileSync(join(folder, name)) });
      }
    }
    return files.set('/', { type: TYPES['.html']!, data: readFileSync(join(folder, 'index.html')) });
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read the page: ${errnoCode(error)}`, {
      where: folder,
      cause: error,
    });
  }
}

/** The page may load its own files and nothing else, connect nowhere, and be framed by nobody. */
const HEADERS = {
  'content-security-policy':
    "default-src 'self'; connect-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'cache-control': 'no-cache',
} as const;

function answer(
  files: ReadonlyMap<string, PageFile>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { method = 'GET', url = '/' } = request;
  const isRead = method === 'GET' || method === 'HEAD';
  const file = isRead ? files.get(url.split('?')[0]!) : undefined;
  if (file === undefined) {
    response.writeHead(isRead ? 404 : 405, {
      ...HEADERS,
      'content-type': 'text/plain; charset=utf-8',
      ...(isRead ? {} : { allow: 'GET, HEAD' }),
    });
    response.end(isRead ? 'no such file\n' : 'GET and HEAD only\n');
    return;
  }
  response.writeHead(200, { ...HEADERS, 'content-type': file.type, 'content-length': file.data.length });
  response.end(method === 'HEAD' ? undefined : file.data);
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new EnvironmentError('LISTEN_FAILED', `cannot listen on ${host}:${port}: ${errnoCode(error)}`, {
          where: 'softsnp console',
          cause: error,
        }),
      );
    });
    server.listen(port, host, resolve);
  });
}

function urlOf(server: Server): string {
  const address = server.address();
  if (address === null || typeof address === 'string') {
    return String(address);
  }
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}/`;
}
