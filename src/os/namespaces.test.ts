// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, it } from 'vitest';
import { BugError } from '../lib/errors.ts';
import {
  arrivedInNamespaces,
  enterNamespaces,
  fuseObstacle,
  mountNamespace,
  namespaceObstacles,
} from './namespaces.ts';

const MARK = 'SOFTSNP_OUTER_MOUNT_NAMESPACE';
const path = process.env['PATH'];

afterEach(() => {
  process.env['PATH'] = path;
  delete process.env[MARK];
});

// What works is tried by test/fuse, with programs inside.
describe('namespaces', () => {
  it('are said to be out of reach where unshare cannot be run', () => {
    process.env['PATH'] = '/nonexistent';
    const said = namespaceObstacles({ network: true, fuse: false });
    expect(said).toContain('unshare of util-linux cannot be run (ENOENT)');
    expect(() => enterNamespaces({ network: false, fuse: false })).toThrow(
      expect.objectContaining({ code: 'NAMESPACE_UNAVAILABLE' }),
    );
    expect(process.env[MARK]).toBeUndefined();
  });

  it('are not to blame for a device that is missing', () => {
    expect(fuseObstacle('/dev/null')).toBeNull();
    expect(fuseObstacle('/nonexistent/fuse')).toBe('/nonexistent/fuse cannot be opened: ENOENT');
  });

  it('count as entered only with a mark, and only once', () => {
    expect(arrivedInNamespaces()).toBe(false);
    process.env[MARK] = 'mnt:[1]';
    expect(arrivedInNamespaces()).toBe(true);
    expect(arrivedInNamespaces()).toBe(false);
  });

  it('are not believed in when the mark names the mount namespace we are in', () => {
    process.env[MARK] = mountNamespace();
    expect(() => arrivedInNamespaces()).toThrow(BugError);
  });
});
