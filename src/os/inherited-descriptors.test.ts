// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { inheritedDescriptors } from './inherited-descriptors.ts';

// What a command gets of them is tried by test/service/exec.test.ts.
it('leaves out what Node has opened for itself', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-fds-'));
  const file = openSync(join(folder, 'file'), 'w');
  const nothing = openSync('/dev/null', 'r');
  const found = inheritedDescriptors();
  const kinds = found.map((fd) => readlinkSync(`/proc/self/fd/${fd}`));
  expect(found).toContain(file);
  expect(found).not.toContain(nothing);
  expect(found.every((fd, i) => fd > (found[i - 1] ?? 2))).toBe(true);
  expect(kinds.filter((kind) => kind.startsWith('anon_inode:'))).toEqual([]);
  expect(readdirSync('/proc/self/fd').length).toBeGreaterThan(found.length + 3);
  closeSync(file);
  closeSync(nothing);
  rmSync(folder, { recursive: true });
});
