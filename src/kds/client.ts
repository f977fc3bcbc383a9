// SPDX-License-Identifier: Apache-2.0
/**
 * Asks a key service, AMD's or softsnp's. What comes back is hostile until it is judged: nothing is kept or
 * returned that is not what was asked for, under a root that the caller trusts.
 */
import type { ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { fromPem, isOneDerSequence, toPem } from '../certs/pem.ts';
import { concat, readU64, utf8, writeU64 } from '../lib/bytes.ts';
import type { Clock } from '../lib/clock.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import {
  AMD_KDS,
  type AuthorityName,
  type EndorsementPath,
  formatKdsTarget,
  type KdsName,
  type VcekName,
} from './url.ts';

/** Intermediate (ASK or ASVK) and root, DER. */
export interface KdsChain {
  readonly intermediate: Uint8Array;
  readonly ark: Uint8Array;
}

/** Decides whether an answer is what was asked for. Each gives null for yes, or else the reason. */
export interface KdsJudge {
  chain(chain: KdsChain, name: AuthorityName): string | null;
  /** Names, chain, chip id and TCB. */
  vcek(der: Uint8Array, name: VcekName, chain: KdsChain): string | null;
  /**
   * Signature of the root, and its dates: a list past its nextUpdate is refused, and so is one with a lower
   * number than `seen`, the last list that was accepted.
   */
  crl(der: Uint8Array, name: AuthorityName, chain: KdsChain, seen: Uint8Array | null): string | null;
}

/** A cache that outlives the process; os/cache-dir.ts has one of files. Its contents are judged again. */
export interface KdsCache {
  /** What was last put under the key; null when it is missing or damaged. */
  get(key: string): Uint8Array | null;
  /** Best effort: a cache that cannot be written must not stop anything. */
  put(key: string, value: Uint8Array): void;
}

/** A cache that ends with the process. */
export class MemoryCache implements KdsCache {
  readonly #entries = new Map<string, Uint8Array>();
  readonly #capacity: number;

  constructor(capacity = 1024) {
    this.#capacity = capacity;
  }

  get(key: string): Uint8Array | null {
    return this.#entries.get(key) ?? null;
  }

  put(key: string, value: Uint8Array): void {
    this.#entries.delete(key);
    if (this.#entries.size >= this.#capacity) {
      this.#entries.delete(this.#entries.keys().next().value!);
    }
    this.#entries.set(key, value);
  }
}

/** The global `fetch` fits. */
export type KdsFetch = (url: string, init: RequestInit) => Promise<Response>;

export interface KdsClientOptions {
  readonly judge: KdsJudge;
  readonly clock: Clock;
  /** Left out: AMD's. A path is kept, for proxies that serve below one. */
  readonly base?: string;
  /** Left out: memory. */
  readonly cache?: KdsCache;
  readonly fetch?: KdsFetch;
  /** Waits between attempts. */
  readonly sleep?: (ms: number) => Promise<void>;
  /** A number from 0 to below 1, for jitter. */
  readonly jitter?: () => number;
  readonly timing?: Partial<KdsTiming>;
  /** An attempt failed and another follows, or (null) what is in the cache serves: worth a line in the log. */
  readonly onTrouble?: (url: string, why: string, waitMs: number | null) => void;
}

export interface KdsTiming {
  /** For one call, retries and waiting included. */
  readonly deadlineMs: number;
  /** For one attempt, to the last byte. */
  readonly attemptMs: number;
  /** First wait; doubles with each attempt. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** Chains and lists are asked for again after this time, and kept in use if that fails. */
  readonly refreshMs: number;
  /** A "not found" is believed for this long. */
  readonly notFoundMs: number;
}

/**
 * AMD's service lets one request per VCEK through in about ten seconds, and under load throttling has been
 * seen to outlast two minutes.
 */
export const DEFAULT_TIMING: KdsTiming = Object.freeze({
  deadlineMs: 180_000,
  attemptMs: 15_000,
  backoffMs: 1000,
  maxBackoffMs: 30_000,
  refreshMs: 86_400_000,
  notFoundMs: 30_000,
});

/** A VCEK has 1360 bytes, a chain 4540, AMD's lists 800. */
const MAX_BODY_BYTES = 65_536;

/** Negative answers remembered. */
const MAX_NOT_FOUND = 1024;

const RETRIED_STATUS: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

export class KdsClient {
  readonly #options: KdsClientOptions;
  readonly #cache: KdsCache;
  readonly #base: string;
  readonly #timing: KdsTiming;
  readonly #flights = new Map<string, Promise<unknown>>();
  readonly #notFound = new Map<string, number>();

  /** Errors   OPTION_INVALID for a base that is no http or https URL */
  constructor(options: KdsClientOptions) {
    this.#options = options;
    this.#cache = options.cache ?? new MemoryCache();
    this.#base = baseOf(options.base ?? AMD_KDS);
    this.#timing = { ...DEFAULT_TIMING, ...options.timing };
  }

  /**
   * The intermediate and root of a product line.
   *
   * Errors   KDS_NOT_FOUND, KDS_UNAVAILABLE, KDS_ANSWER_REFUSED
   */
  chain(path: EndorsementPath, product: ProductLine): Promise<KdsChain> {
    return this.#chain(path, product, this.#deadline());
  }

  /**
   * The certificate of one chip for one TCB, DER. One that was fetched before is not fetched again: the
   * service issues another for the same key each time, and the old one is as good.
   *
   * Shape    hwid as hwidOfChipId makes it
   * Errors   KDS_NOT_FOUND, KDS_UNAVAILABLE, KDS_ANSWER_REFUSED
   */
  vcek(product: ProductLine, hwid: string, tcb: TcbParts): Promise<Uint8Array> {
    const name: VcekName = { type: 'vcek', product, hwid: hwid.toLowerCase(), tcb };
    return this.#once(this.#url(name), async (url) => {
      const { judge } = this.#options;
      const untilMs = this.#deadline();
      const chain = await this.#chain('vcek', product, untilMs);
      const kept = this.#cache.get(url);
      if (kept !== null && judge.vcek(kept, name, chain) === null) {
        return kept;
      }
      const der = await this.#download(url, derOfBody, untilMs);
      if (judge.vcek(der, name, chain) !== null) {
        // AMD has replaced an intermediate before: the chain may be older than the certificate.
        const renewed = await this.#chain('vcek', product, untilMs, true);
        const why = judge.vcek(der, name, renewed);
        if (why !== null) {
          throw refused(url, why);
        }
      }
      this.#cache.put(url, der);
      return der;
    });
  }

  /**
   * The root's revocation list, DER; never one whose nextUpdate has passed.
   *
   * Errors   KDS_NOT_FOUND, KDS_UNAVAILABLE, KDS_ANSWER_REFUSED
   */
  async crl(path: EndorsementPath, product: ProductLine): Promise<Uint8Array> {
    const name: AuthorityName = { type: 'crl', path, product };
    const untilMs = this.#deadline();
    const chain = await this.#chain(path, product, untilMs);
    const seen = this.#entry(this.#url(name))?.bytes ?? null;
    const judge = (der: Uint8Array): string | null => this.#options.judge.crl(der, name, chain, seen);
    return this.#refreshed(name, { read: derOfBody, judge, untilMs, renew: false });
  }

  async #chain(
    path: EndorsementPath,
    product: ProductLine,
    untilMs: number,
    renew = false,
  ): Promise<KdsChain> {
    const name: AuthorityName = { type: 'cert_chain', path, product };
    const judge = (bytes: Uint8Array): string | null => {
      const chain = chainOfPem(bytes);
      return chain === null ? 'not two certificates in PEM' : this.#options.judge.chain(chain, name);
    };
    return chainOfPem(await this.#refreshed(name, { read: chainOfBody, judge, untilMs, renew }))!;
  }

  /**
   * Something that changes now and then: from the cache while that is fresh, else from the service, else
   * from the cache for as long as the judge allows. With something kept one attempt is enough: what the
   * call is made for may need the rest of its time.
   */
  #refreshed(name: AuthorityName, { read, judge, untilMs, renew }: Refreshing): Promise<Uint8Array> {
    const flight = renew ? ' renewed' : '';
    return this.#once(this.#url(name) + flight, async () => {
      const url = this.#url(name);
      const entry = this.#entry(url);
      const kept = entry !== null && judge(entry.bytes) === null ? entry : null;
      if (kept?.isFresh && !renew) {
        return kept.bytes;
      }
      try {
        const bytes = await this.#download(url, read, untilMs, kept !== null && !renew ? 1 : undefined);
        const why = judge(bytes);
        if (why !== null) {
          throw refused(url, why);
        }
        this.#cache.put(url, dated(this.#options.clock.nowMs(), bytes));
        return bytes;
      } catch (error) {
        if (kept !== null && error instanceof EnvironmentError) {
          this.#options.onTrouble?.(url, error.message, null);
          return kept.bytes;
        }
        throw error;
      }
    });
  }

  /** A cached thing with the time it was put there; not judged. */
  #entry(url: string): { readonly bytes: Uint8Array; readonly isFresh: boolean } | null {
    const entry = this.#cache.get(url);
    if (entry === null || entry.length < 8) {
      return null;
    }
    const ageMs = this.#options.clock.nowMs() - Number(readU64(entry, 0));
    // An entry from the future tells that a clock was set back: not fresh, whatever it says.
    return { bytes: entry.subarray(8), isFresh: ageMs >= 0 && ageMs < this.#timing.refreshMs };
  }

  /** Whoever asks for the same thing at the same time shares one answer. */
  #once<T>(key: string, work: (key: string) => Promise<T>): Promise<T> {
    const running = this.#flights.get(key);
    if (running !== undefined) {
      return running as Promise<T>;
    }
    const flight = work(key).finally(() => {
      this.#flights.delete(key);
    });
    this.#flights.set(key, flight);
    return flight;
  }

  #deadline(): number {
    return this.#options.clock.monotonicMs() + this.#timing.deadlineMs;
  }

  async #download(
    url: string,
    read: (body: Uint8Array) => Uint8Array | null,
    untilMs: number,
    maxAttempts = Number.POSITIVE_INFINITY,
  ): Promise<Uint8Array> {
    const { clock, jitter = Math.random, sleep = sleepFor, onTrouble } = this.#options;
    if ((this.#notFound.get(url) ?? Number.NEGATIVE_INFINITY) > clock.monotonicMs()) {
      throw notFound(url);
    }
    for (let attempt = 1; ; attempt++) {
      const leftMs = Math.floor(untilMs - clock.monotonicMs());
      if (leftMs <= 0) {
        throw unavailable(url, 'no time was left to ask');
      }
      const outcome = await this.#attempt(url, Math.min(leftMs, this.#timing.attemptMs), read);
      if (outcome instanceof Uint8Array) {
        return outcome;
      }
      if (outcome.kind === 'not found') {
        this.#rememberNotFound(url, clock.monotonicMs());
        throw notFound(url);
      }
      if (outcome.kind === 'refused') {
        throw refused(url, outcome.why);
      }
      const backoffMs = Math.min(this.#timing.backoffMs * 2 ** (attempt - 1), this.#timing.maxBackoffMs);
      // Half fixed, half random: clients that were turned away together do not come back together.
      const waitMs = Math.max(backoffMs * (0.5 + 0.5 * jitter()), outcome.retryAfterMs);
      if (attempt >= maxAttempts || clock.monotonicMs() + waitMs >= untilMs) {
        const times = attempt === 1 ? 'one attempt' : `${attempt} attempts`;
        throw unavailable(url, `no answer after ${times}: ${outcome.why}`, outcome.cause);
      }
      onTrouble?.(url, outcome.why, waitMs);
      await sleep(waitMs);
    }
  }

  async #attempt(
    url: string,
    timeoutMs: number,
    read: (body: Uint8Array) => Uint8Array | null,
  ): Promise<Uint8Array | Failure> {
    const { clock, fetch: get = fetch } = this.#options;
    const request = new AbortController();
    let isRead = false;
    const timer = setTimeout(() => {
      request.abort();
    }, timeoutMs);
    try {
      const response = await get(url, {
        // The service never redirects; whoever does is not the service.
        redirect: 'manual',
        headers: { accept: '*/*', 'accept-encoding': 'identity' },
        signal: request.signal,
      });
      if (response.status !== 200) {
        return failureOfStatus(response, clock.nowMs());
      }
      const body = await boundedBody(response);
      if (body === null) {
        return { kind: 'refused', why: `more than ${MAX_BODY_BYTES} bytes` };
      }
      isRead = true;
      // A cut or foreign body may be an accident on the way: worth another attempt.
      return read(body) ?? { kind: 'transient', why: 'not what the service has', retryAfterMs: 0 };
    } catch (cause) {
      const why = request.signal.aborted ? `no answer within ${timeoutMs} ms` : causeText(cause);
      // The fetch standard blocks some ports, and will do so at every attempt.
      if (why === 'bad port') {
        throw new InputError('OPTION_INVALID', 'is of a port that fetch refuses', { where: url, cause });
      }
      return { kind: 'transient', why, retryAfterMs: 0, cause };
    } finally {
      clearTimeout(timer);
      if (!isRead) {
        // A body that nobody wants may never end, and would keep the process from ending.
        request.abort();
      }
    }
  }

  #rememberNotFound(url: string, nowMs: number): void {
    if (this.#notFound.size >= MAX_NOT_FOUND) {
      this.#notFound.delete(this.#notFound.keys().next().value!);
    }
    this.#notFound.set(url, nowMs + this.#timing.notFoundMs);
  }

  #url(name: KdsName): string {
    return `${this.#base}${formatKdsTarget(name)}`;
  }
}

interface Refreshing {
  /** The body in the form that is kept; null when it is not of the kind asked for. */
  readonly read: (body: Uint8Array) => Uint8Array | null;
  readonly judge: (bytes: Uint8Array) => string | null;
  readonly untilMs: number;
  /** Ask the service, however fresh the cache is. */
  readonly renew: boolean;
}

type Failure =
  | { readonly kind: 'not found' }
  | { readonly kind: 'refused'; readonly why: string }
  | {
      readonly kind: 'transient';
      readonly why: string;
      readonly retryAfterMs: number;
      readonly cause?: unknown;
    };

const sleepFor = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

function baseOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text.slice(0, 80))} is no http or https URL`, {
      where: 'url',
    });
  }
  return url.href.replace(/\/+$/, '');
}

const refused = (url: string, why: string): EnvironmentError =>
  new EnvironmentError('KDS_ANSWER_REFUSED', why, { where: url });

const unavailable = (url: string, why: string, cause?: unknown): EnvironmentError =>
  new EnvironmentError('KDS_UNAVAILABLE', why, { where: url, cause });

const notFound = (url: string): EnvironmentError =>
  new EnvironmentError('KDS_NOT_FOUND', 'the key service does not know it', { where: url });

function failureOfStatus(response: Response, nowMs: number): Failure {
  const { status } = response;
  if (status === 404) {
    return { kind: 'not found' };
  }
  return RETRIED_STATUS.has(status)
    ? { kind: 'transient', why: `status ${status}`, retryAfterMs: retryAfterOf(response, nowMs) }
    : { kind: 'refused', why: `status ${status}` };
}

/** Seconds or a date; 0 when there is none or it makes no sense. RFC 9110 10.2.3. */
function retryAfterOf(response: Response, nowMs: number): number {
  const text = response.headers.get('retry-after') ?? '';
  if (/^[0-9]+$/.test(text)) {
    return Number(text) * 1000;
  }
  const date = Date.parse(text);
  return Number.isNaN(date) ? 0 : Math.max(0, date - nowMs);
}

/** The body, or null when it is too long: counted after decompression, and given up at the limit. */
async function boundedBody(response: Response): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      return null;
    }
    chunks.push(chunk);
  }
  return concat(...chunks);
}

const causeText = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? ('code' in cause ? String(cause.code) : cause.message) : String(cause);
};

const derOfBody = (body: Uint8Array): Uint8Array | null => (isOneDerSequence(body) ? body : null);

/** The chain in one spelling, so that what stands around the blocks is not kept. */
function chainOfBody(body: Uint8Array): Uint8Array | null {
  const chain = chainOfPem(body);
  return chain === null ? null : utf8(toPem(chain.intermediate) + toPem(chain.ark));
}

function chainOfPem(bytes: Uint8Array): KdsChain | null {
  try {
    const [intermediate, ark, ...more] = fromPem(new TextDecoder('latin1').decode(bytes));
    const isChain = intermediate !== undefined && ark !== undefined && more.length === 0;
    return isChain && isOneDerSequence(intermediate) && isOneDerSequence(ark) ? { intermediate, ark } : null;
  } catch (error) {
    if (error instanceof InputError) {
      return null;
    }
    throw error;
  }
}

function dated(nowMs: number, bytes: Uint8Array): Uint8Array {
  const stamp = new Uint8Array(8);
  writeU64(stamp, 0, BigInt(Math.max(0, Math.floor(nowMs))));
  return concat(stamp, bytes);
}
