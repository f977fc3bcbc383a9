// SPDX-License-Identifier: Apache-2.0
/**
 * TSC_FACTOR: how far the mean frequency is below the nominal one, in 1/100000. 200 is spread-spectrum
 * clocking of 0.2 %.
 */
export const TSC_FACTOR = 200;
