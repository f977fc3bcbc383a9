// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ephemeralDirectory } from './ephemeral-dir.ts';
import { ffiAvailable } from './libc.ts';
import { StateDirectory } from './state-dir.ts';

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'softsnp-ephemeral-'));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

/** As it looks a day later. */
function aged(path: string): string {
  const before = Date.now() / 1000 - 86_400;
  utimesSync(path, before, before);
  return path;
}

describe('a folder for the state of one process', () => {
  it.skipIf(!ffiAvailable())('takes the place of those that killed processes left, and of no other', () => {
    const open = ephemeralDirectory(base);
    const state = StateDirectory.open(open);
    aged(open);
    const killed = ephemeralDirectory(base);
    StateDirectory.open(killed).close();
    writeFileSync(join(killed, 'state.json'), '{}');
    aged(killed);
    const neverOpened = aged(ephemeralDirectory(base));
    const fresh = ephemeralDirectory(base);
    const foreign = join(base, 'softsnp-seeded-not-ours');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'precious'), '');
    aged(foreign);
    ephemeralDirectory(base);
    const there = [open, killed, neverOpened, fresh, foreign].map((path) => existsSync(path));
    expect(there).toEqual([true, false, false, true, true]);
    state.close();
  });

  it('is TMPDIR_UNWRITABLE where none can be made', () => {
    const nowhere = join(base, 'nowhere');
    expect(() => ephemeralDirectory(nowhere)).toThrow(
      expect.objectContaining({ code: 'TMPDIR_UNWRITABLE', message: expect.stringContaining('ENOENT') }),
    );
  });
});
