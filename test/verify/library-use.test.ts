// SPDX-License-Identifier: Apache-2.0
/** The program of docs/howto/verify.md, run as it stands there. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { KdsClient } from '../../src/kds/index.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import {
  type Evidence,
  type EvidenceSource,
  explain,
  fetchEvidence,
  kdsJudge,
  parsePolicy,
  VerifyCache,
  verifyEvidence,
} from '../../src/verify/index.ts';
import { AT_MS, forge } from './soft.ts';

// docs: from here
const crypto = nodeVerifyCrypto();
const cache = new VerifyCache(); // One for all verifications: certificates are decoded and checked once.
const policy = parsePolicy({ vmpl: 0, provisional_firmware: 'forbidden' });

async function check(evidence: Evidence, source: EvidenceSource, clock: Clock, trust: 'amd' | Uint8Array[]) {
  const options = { crypto, cache, policy, trust };
  let given = evidence;
  let result = verifyEvidence(given, { ...options, atMs: clock.nowMs() });
  let failures: readonly string[] = [];
  if (!result.ok) {
    ({ evidence: given, failures } = await fetchEvidence(source, given, result));
    // The time again: the key service issues certificates while one waits.
    result = verifyEvidence(given, { ...options, atMs: clock.nowMs() });
  }
  return { result, failures, why: result.ok ? [] : explain(given, result, crypto) };
}

const clientOf = (clock: Clock, trust: 'amd' | Uint8Array[]) =>
  new KdsClient({ judge: kdsJudge({ crypto, clock, trust }), clock });
// docs: to here

const page = readFileSync(new URL('../../docs/howto/verify.md', import.meta.url), 'utf8');

describe('the program of docs/howto/verify.md', () => {
  const milan = forge('Milan');
  const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
  const clock: Clock = { nowMs: () => AT_MS, monotonicMs: () => 0 };

  it('is the one that is tested', () => {
    const own = readFileSync(new URL('library-use.test.ts', import.meta.url), 'utf8');
    const program = own.split('// docs: from here\n')[1]!.split('// docs: to here')[0]!;
    expect(page).toContain(program.trim());
  });

  it('verifies with what a source of the caller has, and says why not', async () => {
    const source: EvidenceSource = {
      vcek: () => Promise.resolve(milan.leaf()),
      chain: () => Promise.resolve({ intermediate: ask, ark }),
      crl: () => Promise.resolve(milan.crl()),
    };
    const good = await check({ report: milan.report() }, source, clock, [ark]);
    expect([good.result.ok, good.failures, good.why]).toEqual([true, [], []]);
    const empty: EvidenceSource = {
      ...source,
      vcek: () => Promise.reject(new EnvironmentError('KDS_NOT_FOUND', 'the key service does not know it')),
    };
    const bad = await check({ report: milan.report() }, empty, clock, [ark]);
    expect(bad.result.ok).toBe(false);
    expect(bad.failures).toEqual(['the key service does not know it']);
    expect(bad.why.map(({ code }) => code)).toContain('NO_CERTIFICATE');
  });

  it('takes the client of softsnp/kds for a source', () => {
    const source: EvidenceSource = clientOf(clock, 'amd');
    expect(source).toBeInstanceOf(KdsClient);
  });
});
