// SPDX-License-Identifier: Apache-2.0
/**
 * Warm verifications beside bare P-384 ones, in this thread or, as a worker's entry, in a worker.
 *
 * Warm: certificates, revocation list and keys are in the cache, every report is one that has not been seen.
 * Bare: node:crypto verifies the same bytes with a key object that is there already.
 */
import { createPublicKey, verify } from 'node:crypto';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { Forge, VECTOR_TIME_MS } from '../dist/cli/vectors/forge.js';
import { nodeCrypto, seededRandom } from '../dist/os/node-crypto.js';
import { nodeVerifyCrypto } from '../dist/os/verify-crypto.js';
import { VerifyCache, verifyEvidence } from '../dist/verify/index.js';
import { signaturePart } from '../dist/verify/report.js';

export const seconds = (work) => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
};
export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

const REPORTS = 100;
const ROUNDS = 15;
/** Blocks before anything counts: so long does the compiler go on making the code faster. */
const WARM_UP_ROUNDS = 50;

/** Evidence of one platform: reports that differ, a leaf, its chain and a current revocation list. */
export function platformEvidence(product = 'Milan', reports = REPORTS) {
  const forge = new Forge(product, nodeCrypto({ deterministic: false }), seededRandom(1));
  const [ask, ark] = forge.chain();
  return {
    options: { atMs: VECTOR_TIME_MS, trust: [ark], crl: 'require' },
    certificates: [forge.leaf(), ask, ark],
    crls: [forge.crl()],
    publicPoint: forge.key().publicPoint,
    reports: Array.from({ length: reports }, (_, i) =>
      forge.report({ fields: { report_data: new Uint8Array(64).fill(i) } }),
    ),
  };
}

const P384_PREFIX = Buffer.from('3076301006072a8648ce3d020106052b81040022036200', 'hex');

/** node:crypto alone on every report: a function that verifies them all once. */
export function bareVerifications({ reports, publicPoint }) {
  const key = createPublicKey({
    key: Buffer.concat([P384_PREFIX, publicPoint]),
    format: 'der',
    type: 'spki',
  });
  const jobs = reports.map((report) => ({
    body: report.subarray(0, 0x2a0),
    signature: Buffer.concat([
      signaturePart(report.subarray(0x2a0, 0x2e8)),
      signaturePart(report.subarray(0x2e8, 0x330)),
    ]),
  }));
  return () => {
    for (const { body, signature } of jobs) {
      mustBe(true, verify('sha384', body, { key, dsaEncoding: 'ieee-p1363' }, signature));
    }
  };
}

export function mustBe(expected, actual) {
  if (actual !== expected) {
    throw new TypeError('a benchmark verified something else than it should');
  }
}

/** Blocks of `count` of both take turns, so that a busy neighbour slows both alike. */
export function inTurns(ours, bare, count) {
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    ours();
  }
  bare();
  const ratios = [];
  const rates = [];
  for (let round = 0; round < ROUNDS; round++) {
    const time = seconds(ours);
    ratios.push(seconds(bare) / time);
    rates.push(count / time);
  }
  return { ratio: median(ratios), perSecond: median(rates) };
}

export function warmRatio() {
  const platform = platformEvidence();
  const { options, certificates, crls, reports } = platform;
  const crypto = nodeVerifyCrypto();
  const settings = { ...options, crypto, cache: new VerifyCache() };
  const ours = () => {
    for (const report of reports) {
      mustBe(true, verifyEvidence({ report, certificates, crls }, settings).ok);
    }
  };
  return inTurns(ours, bareVerifications(platform), REPORTS);
}

if (!isMainThread && workerData?.bench === 'verify-warm') {
  parentPort.postMessage(warmRatio());
}
