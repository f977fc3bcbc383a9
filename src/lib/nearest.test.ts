// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { nearestName } from './nearest.ts';

describe('the nearest name', () => {
  it.each([
    ['hlep', 'help'],
    ['ehlp', 'help'],
    ['helpp', 'help'],
    ['hep', 'help'],
    ['halp', 'help'],
  ])('of %s, which is one slip away, is %s', (name, nearest) => {
    expect(nearestName(name, ['crl', 'help'], 1)).toBe(nearest);
    expect(nearestName(`${name}x`, ['crl', 'help'], 1)).toBe(null);
  });

  it.each([
    ['cert', ['crl', 'certs', 'table'], 'certs'],
    ['verison', ['version', 'help'], 'version'],
    ['crl', ['crl', 'crl2'], 'crl'],
    ['ab', ['ax', 'xb'], 'ax'],
    ['nonsense', ['certs', 'table'], null],
    ['x'.repeat(1 << 20), ['certs'], null],
    ['cert', [], null],
  ])('of %.20s among %j is %s', (name, known, nearest) => {
    expect(nearestName(name, known, 2)).toBe(nearest);
  });
});
