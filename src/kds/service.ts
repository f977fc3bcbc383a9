// SPDX-License-Identifier: Apache-2.0
/**
 * The key service without its sockets: a request in, an answer out. What it says follows AMD's service as
 * far as that is known; [KDS] chapter 4 and what its users report.
 */
import * as v from 'valibot';
import type { ProductLine } from '../abi/product.ts';
import { SevAmdCertificate, SevCertificate } from '../abi/sev-certificate.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { toPem } from '../certs/pem.ts';
import { CHIP_ID_SIZE, HWID_SIZE } from '../keys/index.ts';
import { fromHex, isZero, toHex, utf8 } from '../lib/bytes.ts';
import type { Clock } from '../lib/clock.ts';
import type { Random } from '../lib/crypto.ts';
import { type CertificateAuthority, embeddedAuthority } from './authority.ts';
import { CA_ROWS } from './ca-certificate.ts';
import { type Fault, FaultPlan } from './faults.ts';
import type { Fleet, FleetProvider } from './fleet.ts';
import { issueCrl, issueVcek, issueVlek } from './issue.ts';
import { type Rate, RateLimiter } from './rate-limit.ts';
import { issueCek, issueSevCa } from './sev-certificates.ts';
import { formatKdsTarget, isRefusal, type KdsName, parseKdsTarget, resourceLabel } from './url.ts';
import { yearsAfter } from './x509.ts';

export interface KdsRequest {
  readonly method: string;
  /** Path and query as they stand on the request line. */
  readonly target: string;
  /** Address of the client. */
  readonly source: string;
  /** Of a POST; empty otherwise. */
  readonly body: Uint8Array;
  /** 'public' is AMD's port 443; 'provider' its port 444, where clients have certificates. */
  readonly port: 'public' | 'provider';
  /** CN= and the common name of an accepted client certificate; null without one. */
  readonly csp: string | null;
}

/** Faults that are in how bytes are sent, not in which. */
export type Delivery = Pick<Fault, 'kind' | 'value'> | null;

export interface KdsAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  readonly delivery: Delivery;
}

/** Whoever answers requests: the service itself, or a way to one. */
export interface KdsAnswerer {
  answer(request: KdsRequest): KdsAnswer | Promise<KdsAnswer>;
}

export interface KdsServiceOptions {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly random: Random;
  /** Per source address and VCEK; none unless given. */
  readonly rate?: Rate;
  /** Whether a 429 says when to come back. Whether AMD's does is not known. */
  readonly retryAfter?: boolean;
  readonly faults?: FaultPlan;
}

/** Content types, of which AMD's clients read none. */
const DER_TYPE = 'application/octet-stream';
const PEM_TYPE = 'application/x-pem-file';
const JSON_TYPE = 'application/json';
const TEXT_TYPE = 'text/plain; charset=utf-8';

/** Seen by people who look at the traffic. */
const SERVER_HEADER = 'softsnp (TEST ROOT, NOT AMD)';

/** Chips in one request for hash sticks. */
const MAX_HWIDS = 1024;

const HashSticksRequest = v.object({
  hwids: v.pipe(v.array(v.pipe(v.string(), v.maxLength(2 * CHIP_ID_SIZE))), v.maxLength(MAX_HWIDS)),
});

const DAY_MS = 86_400_000;
/** AMD issues a list a year and lets it overlap with the next by some days. */
const CRL_PERIOD_MS = 365 * DAY_MS;
const CRL_OVERLAP_MS = 7 * DAY_MS;

export class KdsService implements KdsAnswerer {
  readonly fleet: Fleet;
  readonly faults: FaultPlan;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limiter: RateLimiter | null;
  readonly #retryAfter: boolean;
  readonly #authorities = new Map<ProductLine, CertificateAuthority>();
  readonly #sevCas = new Map<ProductLine, Uint8Array>();
  readonly #lists = new Map<ProductLine, { readonly number: number; readonly der: Uint8Array }>();

  constructor(options: KdsServiceOptions) {
    this.fleet = options.fleet;
    this.faults = options.faults ?? new FaultPlan();
    this.#clock = options.clock;
    this.#random = options.random;
    this.#limiter = options.rate === undefined ? null : new RateLimiter(options.rate);
    this.#retryAfter = options.retryAfter ?? false;
  }

  /** The answer to a request, whatever it is; never throws. */
  answer(request: KdsRequest): KdsAnswer {
    const answer = this.#answer(request);
    const headers: Record<string, string> = { server: SERVER_HEADER, ...answer.headers };
    if (request.port === 'public') {
      // AMD's service has no such header; without it no page in a browser could use this one.
      headers['access-control-allow-origin'] = '*';
    }
    return { ...answer, headers };
  }

  #answer(request: KdsRequest): KdsAnswer {
    const name = parseKdsTarget(request.target);
    if (isRefusal(name)) {
      return text(name.status, name.why);
    }
    const isProvider = name.type === 'vlek' || name.type === 'hash_sticks';
    if (request.port === 'provider' && !isProvider) {
      return text(404, 'this port has what providers get with their client certificate');
    }
    const allowed = name.type === 'hash_sticks' ? 'POST' : 'GET, HEAD';
    if (request.method === 'OPTIONS') {
      return this.#preflight(allowed);
    }
    if (!allowed.split(', ').includes(request.method)) {
      return { ...text(405, `${allowed} only`), headers: { 'content-type': TEXT_TYPE, allow: allowed } };
    }
    if (isProvider && request.csp === null) {
      return text(401, 'a client certificate of a cloud provider is needed, on the port for providers');
    }
    const fault = this.faults.take(resourceLabel(name));
    if (fault?.kind === 'status') {
      const { retryAfter } = fault;
      const told = text(fault.value, 'a fault on demand');
      return retryAfter === undefined
        ? told
        : { ...told, headers: { ...told.headers, 'retry-after': retryAfter } };
    }
    return faulty(fault, formatKdsTarget(name), this.#content(name, request, fault));
  }

  #preflight(allowed: string): KdsAnswer {
    return {
      status: 204,
      headers: {
        allow: allowed,
        'access-control-allow-methods': allowed,
        'access-control-allow-headers': '*',
        'access-control-max-age': '86400',
      },
      body: NOTHING,
      delivery: null,
    };
  }

  #content(name: KdsName, request: KdsRequest, fault: Fault | null): KdsAnswer {
    switch (name.type) {
      case 'cert_chain': {
        const { ask, asvk, ark } = this.#authority(name.product);
        const intermediate = flipped(fault, name.path === 'vcek' ? ask : asvk);
        return ok(PEM_TYPE, utf8(toPem(intermediate) + toPem(ark)));
      }
      case 'crl':
        return ok(DER_TYPE, flipped(fault, this.#revocationList(name.product, fault)));
      case 'vcek':
        return this.#vcek(name, request.source, fault);
      case 'cek':
        return this.#cek(name, request.source, fault);
      case 'sev_ca':
        return ok(DER_TYPE, flipped(fault, this.#sevCa(name.product), SevAmdCertificate.size));
      case 'vlek':
      case 'hash_sticks': {
        const provider = this.fleet.provider(request.csp!);
        if (provider === null) {
          return text(403, 'the client certificate names no provider of this service');
        }
        return name.type === 'vlek'
          ? this.#vlek(provider, name.product, name.tcb, fault)
          : this.#hashSticks(provider, name.product, name.tcb, request.body);
      }
    }
  }

  /** 429 when the source has asked for this certificate too recently. */
  #limited(name: KdsName, source: string): KdsAnswer | null {
    const limited = this.#limiter?.take(`${source} ${formatKdsTarget(name)}`, this.#clock.monotonicMs()) ?? 0;
    if (limited <= 0) {
      return null;
    }
    const told = text(429, 'too many requests for this certificate');
    return this.#retryAfter
      ? { ...told, headers: { ...told.headers, 'retry-after': String(Math.ceil(limited / 1000)) } }
      : told;
  }

  #cek(name: Extract<KdsName, { type: 'cek' }>, source: string, fault: Fault | null): KdsAnswer {
    const limited = this.#limited(name, source);
    if (limited !== null) {
      return limited;
    }
    const chip = this.fleet.anyChip(name.hwid);
    if (chip === null) {
      return text(404, 'no such chip');
    }
    const certificate = issueCek(this.#authority(chip.product), this.fleet.cekPoint(chip), this.#random);
    return ok(DER_TYPE, flipped(fault, certificate, SevCertificate.offsetOf('sig2')));
  }

  /** A file on AMD's side: the same bytes for everybody. */
  #sevCa(product: ProductLine): Uint8Array {
    let bundle = this.#sevCas.get(product);
    if (bundle === undefined) {
      bundle = issueSevCa(this.#authority(product), this.#random);
      this.#sevCas.set(product, bundle);
    }
    return bundle;
  }

  #vcek(name: Extract<KdsName, { type: 'vcek' }>, source: string, fault: Fault | null): KdsAnswer {
    const limited = this.#limited(name, source);
    if (limited !== null) {
      return limited;
    }
    const chip = this.fleet.chip(name.product, name.hwid);
    const tcb = otherTcb(fault, name.tcb);
    const publicPoint = chip === null ? null : this.fleet.vcekPoint(chip, tcb);
    if (chip === null || publicPoint === null) {
      return text(404, chip === null ? 'no such chip' : 'no such TCB');
    }
    const der = issueVcek({
      authority: this.#authority(name.product),
      chipId: fault?.kind === 'wrong-chip' ? this.#otherChipId(name.product) : chip.chipId,
      tcb,
      publicPoint,
      notBeforeMs: this.#issueDate(fault),
      random: this.#random,
    });
    return ok(DER_TYPE, flipped(fault, der));
  }

  #vlek(provider: FleetProvider, product: ProductLine, wanted: TcbParts, fault: Fault | null): KdsAnswer {
    const tcb = otherTcb(fault, wanted);
    const der = issueVlek({
      authority: this.#authority(product),
      csp: provider.csp,
      tcb,
      publicPoint: this.fleet.vlekPoint(provider, product, tcb),
      notBeforeMs: this.#issueDate(fault),
      random: this.#random,
    });
    return ok(DER_TYPE, flipped(fault, der));
  }

  #hashSticks(provider: FleetProvider, product: ProductLine, tcb: TcbParts, body: Uint8Array): KdsAnswer {
    const parsed = v.safeParse(HashSticksRequest, jsonOf(body));
    if (!parsed.success) {
      return text(400, `the body is not {"hwids": [...]} with at most ${MAX_HWIDS} ids`);
    }
    const results = [];
    for (const asked of parsed.output.hwids) {
      const hwid = hwidOfRequest(product, asked);
      if (hwid === null) {
        return text(400, 'an id is not of the right number of hexadecimal digits');
      }
      const chip = this.fleet.chip(product, hwid);
      const wrapped = chip === null ? null : this.fleet.wrappedHashstick(provider, chip, tcb, this.#random);
      results.push({ [asked]: wrapped === null ? 'not found' : toHex(wrapped) });
    }
    return ok(JSON_TYPE, utf8(JSON.stringify({ results })));
  }

  /** AMD's lists are files that stay the same for a year; so are these, and their numbers go up. */
  #revocationList(product: ProductLine, fault: Fault | null): Uint8Array {
    const firstMs = Date.parse(CA_ROWS[product].ARK.notBefore);
    const nowMs = this.#clock.nowMs();
    const number = Math.max(0, Math.floor((nowMs - firstMs) / CRL_PERIOD_MS)) + 1;
    const isExpired = fault?.kind === 'expired';
    const known = this.#lists.get(product);
    if (known?.number === number && !isExpired) {
      return known.der;
    }
    const thisUpdateMs = isExpired ? nowMs - 2 * CRL_PERIOD_MS : firstMs + (number - 1) * CRL_PERIOD_MS;
    const der = issueCrl({
      authority: this.#authority(product),
      revokedSerials: this.fleet.revocations.filter((revocation) => revocation.product === product),
      thisUpdateMs,
      nextUpdateMs: thisUpdateMs + CRL_PERIOD_MS + CRL_OVERLAP_MS,
      number,
      random: this.#random,
    });
    if (!isExpired) {
      this.#lists.set(product, { number, der });
    }
    return der;
  }

  #authority(product: ProductLine): CertificateAuthority {
    let authority = this.#authorities.get(product);
    if (authority === undefined) {
      authority = embeddedAuthority(product);
      this.#authorities.set(product, authority);
    }
    return authority;
  }

  #issueDate(fault: Fault | null): number {
    const nowMs = this.#clock.nowMs();
    // A VCEK lives for seven years and a VLEK for one.
    return fault?.kind === 'expired' ? yearsAfter(nowMs, -8) : nowMs;
  }

  #otherChipId(product: ProductLine): Uint8Array {
    const id = new Uint8Array(CHIP_ID_SIZE);
    id.set(this.#random.bytes(HWID_SIZE[product]));
    return id;
  }
}

const NOTHING = new Uint8Array(0);

const ok = (type: string, body: Uint8Array): KdsAnswer => ({
  status: 200,
  headers: { 'content-type': type },
  body,
  delivery: null,
});

const text = (status: number, message: string): KdsAnswer => ({
  status,
  headers: { 'content-type': TEXT_TYPE },
  body: utf8(`${message}\n`),
  delivery: null,
});

function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return null;
  }
}

/** On this path Turin's chips go by either form: snphost sends the whole CHIP_ID. */
function hwidOfRequest(product: ProductLine, digits: string): string | null {
  const size = HWID_SIZE[product];
  if (!/^([0-9a-fA-F]{2})+$/.test(digits)) {
    return null;
  }
  const id = fromHex(digits);
  const isId = id.length === size || (id.length === CHIP_ID_SIZE && isZero(id.subarray(size)));
  return isId ? toHex(id.subarray(0, size)) : null;
}

const otherTcb = (fault: Fault | null, tcb: TcbParts): TcbParts =>
  fault?.kind === 'wrong-tcb' ? { ...tcb, microcode: tcb.microcode ^ 1 } : tcb;

/** A signature is what a signed structure ends with; `end` is where that is. */
function flipped(fault: Fault | null, signed: Uint8Array, end = signed.length): Uint8Array {
  if (fault?.kind !== 'bad-signature') {
    return signed;
  }
  const changed = signed.slice();
  changed[end - 1]! ^= 1;
  return changed;
}

/** The faults that are the same for whatever the answer is. */
function faulty(fault: Fault | null, target: string, answer: KdsAnswer): KdsAnswer {
  switch (fault?.kind) {
    case undefined:
    case 'status':
    case 'bad-signature':
    case 'wrong-chip':
    case 'wrong-tcb':
    case 'expired':
      return answer;
    case 'redirect':
      return { ...text(301, 'moved'), headers: { 'content-type': TEXT_TYPE, location: target } };
    case 'html':
      return ok('text/html', utf8('<!doctype html><title>Please log in</title><h1>Please log in</h1>\n'));
    case 'wrong-der':
      return { ...answer, body: answer.body.subarray(0, answer.body.length >> 1) };
    case 'huge':
    case 'gzip-bomb':
    case 'slow':
    case 'silent':
    case 'reset':
    case 'reset-body':
    case 'truncated':
    case 'chunk-cut':
    case 'short-length':
      return { ...answer, delivery: { kind: fault.kind, value: fault.value } };
  }
}
