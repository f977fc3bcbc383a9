// SPDX-License-Identifier: Apache-2.0
import type * as fs from 'node:fs';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { clearLeftovers, putFile, putFirstFile } from './shared-folder.ts';

/** The call that fails, and with what; the others go to the system. */
const fault = vi.hoisted(() => ({ call: '', code: '', after: 0 }));

vi.mock('node:fs', async (importActual) => {
  const actual = await importActual<typeof fs>();
  const failing =
    (call: string, real: (...args: never[]) => unknown) =>
    (...args: never[]): unknown => {
      if (fault.call === call) {
        fault.after -= 1;
        if (fault.after < 0) {
          throw Object.assign(new Error(`${fault.code}: on demand, ${call}`), {
            code: fault.code,
            syscall: call,
          });
        }
      }
      return real(...args);
    };
  const calls = ['openSync', 'writeSync', 'fsyncSync', 'renameSync', 'linkSync'] as const;
  return {
    ...actual,
    ...Object.fromEntries(calls.map((call) => [call, failing(call, actual[call] as () => unknown)])),
  };
});

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-shared-'));
});
afterEach(() => {
  Object.assign(fault, { call: '', after: 0 });
  rmSync(folder, { recursive: true, force: true });
});

const text = (name: string): string => readFileSync(join(folder, name), 'utf8');

describe('a file in a shared folder', () => {
  it('is put in place of the old one, with the mode asked for', () => {
    putFile(folder, 'a', utf8('one'));
    putFile(folder, 'a', utf8('two'), 0o644);
    expect([text('a'), statSync(join(folder, 'a')).mode & 0o777]).toEqual(['two', 0o644]);
    expect(readdirSync(folder)).toEqual(['a']);
  });

  it('is put where there was none, and left alone where there was one', () => {
    expect(putFirstFile(folder, 'a', utf8('one'))).toBe(true);
    expect(putFirstFile(folder, 'a', utf8('two'))).toBe(false);
    expect([text('a'), statSync(join(folder, 'a')).mode & 0o777]).toEqual(['one', 0o600]);
    expect(readdirSync(folder)).toEqual(['a']);
  });

  it.each(['EPERM', 'ENOTSUP', 'ENOSYS'])('is put without hard links where they give %s', (code) => {
    Object.assign(fault, { call: 'linkSync', code });
    expect(putFirstFile(folder, 'a', utf8('one'))).toBe(true);
    expect(putFirstFile(folder, 'a', utf8('two'))).toBe(false);
    expect(text('a')).toBe('one');
    expect(readdirSync(folder)).toEqual(['a']);
  });

  const faults = ['ENOSPC', 'EIO', 'EDQUOT', 'EROFS'].flatMap((code) =>
    ['openSync', 'writeSync', 'fsyncSync', 'renameSync'].map((call) => [code, call] as const),
  );
  it.each(faults)('stays the old one, and nothing is left over, on %s from %s', (code, call) => {
    putFile(folder, 'a', utf8('old'));
    Object.assign(fault, { call, code });
    expect(() => putFile(folder, 'a', utf8('new'))).toThrow(code);
    Object.assign(fault, { call: call === 'renameSync' ? 'linkSync' : call });
    expect(() => putFirstFile(folder, 'b', utf8('new'))).toThrow(code);
    Object.assign(fault, { call: '' });
    expect(text('a')).toBe('old');
    expect(readdirSync(folder)).toEqual(['a']);
  });

  it.each(['openSync', 'fsyncSync'])('is whole when %s fails for the folder', (call) => {
    putFile(folder, 'a', utf8('old'));
    Object.assign(fault, { call, code: 'EIO', after: 1 });
    expect(() => putFile(folder, 'a', utf8('new'))).toThrow('EIO');
    expect(text('a')).toBe('new');
    expect(readdirSync(folder)).toEqual(['a']);
  });
});

describe('a shared folder', () => {
  it('is rid of old leftovers alone', () => {
    const nowMs = Date.now();
    for (const [name, ageMs] of [
      ['.old.1.new', 7_200_000],
      ['.young.1.new', 1000],
      ['old.new', 7_200_000],
      ['.old', 7_200_000],
    ] as const) {
      writeFileSync(join(folder, name), '');
      utimesSync(join(folder, name), (nowMs - ageMs) / 1000, (nowMs - ageMs) / 1000);
    }
    clearLeftovers(folder, nowMs);
    expect(readdirSync(folder).sort()).toEqual(['.old', '.young.1.new', 'old.new']);
  });
});
