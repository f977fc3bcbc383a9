// SPDX-License-Identifier: Apache-2.0
import { type SpawnOptions, spawn } from 'node:child_process';
import type * as fs from 'node:fs';
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
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { CacheDirectory, defaultCacheFolder } from './cache-dir.ts';

/** The call that fails, and with what; the others go to the system. */
const fault = vi.hoisted(() => ({ call: '', code: '' }));

vi.mock('node:fs', async (importActual) => {
  const actual = await importActual<typeof fs>();
  const failing =
    (call: string, real: (...args: never[]) => unknown) =>
    (...args: never[]): unknown => {
      if (fault.call === call) {
        throw Object.assign(new Error(`${fault.code}: on demand, ${call}`), { code: fault.code });
      }
      return real(...args);
    };
  const calls = ['writeFileSync', 'renameSync', 'readdirSync', 'readFileSync'] as const;
  return {
    ...actual,
    ...Object.fromEntries(calls.map((call) => [call, failing(call, actual[call] as () => unknown)])),
  };
});

const isRoot = process.geteuid?.() === 0;
const NOBODY = 65_534;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-cache-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
}, 120_000);

const filesBelow = (path: string): string[] =>
  readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('/'))
    .map((name) => join(path, name));
const files = (): string[] => filesBelow(folder);
const text = (bytes: Uint8Array | null): string | null =>
  bytes === null ? null : Buffer.from(bytes).toString('latin1');

/** Lets everybody read a folder and what is in it. */
function openToOthers(path: string): void {
  chmodSync(path, 0o755);
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o755 : 0o644);
  }
}

/** Runs a script that has CacheDirectory and the path of a cache in a process of its own; what it prints. */
async function inChild(script: string, path: string, options: SpawnOptions = {}): Promise<string> {
  const file = join(folder, 'cache-dir.mjs');
  if (!existsSync(file)) {
    const source = fileURLToPath(new URL('./cache-dir.ts', import.meta.url));
    const bundle = await rolldown({ input: source, platform: 'node' });
    await bundle.write({ file });
    await bundle.close();
    chmodSync(file, 0o644);
  }
  const whole = `import { CacheDirectory } from ${JSON.stringify(file)}; const path = ${JSON.stringify(path)}; ${script}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', whole], { ...options, cwd: '/' });
  let said = '';
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (chunk) => {
      said += String(chunk);
    });
  }
  await new Promise((resolve) => {
    child.on('close', resolve);
  });
  return said;
}

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
    // Another process is writing this one.
    const young = join(dirname(leftover), '.2.1.young');
    writeFileSync(young, 'half');
    for (let i = 0; i < 5000 && existsSync(leftover); i++) {
      cache.put(`more ${i}`, utf8('x'));
    }
    expect([existsSync(leftover), existsSync(young)]).toEqual([false, true]);
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

  it('reads what is in a folder it may not write', async () => {
    const path = join(folder, 'cache');
    new CacheDirectory(path).put('key', utf8('content'));
    if (isRoot) {
      // Root may write everywhere: somebody else tries.
      openToOthers(folder);
    } else {
      chmodSync(dirname(filesBelow(path)[0]!), 0o500);
    }
    const said = await inChild(
      `const faults = [];
       const cache = new CacheDirectory(path, { onFault: ({ code }) => faults.push(code) });
       cache.put('key', Buffer.from('other'));
       cache.put('unknown', Buffer.from('other'));
       const [key, unknown] = ['key', 'unknown'].map((name) => cache.get(name));
       process.stdout.write(JSON.stringify([Buffer.from(key).toString(), unknown, faults]));`,
      path,
      isRoot ? { uid: NOBODY, gid: NOBODY } : {},
    );
    expect(JSON.parse(said)).toEqual(['content', null, ['EACCES', 'EACCES']]);
    chmodSync(dirname(filesBelow(path)[0]!), 0o700);
  });

  it('gives three processes that fill it at once nothing of another key, and no trouble', async () => {
    const path = join(folder, 'cache');
    const work = `
      const faults = [];
      const cache = new CacheDirectory(path, { maxEntries: 256, onFault: (error) => faults.push(String(error)) });
      let wrong = 0;
      let hits = 0;
      for (let i = 0; i < 300; i++) {
        const put = 'key ' + (i % 100);
        const got = 'key ' + ((i * 7) % 100);
        cache.put(put, Buffer.from(put + ' of ' + process.pid));
        const found = cache.get(got);
        hits += found === null ? 0 : 1;
        wrong += found === null || Buffer.from(found).toString().startsWith(got + ' of ') ? 0 : 1;
      }
      process.stdout.write(JSON.stringify({ wrong, faults, hit: hits > 0 }));`;
    await inChild('', path);
    const said = await Promise.all([1, 2, 3].map(() => inChild(work, path)));
    expect(said.map((line) => JSON.parse(line))).toEqual(Array(3).fill({ wrong: 0, faults: [], hit: true }));
    expect(filesBelow(path).filter((name) => basename(name).startsWith('.'))).toEqual([]);
    expect(filesBelow(path).length).toBeLessThanOrEqual(256);
  });

  it.each(['ENOSPC', 'EIO', 'EDQUOT', 'EROFS'])(
    'keeps the old entry and leaves nothing over on %s',
    (code) => {
      const faults: unknown[] = [];
      const cache = new CacheDirectory(folder, { onFault: (error) => faults.push(error) });
      cache.put('key', utf8('content'));
      const before = files();
      for (const call of ['writeFileSync', 'renameSync', 'readdirSync']) {
        Object.assign(fault, { call, code });
        cache.put('key', utf8(call === 'readdirSync' ? 'content' : 'other'));
        fault.call = '';
        expect([call, text(cache.get('key'))]).toEqual([call, 'content']);
        expect(files()).toEqual(before);
      }
      const failing = faults.length;
      Object.assign(fault, { call: 'readFileSync', code });
      expect(cache.get('key')).toBeNull();
      fault.call = '';
      expect(text(cache.get('key'))).toBe('content');
      expect([failing, faults.length]).toEqual([3, 3]);
      expect(faults).toMatchObject(Array(3).fill({ code }));
    },
  );

  it('is not filled where the folder cannot be made', () => {
    const faults: unknown[] = [];
    const cache = new CacheDirectory('/proc/softsnp', { onFault: (error) => faults.push(error) });
    cache.put('key', utf8('content'));
    expect(cache.get('key')).toBeNull();
    expect(faults).toMatchObject([{ code: 'ENOENT' }]);
  });

  it.runIf(process.env['SOFTSNP_LONG'] === '1')(
    'stays bounded, and its newest entries at hand, with 100,000 put',
    { timeout: 900_000 },
    () => {
      const cache = new CacheDirectory(folder);
      const body = new Uint8Array(1400);
      for (let i = 0; i < 100_000; i++) {
        cache.put(`https://kdsintf.amd.com/vcek/v1/Milan/${i}`, body);
      }
      expect(files().length).toBeLessThanOrEqual(16_384);
      expect(files().length).toBeGreaterThan(15_000);
      for (let i = 99_000; i < 100_000; i++) {
        expect(cache.get(`https://kdsintf.amd.com/vcek/v1/Milan/${i}`)?.length).toBe(1400);
      }
      // A smaller one takes over without reading more than the folder it writes to.
      new CacheDirectory(folder, { maxEntries: 256 }).put('key', body);
      expect(files().length).toBeLessThan(16_384);
    },
  );

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
