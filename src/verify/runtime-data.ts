// SPDX-License-Identifier: Apache-2.0
/**
 * What stands beside a report and is vouched for by it alone: on Azure the paravisor hands out a report whose
 * REPORT_DATA begins with the hash of what it says of the VM, the key of its vTPM above all.
 */
import { toHex } from '../lib/bytes.ts';
import { type Judging, sha256Hex } from './crypto.ts';
import { type Finding, finding } from './findings.ts';
import type { Report } from './report.ts';

export interface RuntimeData {
  /** IGVM_REQUEST_DATA's type of hash: 1 SHA-256, 2 SHA-384, 3 SHA-512. */
  readonly hashType: number;
  /** What is hashed: on Azure JSON with keys and the configuration of the VM. */
  readonly data: Uint8Array;
}

const HASH_TYPE_SHA256 = 1;
const SHA256_SIZE = 32;

/** Whether the report vouches for what came beside it. */
export function* runtimeDataFindings(
  { report_data }: Report,
  { hashType, data }: RuntimeData,
): Judging<Finding[]> {
  const where = 'report[0x050].report_data';
  if (hashType !== HASH_TYPE_SHA256) {
    return [
      finding('RUNTIME_DATA_NOT_CHECKED', {
        where,
        expected: '1 (SHA-256)',
        actual: `hash type ${hashType}`,
      }),
    ];
  }
  const expected = yield* sha256Hex(data);
  const actual = toHex(report_data.subarray(0, SHA256_SIZE));
  return actual === expected ? [] : [finding('RUNTIME_DATA_MISMATCH', { where, expected, actual })];
}
