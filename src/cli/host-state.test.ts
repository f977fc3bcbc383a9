// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type HostSelection, openHostState, STATE_FILE } from './host-state.ts';

let folder: string;
let path: string;
let selection: HostSelection;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-state-'));
  path = join(folder, STATE_FILE);
  selection = { product: null, chipId: null, seed: null, stateDir: folder };
  openHostState(selection).close();
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a state folder', () => {
  it('keeps its chip', () => {
    const first = openHostState(selection);
    first.close();
    const second = openHostState(selection);
    second.close();
    expect(second.state).toEqual(first.state);
  });

  it.each([
    ['empty', () => ''],
    ['cut off', (text: string) => text.slice(0, 100)],
    ['of a newer softsnp', (text: string) => text.replace('"softsnp_state": 2', '"softsnp_state": 3')],
    ['of another chip', (text: string) => text.replace(/("chip_id": ").{8}/, '$100000000')],
  ])('whose document is %s is refused and left as it is, time and again', (_, spoil) => {
    const spoilt = spoil(readFileSync(path, 'utf8'));
    writeFileSync(path, spoilt);
    for (let attempt = 0; attempt < 2; attempt++) {
      expect(() => openHostState(selection)).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^STATE_(INVALID|VERSION_UNSUPPORTED)$/) }),
      );
    }
    expect(readFileSync(path, 'utf8')).toBe(spoilt);
    expect(readdirSync(folder).sort()).toEqual(['lock', STATE_FILE]);
  });

  it('of version 1 becomes one of version 2 when the host is saved, with the same secrets', () => {
    const { sha256: _, ...document } = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...document, softsnp_state: 1 }));
    const { state, save, close } = openHostState(selection);
    save(state);
    close();
    const after = JSON.parse(readFileSync(path, 'utf8'));
    expect(after).toEqual({ ...document, softsnp_state: 2, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  });
});
