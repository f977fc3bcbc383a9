// SPDX-License-Identifier: Apache-2.0
/**
 * What every certificate and revocation list of softsnp says about itself. Anybody can write the same: it tells people
 * what they look at and makes nothing true.
 *
 * Differs  AMD's say nothing of the kind
 */
export const TEST_ROOT_COMMENT = 'softsnp TEST ROOT, NOT AMD';
