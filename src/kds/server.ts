// SPDX-License-Identifier: Apache-2.0
/**
 * The key service on sockets: plain HTTP, TLS as kdsintf.amd.com, and TLS with client certificates for
 * cloud providers. Everything a client sends has a limit in size and time.
 */

import { constants } from 'node:crypto';
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { EnvironmentError, invariant } from '../lib/errors.ts';
import type { KdsAnswer, KdsAnswerer, KdsRequest } from './service.ts';
import type { TlsIdentity } from './tls.ts';

/** Where to listen; port 0 takes a free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface KdsLimits {
  /** Request line and headers. The longest honest ones have some 400 bytes. */
  readonly headerBytes: number;
  /** Body of a POST: room for the ids of all chips one request may name. */
  readonly bodyBytes: number;
  /** From the first byte of a request to the end of its headers. */
  readonly headersTimeoutMs: number;
  /** To the end of its body. */
  readonly requestTimeoutMs: number;
  /** A connection without a request, or whose client does not read. */
  readonly idleTimeoutMs: number;
  /** Connections per port; above it, one that has no request to be answered makes room. */
  readonly connections: number;
  /** Requests per port that wait for an answer; above it, the connection that has sent most of them goes. */
  readonly waiting: number;
  /** How long `close` lets answers under way finish. */
  readonly graceMs: number;
}

export const DEFAULT_LIMITS: KdsLimits = Object.freeze({
  headerBytes: 8192,
  bodyBytes: 256 * 1024,
  headersTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  idleTimeoutMs: 30_000,
  connections: 4096,
  waiting: 16_384,
  graceMs: 2000,
});

export interface KdsLogEntry {
  readonly port: 'http' | 'tls' | 'provider';
  readonly source: string;
  readonly method: string;
  readonly target: string;
  readonly status: number;
  readonly bytes: number;
  /** Fault in the way it was sent, or null. */
  readonly fault: string | null;
  readonly csp: string | null;
}

export interface KdsServerOptions {
  readonly service: KdsAnswerer;
  readonly http?: ListenAddress;
  readonly tls?: ListenAddress;
  readonly provider?: ListenAddress;
  /** Needed for `tls` and `provider`. */
  readonly identity?: TlsIdentity;
  readonly limits?: Partial<KdsLimits>;
  readonly onAnswer?: (entry: KdsLogEntry) => void;
  /** A connection could not be accepted; or answering failed, a defect, and the client saw status 500. */
  readonly onFault: (error: unknown, request: string) => void;
}

/** A running service. */
export interface KdsServer {
  /** Base addresses, null for what was not asked for: http://127.0.0.1:8080. */
  readonly http: string | null;
  readonly tls: string | null;
  readonly provider: string | null;
  /** Open connections on all ports. */
  readonly connections: number;
  /** Takes no more requests, lets answers under way finish for a while, then ends every connection. */
  close(): Promise<void>;
}

/**
 * Opens the ports.
 *
 * Errors   LISTEN_FAILED when one cannot be had; the others are closed again
 */
export async function startKdsServer(options: KdsServerOptions): Promise<KdsServer> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const ports: Port[] = [];
  const open = async (kind: KdsLogEntry['port'], at: ListenAddress | undefined): Promise<string | null> => {
    if (at === undefined) {
      return null;
    }
    const port = new Port(kind, options, limits);
    ports.push(port);
    return port.listen(at);
  };
  const close = async (): Promise<void> => {
    await Promise.all(ports.map((port) => port.close()));
  };
  try {
    const http = await open('http', options.http);
    const tls = await open('tls', options.tls);
    const provider = await open('provider', options.provider);
    return {
      http,
      tls,
      provider,
      get connections() {
        return ports.reduce((sum, port) => sum + port.connections, 0);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const MIB = 1 << 20;

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

interface Connection {
  /** The TCP connection, below TLS. */
  readonly socket: Socket;
  /** Not yet answered, in the order of the requests; the first one is being answered. */
  readonly pending: Exchange[];
}

class Port {
  readonly #kind: KdsLogEntry['port'];
  readonly #options: KdsServerOptions;
  readonly #limits: KdsLimits;
  readonly #server: Server;
  /** By the client's address and port; oldest first. */
  readonly #connections = new Map<string, Connection>();
  /** Requests in all their queues. */
  #waiting = 0;

  constructor(kind: KdsLogEntry['port'], options: KdsServerOptions, limits: KdsLimits) {
    this.#kind = kind;
    this.#options = options;
    this.#limits = limits;
    const serverOptions: ServerOptions = {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.idleTimeoutMs,
      connectionsCheckingInterval: Math.min(1000, limits.headersTimeoutMs),
    };
    const listener = (request: IncomingMessage, response: ServerResponse): void => {
      this.#take({ request, response });
    };
    this.#server =
      kind === 'http'
        ? createServer(serverOptions, listener)
        : createTlsServer({ ...serverOptions, ...tlsOptions(kind, options, limits) }, listener);
    this.#server.timeout = limits.idleTimeoutMs;
    this.#server.on('connection', (socket: Socket) => {
      this.#admit(socket);
    });
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** @returns the base address */
  listen({ host, port }: ListenAddress): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.on('error', (cause: NodeJS.ErrnoException) => {
        if (this.#server.listening) {
          // A connection could not be accepted: out of file descriptors, say.
          this.#options.onFault(cause, 'accept');
          return;
        }
        const where = `${host}:${port}`;
        const message = `cannot listen: ${cause.code ?? cause.message}`;
        reject(new EnvironmentError('LISTEN_FAILED', message, { where, cause }));
      });
      this.#server.listen({ host, port }, () => {
        const bound = this.#server.address() as AddressInfo;
        const authority = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
        resolve(`${this.#kind === 'http' ? 'http' : 'https'}://${authority}:${bound.port}`);
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      const force = setTimeout(() => {
        this.#end(() => true);
      }, this.#limits.graceMs);
      // A server that never listened says so in an error, and is closed all the same.
      this.#server.close(() => {
        clearTimeout(force);
        this.#connections.clear();
        resolve();
      });
      this.#end(({ pending }) => pending.length === 0);
    });
  }

  #end(which: (connection: Connection) => boolean): void {
    for (const connection of this.#connections.values()) {
      if (which(connection)) {
        connection.socket.destroy();
      }
    }
  }

  /**
   * Remembers a connection. When there are too many, the oldest without a request goes: whoever holds
   * connections open and asks nothing cannot keep others out.
   */
  #admit(socket: Socket): void {
    const key = keyOf(socket);
    const connection: Connection = { socket, pending: [] };
    this.#connections.set(key, connection);
    socket.once('close', () => {
      this.#forget(connection);
      // The client may have come back from the same port already.
      if (this.#connections.get(key) === connection) {
        this.#connections.delete(key);
      }
    });
    if (this.#connections.size > this.#limits.connections) {
      for (const oldest of this.#connections.values()) {
        if (oldest.pending.length === 0) {
          oldest.socket.destroy();
          return;
        }
      }
    }
  }

  /** Lines a request up behind the earlier ones of its connection. */
  #take(exchange: Exchange): void {
    const connection = this.#connections.get(keyOf(exchange.request.socket));
    if (connection === undefined || connection.socket.destroyed) {
      // Gone between its request and now.
      exchange.request.destroy();
      return;
    }
    connection.pending.push(exchange);
    this.#waiting += 1;
    if (this.#waiting > this.#limits.waiting) {
      this.#dropLongest();
    }
    if (connection.pending.length === 1) {
      void this.#serve(connection);
    }
  }

  #dropLongest(): void {
    const longest = [...this.#connections.values()].reduce((most, connection) =>
      connection.pending.length > most.pending.length ? connection : most,
    );
    longest.socket.destroy();
    this.#forget(longest);
  }

  #forget({ pending }: Connection): void {
    this.#waiting -= pending.length;
    pending.length = 0;
  }

  /**
   * Answers what a connection has asked, one request after the other, and lets others have their turn in
   * between: who sends many at once waits for them alone.
   */
  async #serve(connection: Connection): Promise<void> {
    const { pending, socket } = connection;
    for (let next = pending[0]; next !== undefined && !socket.destroyed; next = pending[0]) {
      const { request, response } = next;
      const closed = endOf(response);
      try {
        await this.#respond(request, response, socket);
      } catch (error) {
        this.#options.onFault(error, `${request.method} ${request.url}`);
        if (!response.headersSent) {
          response.writeHead(500);
        }
        response.end();
      }
      await closed;
      await nextTurn();
      if (pending.shift() !== undefined) {
        this.#waiting -= 1;
      }
      if (pending.length === 0) {
        request.socket.resume();
      }
    }
    if (!this.#server.listening) {
      socket.destroy();
    }
  }

  async #respond(request: IncomingMessage, response: ServerResponse, socket: Socket): Promise<void> {
    const body = await readBody(request, request.method === 'POST' ? this.#limits.bodyBytes : 0);
    if (body === 'broken') {
      return;
    }
    if (body === 'too long') {
      // What is left of the body must not be read as the next request.
      response.writeHead(413, { connection: 'close', 'content-type': 'text/plain' });
      response.end('the body is too long\n');
      return;
    }
    // Nothing more is read until this one is answered: what a client sends ahead stays in the network.
    request.socket.pause();
    const asked: KdsRequest = {
      method: request.method ?? '',
      target: request.url ?? '',
      source: request.socket.remoteAddress ?? '',
      body,
      port: this.#kind === 'provider' ? 'provider' : 'public',
      csp: this.#kind === 'provider' ? providerOf(request.socket as TLSSocket) : null,
    };
    const answer = await this.#options.service.answer(asked);
    this.#options.onAnswer?.({
      port: this.#kind,
      source: asked.source,
      method: asked.method,
      target: asked.target,
      status: answer.status,
      bytes: answer.body.length,
      fault: answer.delivery?.kind ?? null,
      csp: asked.csp,
    });
    deliver(answer, response, socket);
  }
}

const nextTurn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

const endOf = (response: ServerResponse): Promise<void> =>
  new Promise((resolve) => {
    response.once('close', resolve);
  });

const keyOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort}`;

function tlsOptions(kind: KdsLogEntry['port'], options: KdsServerOptions, limits: KdsLimits) {
  const { identity } = options;
  invariant(identity !== undefined, 'TLS needs an identity');
  return {
    cert: identity.server.certificate,
    key: identity.server.privateKey,
    minVersion: 'TLSv1.2' as const,
    handshakeTimeout: limits.headersTimeoutMs,
    ...(kind === 'provider'
      ? {
          ca: identity.clientRoot,
          requestCert: true,
          // A client without a certificate gets an answer that says what is missing, not a broken handshake.
          rejectUnauthorized: false,
          // A resumed session would not bring the certificate along.
          secureOptions: constants.SSL_OP_NO_TICKET,
        }
      : {}),
  };
}

function providerOf(socket: TLSSocket): string | null {
  const name: unknown = socket.authorized ? socket.getPeerCertificate().subject?.CN : undefined;
  return typeof name === 'string' ? `CN=${name}` : null;
}

async function readBody(
  request: IncomingMessage,
  maxBytes: number,
): Promise<Uint8Array | 'too long' | 'broken'> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      size += (chunk as Buffer).length;
      if (size > maxBytes) {
        return 'too long';
      }
      chunks.push(chunk as Buffer);
    }
  } catch {
    return 'broken';
  }
  return Uint8Array.from(Buffer.concat(chunks));
}

function deliver(answer: KdsAnswer, response: ServerResponse, socket: Socket): void {
  const { status, headers, body, delivery } = answer;
  // These have no body, and a length would make clients wait for one.
  const isBodiless = status === 204 || status === 304;
  const length = isBodiless ? {} : { 'content-length': String(body.length) };
  const half = body.subarray(0, body.length >> 1);
  switch (delivery?.kind) {
    case 'silent':
      // Until the client gives up, which only who reads can see.
      response.socket?.setTimeout(0).resume();
      return;
    case 'reset':
      socket.resetAndDestroy();
      return;
    case 'reset-body':
      response.writeHead(status, { ...headers, ...length });
      response.write(half, () => socket.resetAndDestroy());
      return;
    case 'truncated':
      response.writeHead(status, { ...headers, ...length });
      response.write(half, () => socket.destroy());
      return;
    case 'chunk-cut':
      response.writeHead(status, headers);
      response.write(half, () => socket.destroy());
      return;
    case 'short-length':
      response.writeHead(status, { ...headers, 'content-length': String(body.length - 1) });
      response.end(body);
      return;
    case 'slow':
      response.writeHead(status, { ...headers, ...length });
      trickle(response, body, delivery.value);
      return;
    case 'huge':
      response.writeHead(status, { ...headers, 'content-length': String(delivery.value * MIB) });
      repeat(response, Buffer.alloc(MIB), delivery.value);
      return;
    case 'gzip-bomb':
      // Gzip members one after the other are one gzip stream.
      response.writeHead(status, { ...headers, 'content-encoding': 'gzip' });
      repeat(response, gzipSync(Buffer.alloc(MIB)), delivery.value);
      return;
    default:
      response.writeHead(status, { ...headers, ...length });
      response.end(body);
  }
}

function trickle(response: ServerResponse, body: Uint8Array, msPerByte: number): void {
  let at = 0;
  response.flushHeaders();
  const timer = setInterval(() => {
    response.write(body.subarray(at, at + 1));
    at += 1;
    if (at >= body.length) {
      clearInterval(timer);
      response.end();
    }
  }, msPerByte);
  response.once('close', () => {
    clearInterval(timer);
  });
}

function repeat(response: ServerResponse, chunk: Uint8Array, times: number): void {
  let left = times;
  const next = (): void => {
    while (left > 0 && !response.destroyed) {
      left -= 1;
      if (!response.write(chunk)) {
        response.once('drain', next);
        return;
      }
    }
    response.end();
  };
  next();
}
