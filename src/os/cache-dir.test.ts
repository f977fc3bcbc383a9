// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { CacheDirectory, defaultCacheFolder } from './cache-dir.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-cache-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const files = (): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('/'))
    .map((name) => join(folder, name));
const text = (bytes: Uint8Array | null): string | null =>
  bytes === null ? null : Buffer.from(bytes).toString('latin1');

describe('a cache folder', () => {
  it('gives back what was put, in this process and in the next', () => {
    const cache = new CacheDirectory(folder);
    expect(cache.get('a')).toBeNull();
    cache.put('a', utf8('one'));
    cache.put('b', utf8(''));
    cache.put('a', utf8('two'));
    for (const reader of [cache, new CacheDirectory(folder)]) {
      expect(text(reader.get('a'))).toBe('two');
      expect(text(reader.get('b'))).toBe('');
    }
    expect(files().length).toBe(2);
  });

  it('misses an entry with any byte changed or cut off, and takes it anew', () => {
    const cache = new CacheDirectory(folder);
    cache.put('key', utf8('content'));
    const [path] = files() as [string];
    const whole = readFileSync(path);
    for (let at = 0; at < whole.length; at++) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1;
      writeFileSync(path, changed);
      expect([at, cache.get('key')]).toEqual([at, null]);
      writeFileSync(path, whole);
      truncateSync(path, at);
      expect([at, cache.get('key')]).toEqual([at, null]);
    }
    cache.put('key', utf8('content'));
    expect(text(cache.get('key'))).toBe('content');
  });

  it('misses the content of another key, wherever it lies', () => {
    const cache = new CacheDirectory(folder);
    cache.put('https://one', utf8('first'));
    cache.put('https://two', utf8('second'));
    const [a, b] = files() as [string, string];
    copyFileSync(a, b);
    const [first, second] = [cache.get('https://one'), cache.get('https://two')];
    expect([text(first), text(second)].filter((found) => found !== null).length).toBe(1);
  });

  it('keeps about as many entries as it may, the newest ones, and clears leftovers with them', () => {
    const cache = new CacheDirectory(folder, { maxEntries: 256 });
    for (let i = 0; i < 600; i++) {
      cache.put(`key ${i}`, utf8(String(i)));
    }
    expect(files().length).toBeLessThanOrEqual(256);
    expect(text(cache.get('key 599'))).toBe('599');

    const leftover = join(dirname(files()[0]!), '.1.1.leftover');
    writeFileSync(leftover, 'half');
    utimesSync(leftover, 1, 1);
    for (let i = 0; i < 5000 && existsSync(leftover); i++) {
      cache.put(`more ${i}`, utf8('x'));
    }
    expect(existsSync(leftover)).toBe(false);
  });

  it('neither reads nor writes entries that are too large', () => {
    const cache = new CacheDirectory(folder, { maxEntryBytes: 10 });
    cache.put('large', new Uint8Array(11));
    expect(files()).toEqual([]);
    new CacheDirectory(folder).put('large', new Uint8Array(11));
    expect(cache.get('large')).toBeNull();
  });

  it('says that it cannot write, and goes on', () => {
    const faults: unknown[] = [];
    writeFileSync(join(folder, 'file'), '');
    const cache = new CacheDirectory(join(folder, 'file'), { onFault: (error) => faults.push(error) });
    cache.put('key', utf8('content'));
    expect(cache.get('key')).toBeNull();
    expect(faults).toMatchObject([{ code: 'ENOTDIR' }]);
  });

  it.skipIf(process.getuid?.() === 0)('reads what is in a folder it may not write', () => {
    const cache = new CacheDirectory(folder);
    cache.put('key', utf8('content'));
    chmodSync(dirname(files()[0]!), 0o500);
    cache.put('key', utf8('other'));
    expect(text(cache.get('key'))).toBe('content');
    chmodSync(dirname(files()[0]!), 0o700);
  });

  it('shows no half entry to readers while other processes write it', async () => {
    const path = join(folder, 'cache');
    const cache = new CacheDirectory(path);
    const size = 200_000;
    cache.put('key', new Uint8Array(size).fill(1));
    const [name] = readdirSync(path, { recursive: true, encoding: 'utf8' }).filter((entry) =>
      entry.includes('/'),
    );
    // Another process puts the same file in place by the same steps, over and over.
    const script = `
      const { readFileSync, renameSync, writeFileSync } = require('node:fs');
      const path = ${JSON.stringify(join(path, name!))};
      const whole = readFileSync(path);
      for (let i = 0; i < 100; i++) {
        writeFileSync(path + '.aside', whole);
        renameSync(path + '.aside', path);
      }`;
    const writer = spawn(process.execPath, ['-e', script]);
    let running = true;
    const ended = new Promise<void>((resolve) => {
      writer.on('close', () => {
        running = false;
        resolve();
      });
    });
    while (running) {
      expect(cache.get('key')?.length).toBe(size);
      cache.put('key', new Uint8Array(size).fill(2));
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    await ended;
  });
});

describe('the default folder', () => {
  it('is below XDG_CACHE_HOME, else below ~/.cache', () => {
    expect(defaultCacheFolder('kds', { XDG_CACHE_HOME: '/x' })).toBe('/x/softsnp/kds');
    expect(defaultCacheFolder('kds', { XDG_CACHE_HOME: '' })).toMatch(/\/\.cache\/softsnp\/kds$/);
  });
});
