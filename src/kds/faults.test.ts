// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../lib/errors.ts';
import {
  FAULTS,
  type FaultKind,
  FaultPlan,
  formatFaultRule,
  parseFaultRule,
  parseFaultRules,
} from './faults.ts';
import { AMD_RATE, parseRate, RateLimiter } from './rate-limit.ts';
import { RESOURCE_LABELS } from './url.ts';

describe('a fault rule', () => {
  it.each([
    'vcek=500',
    'vcek=429:10*3',
    'crl=slow:200',
    'all=silent',
    'chain=truncated*1',
    'vcek-crl=expired',
    'hash-sticks=wrong-der',
    'vcek=gzip-bomb:5',
  ])('%s reads and writes the same', (text) => {
    expect(formatFaultRule(parseFaultRule(text))).toBe(text);
  });

  it('takes the default where no argument is given', () => {
    expect(parseFaultRule(' crl=slow ')).toEqual({
      scope: 'crl',
      fault: { kind: 'slow', value: 1000 },
      times: null,
    });
    expect(parseFaultRules('vcek=500,crl=slow*2').map(formatFaultRule)).toEqual([
      'vcek=500',
      'crl=slow:1000*2',
    ]);
  });

  it.each([
    ['', 'not RESOURCE=FAULT'],
    ['vcek', 'not RESOURCE=FAULT'],
    ['vcek=', 'not RESOURCE=FAULT'],
    ['certs=500', 'no resource certs'],
    ['vcek=broken', 'no fault broken'],
    ['vcek=status', 'no fault status'],
    ['vcek=toString', 'not RESOURCE=FAULT'],
    ['vcek=constructor', 'no fault constructor'],
    ['vcek=199', 'from 200 to 599'],
    ['vcek=600', 'from 200 to 599'],
    ['vcek=slow:0', 'from 1 to 60000'],
    ['vcek=slow:fast', 'from 1 to 60000'],
    ['vcek=html:1', 'takes no argument'],
    ['vcek=500*0', 'zero times'],
    ['vcek=429:1\r\nSet-Cookie: x', 'not RESOURCE=FAULT'],
    ['crl=wrong-chip', 'is a fault of vcek'],
    ['hash-sticks=bad-signature', 'is a fault of'],
  ])('%j is refused', (text, message) => {
    expect(() => parseFaultRule(text)).toThrow(message);
  });

  it('is refused, never misread, whatever it is', () => {
    const piece = fc.constantFrom('vcek', 'all', '=', ':', '*', '429', 'slow', '3', ',', ' ');
    const text = fc.oneof(
      fc.string(),
      fc.array(piece).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (rule) => {
        try {
          const parsed = parseFaultRule(rule);
          expect(parseFaultRule(formatFaultRule(parsed))).toEqual(parsed);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('a fault plan', () => {
  it('spoils as many answers as it says, oldest rule first, and may change', () => {
    const plan = new FaultPlan(parseFaultRules('vcek=500*2,all=404'));
    const status = (label: 'vcek' | 'vcek-crl') => plan.take(label)?.value ?? null;
    expect([status('vcek'), status('vcek-crl'), status('vcek'), status('vcek')]).toEqual([
      500, 404, 500, 404,
    ]);
    expect(plan.list().map(formatFaultRule)).toEqual(['all=404']);
    plan.clear();
    expect(status('vcek')).toBeNull();
    plan.add(parseFaultRule('crl=503*3'));
    expect([status('vcek'), status('vcek-crl')]).toEqual([null, 503]);
    expect(plan.list().map(formatFaultRule)).toEqual(['crl=503*2']);
  });

  it('leaves alone what a fault makes no sense for', () => {
    const plan = new FaultPlan([parseFaultRule('all=wrong-chip')]);
    expect(plan.take('vcek-crl')).toBeNull();
    expect(plan.take('vcek')?.kind).toBe('wrong-chip');
  });

  it('describes every fault', () => {
    for (const kind of Object.keys(FAULTS) as FaultKind[]) {
      expect(FAULTS[kind].what).not.toBe('');
    }
  });
});

describe('a rate limit', () => {
  it.each([
    ['1/10s', AMD_RATE],
    ['amd', AMD_RATE],
    ['20/500ms', { requests: 20, perMs: 500 }],
    ['6/1m', { requests: 6, perMs: 60_000 }],
  ])('%s is read', (text, rate) => {
    expect(parseRate(text)).toEqual(rate);
  });

  it.each(['', '1', '0/1s', '1/0s', '1/s', '1/1h', '-1/1s', '1/10s '])('%j is refused', (text) => {
    expect(() => parseRate(text)).toThrow('is not a rate');
  });

  it('counts per key in windows that begin with the first request', () => {
    const limiter = new RateLimiter({ requests: 2, perMs: 1000 });
    expect(limiter.take('a', 0)).toBe(0);
    expect(limiter.take('a', 400)).toBe(0);
    expect(limiter.take('b', 500)).toBe(0);
    expect(limiter.take('a', 999)).toBe(1);
    expect(limiter.take('a', 1000)).toBe(0);
    expect(limiter.take('a', 1001)).toBe(0);
    expect(limiter.take('a', 1002)).toBe(998);
    expect(limiter.take('b', 1499)).toBe(0);
    expect(limiter.take('b', 1499)).toBe(1);
  });

  it('remembers a bounded number of keys', () => {
    const limiter = new RateLimiter({ requests: 1, perMs: 1000 });
    limiter.take('first', 0);
    for (let i = 0; i < 65_535; i++) {
      limiter.take(`key ${i}`, 0);
    }
    expect(limiter.take('first', 0)).toBe(1000);
    limiter.take('one too many', 0);
    expect(limiter.take('first', 0)).toBe(0);
  });
});

describe('docs/reference/kds-http.md', () => {
  const text = readFileSync(new URL('../../docs/reference/kds-http.md', import.meta.url), 'utf8');

  it('names every fault and every resource', () => {
    const names = [...Object.keys(FAULTS).filter((kind) => kind !== 'status'), ...RESOURCE_LABELS];
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });
});
