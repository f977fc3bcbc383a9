// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { launched, NOTHING } from './testing.ts';

describe('smoke', () => {
  it('launches', () => {
    const { vm } = launched(NOTHING);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(8);
  });
});
