// SPDX-License-Identifier: Apache-2.0
/** Tests of processes are left out for users who cannot run any; where that must not be, this fails instead. */
import { describe, expect, it } from 'vitest';
import { identities } from './softsnp.ts';

describe.skipIf(process.env['SOFTSNP_REQUIRE_USERS'] !== '1')('the users of the tests', () => {
  it.each(identities)('$who can run softsnp', ({ obstacle }) => {
    expect(obstacle).toBeNull();
  });
});
