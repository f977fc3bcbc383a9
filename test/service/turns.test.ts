// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Turns } from '../../src/service/turns.ts';

const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('turns', () => {
  it('begins at once when nobody has one, and in the order of asking when somebody has', async () => {
    const turns = new Turns();
    const log: string[] = [];
    const piece = (name: string) => async (): Promise<string> => {
      log.push(`${name} begins`);
      await later();
      log.push(`${name} ends`);
      return name;
    };
    const first = turns.take(piece('a'));
    expect(log).toEqual(['a begins']);
    expect(await Promise.all([first, turns.take(piece('b')), turns.take(() => 'c')])).toEqual([
      'a',
      'b',
      'c',
    ]);
    expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
    const again = turns.take(() => log.push('d'));
    expect(log.at(-1)).toBe('d');
    await again;
  });

  it('passes a failure to whoever asked for the piece alone', async () => {
    const turns = new Turns();
    const fails = turns.take(async () => {
      await later();
      throw new TypeError('no');
    });
    const next = turns.take(() => 1);
    await expect(fails).rejects.toThrow('no');
    expect(await next).toBe(1);
    await expect(
      turns.take(() => {
        throw new TypeError('neither');
      }),
    ).rejects.toThrow('neither');
    expect(await turns.take(() => 2)).toBe(2);
  });
});
