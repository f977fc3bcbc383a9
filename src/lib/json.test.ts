// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { parseJson } from './json.ts';

const parse = (text: string): unknown => parseJson(text, 'POLICY_INVALID', { where: 'policy.json' });

describe('parseJson', () => {
  it.each([
    ['null', null],
    ['"a:b"', 'a:b'],
    [
      '{"a":{"a":[{"a":1},{"a":2}]},"b":{"a":"\\"a\\":{"}}',
      { a: { a: [{ a: 1 }, { a: 2 }] }, b: { a: '"a":{' } },
    ],
    ['[{"x":1},{"x":1}]', [{ x: 1 }, { x: 1 }]],
  ])('reads %s', (text, value) => {
    expect(parse(text)).toEqual(value);
  });

  it.each([
    ['{"vmpl":3,"vmpl":0}', 'vmpl stands twice'],
    ['{"a":{"smt":1,"b":[1,{"c":1,"c":2}]}}', 'a.b.c stands twice'],
    ['{"guest_policy":{"smt":"forbidden"},"vmpl":0,"guest_policy":{}}', 'guest_policy stands twice'],
    ['{"vmpl":3,"\\u0076mpl":0}', 'vmpl stands twice'],
    ['{"__proto__":3,"__proto__":0}', '__proto__ stands twice'],
    ['{"a":', 'not JSON'],
    ['', 'not JSON'],
  ])('refuses %s', (text, message) => {
    expect(() => parse(text)).toThrow(message);
    expect(() => parse(text)).toThrow(/^policy\.json: /);
  });

  it('takes long texts and deep ones in its stride', () => {
    expect(parse(`{"a":"${'x\\n'.repeat(200_000)}"}`)).toHaveProperty('a');
    const deep = 5000;
    expect(() => parse(`${'{"a":'.repeat(deep)}{"b":1,"b":2}${'}'.repeat(deep)}`)).toThrow(
      'a.b stands twice',
    );
  });
});
