// SPDX-License-Identifier: Apache-2.0
/** Folders in the middle of nowhere, on top of files, and where the kernel allows none. */
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { makeFolder } from './make-folder.ts';

const directory = mkdtempSync(join(tmpdir(), 'softsnp-folder-'));
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

it('makes the folders above as well, and takes one that is there', () => {
  const deep = join(directory, 'a/b/c');
  makeFolder(deep);
  makeFolder(deep);
  expect(statSync(deep).isDirectory()).toBe(true);
});

it('fails on a file, and below one', () => {
  const file = join(directory, 'file');
  writeFileSync(file, '');
  expect(() => makeFolder(file)).toThrow(/EEXIST/);
  expect(() => makeFolder(join(file, 'x'))).toThrow(/ENOTDIR/);
});

it.skipIf(!existsSync('/proc/self'))('ends below /proc, where nothing can be made', () => {
  expect(() => makeFolder('/proc/nowhere/x')).toThrow(/ENOENT/);
});
