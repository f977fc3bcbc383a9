// SPDX-License-Identifier: Apache-2.0
/** Wrong answers on demand: what a client of the key service must survive. */
import { InputError } from '../lib/errors.ts';
import { RESOURCE_LABELS, type ResourceLabel } from './url.ts';

export type FaultKind =
  | 'status'
  | 'redirect'
  | 'html'
  | 'wrong-der'
  | 'bad-signature'
  | 'wrong-chip'
  | 'wrong-tcb'
  | 'expired'
  | 'huge'
  | 'gzip-bomb'
  | 'slow'
  | 'silent'
  | 'reset'
  | 'reset-body'
  | 'truncated'
  | 'chunk-cut'
  | 'short-length';

export interface Fault {
  readonly kind: FaultKind;
  /** status: the code. slow: milliseconds per byte. huge, gzip-bomb: MiB the client would have to hold. */
  readonly value: number;
  /** Retry-After header of a status answer, as it stands. */
  readonly retryAfter?: string;
}

/** One of the things the service has, or several. */
export type FaultScope = ResourceLabel | 'chain' | 'crl' | 'all';

export interface FaultRule {
  readonly scope: FaultScope;
  readonly fault: Fault;
  /** Answers it spoils; null for every one. */
  readonly times: number | null;
}

interface FaultRow {
  readonly what: string;
  /** Default and limits of `value`; null when there is none. */
  readonly value: readonly [initial: number, min: number, max: number] | null;
  /** Resources it makes sense for; null for all. */
  readonly on: readonly ResourceLabel[] | null;
}

const SIGNED: readonly ResourceLabel[] = RESOURCE_LABELS.filter((label) => label !== 'hash-sticks');

/** Every fault there is; `status` is written as the code itself. */
export const FAULTS: Readonly<Record<FaultKind, FaultRow>> = Object.freeze({
  status: {
    what: 'this status, with Retry-After when the argument says so',
    value: [500, 200, 599],
    on: null,
  },
  redirect: { what: '301 to the same place', value: null, on: null },
  html: { what: 'status 200 with an HTML page', value: null, on: null },
  'wrong-der': { what: 'the first half, announced as the whole', value: null, on: null },
  'bad-signature': { what: 'one bit of the signature flipped', value: null, on: SIGNED },
  'wrong-chip': { what: 'a certificate of another chip', value: null, on: ['vcek'] },
  'wrong-tcb': { what: 'a certificate for another TCB', value: null, on: ['vcek', 'vlek-cert'] },
  expired: {
    what: 'a certificate or list whose time has passed',
    value: null,
    on: ['vcek', 'vlek-cert', 'vcek-crl', 'vlek-crl'],
  },
  huge: { what: 'so many MiB of zeros', value: [100, 1, 4096], on: null },
  'gzip-bomb': { what: 'so many MiB of zeros, compressed a thousandfold', value: [100, 1, 4096], on: null },
  slow: { what: 'one byte in so many milliseconds', value: [1000, 1, 60_000], on: null },
  silent: { what: 'the request is read and nothing comes back', value: null, on: null },
  reset: { what: 'connection reset before the first byte', value: null, on: null },
  'reset-body': { what: 'connection reset after half of the body', value: null, on: null },
  truncated: { what: 'connection closed after half of the body', value: null, on: null },
  'chunk-cut': { what: 'chunked body without its last chunk', value: null, on: null },
  'short-length': { what: 'Content-Length one less than the body', value: null, on: null },
});

const SCOPES: Readonly<Record<Exclude<FaultScope, ResourceLabel>, readonly ResourceLabel[]>> = {
  chain: ['vcek-chain', 'vlek-chain'],
  crl: ['vcek-crl', 'vlek-crl'],
  all: RESOURCE_LABELS,
};

function labelsOf(scope: FaultScope): readonly ResourceLabel[] {
  return scope === 'chain' || scope === 'crl' || scope === 'all' ? SCOPES[scope] : [scope];
}

/**
 * One rule: RESOURCE=FAULT[:ARGUMENT][*TIMES], such as vcek=500, crl=slow:200 or vcek=429:10*3.
 *
 * Errors   OPTION_INVALID saying what is there instead
 */
export function parseFaultRule(text: string): FaultRule {
  const refuse = (message: string): never => {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text.slice(0, 80))}: ${message}`, {
      where: 'fault',
    });
  };
  const match = /^([a-z-]+)=([a-z-]+|[0-9]{3})(?::([ -)+-~]+))?(?:\*([0-9]{1,9}))?$/.exec(text.trim());
  if (match === null) {
    return refuse('not RESOURCE=FAULT[:ARGUMENT][*TIMES]');
  }
  const [, scopeText, faultText = '', argument, timesText] = match;
  const scope = scopeOf(scopeText!) ?? refuse(`no resource ${scopeText}; ${scopeNames().join(', ')}`);
  const times = timesText === undefined ? null : Number(timesText);
  if (times === 0) {
    refuse('zero times is no fault');
  }
  if (/^[0-9]{3}$/.test(faultText)) {
    const status = numberOf(faultText, 'status', refuse);
    return {
      scope,
      times,
      fault: { kind: 'status', value: status, ...(argument === undefined ? {} : { retryAfter: argument }) },
    };
  }
  const kind = (Object.keys(FAULTS) as FaultKind[]).find(
    (known) => known === faultText && known !== 'status',
  );
  if (kind === undefined) {
    return refuse(`no fault ${faultText}; a status code, ${Object.keys(FAULTS).slice(1).join(', ')}`);
  }
  const { on, value } = FAULTS[kind];
  if (on !== null && !labelsOf(scope).some((label) => on.includes(label))) {
    return refuse(`${kind} is a fault of ${on.join(', ')}`);
  }
  if (value === null && argument !== undefined) {
    return refuse(`${kind} takes no argument`);
  }
  return { scope, times, fault: { kind, value: numberOf(argument, kind, refuse) } };
}

/** Rules between commas. */
export function parseFaultRules(text: string): FaultRule[] {
  return text.split(',').map(parseFaultRule);
}

/** The text `parseFaultRule` reads. */
export function formatFaultRule({ scope, fault, times }: FaultRule): string {
  const { kind, value, retryAfter } = fault;
  const name = kind === 'status' ? String(value) : kind;
  const argument = kind === 'status' ? retryAfter : FAULTS[kind].value === null ? undefined : value;
  return `${scope}=${name}${argument === undefined ? '' : `:${argument}`}${times === null ? '' : `*${times}`}`;
}

const scopeNames = (): readonly string[] => [...RESOURCE_LABELS, ...Object.keys(SCOPES)];

const scopeOf = (text: string): FaultScope | null =>
  (scopeNames().find((name) => name === text) as FaultScope | undefined) ?? null;

function numberOf(text: string | undefined, kind: FaultKind, refuse: (message: string) => never): number {
  const limits = FAULTS[kind].value;
  if (limits === null) {
    return 0;
  }
  const [initial, min, max] = limits;
  const value = text === undefined ? initial : /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN;
  return value >= min && value <= max ? value : refuse(`${kind} takes a number from ${min} to ${max}`);
}

/** The faults in force; they may change while the service runs. */
export class FaultPlan {
  #rules: { readonly rule: FaultRule; left: number | null }[] = [];

  constructor(rules: readonly FaultRule[] = []) {
    this.replace(rules);
  }

  add(rule: FaultRule): void {
    this.#rules.push({ rule, left: rule.times });
  }

  clear(): void {
    this.replace([]);
  }

  /** Has these rules and no others from now on. */
  replace(rules: readonly FaultRule[]): void {
    this.#rules = rules.map((rule) => ({ rule, left: rule.times }));
  }

  /** Rules that still have answers to spoil, with how many. */
  list(): FaultRule[] {
    return this.#rules.map(({ rule, left }) => ({ ...rule, times: left }));
  }

  /** The fault for an answer about to be given, which counts as given; the oldest rule comes first. */
  take(label: ResourceLabel): Fault | null {
    const found = this.#rules.find(
      ({ rule }) =>
        labelsOf(rule.scope).includes(label) && (FAULTS[rule.fault.kind].on?.includes(label) ?? true),
    );
    if (found === undefined) {
      return null;
    }
    if (found.left !== null) {
      found.left -= 1;
      if (found.left === 0) {
        this.#rules = this.#rules.filter((rule) => rule !== found);
      }
    }
    return found.rule.fault;
  }
}
