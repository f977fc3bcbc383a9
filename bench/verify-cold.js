// SPDX-License-Identifier: Apache-2.0
/** Verifications with nothing cached beside the signature checks they make, in this thread or, as a worker's entry, in a worker. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { nodeVerifyCrypto } from '../dist/os/verify-crypto.js';
import { VerifyCache, verifyEvidence } from '../dist/verify/index.js';
import { inTurns, mustBe, platformEvidence } from './verify-warm.js';

const COUNT = 100;

/** Remembers what a provider was asked to verify. */
function recording(provider) {
  const jobs = [];
  return {
    jobs,
    crypto: {
      sha256Hex: (data) => provider.sha256Hex(data),
      verifyRsaPss(...args) {
        jobs.push((fresh) => fresh.verifyRsaPss(...args));
        return provider.verifyRsaPss(...args);
      },
      verifyEcdsaP384(...args) {
        jobs.push((fresh) => fresh.verifyEcdsaP384(...args));
        return provider.verifyEcdsaP384(...args);
      },
    },
  };
}

export function coldVerifications() {
  const { options, certificates, crls, reports } = platformEvidence('Milan', 1);
  const evidence = { report: reports[0], certificates, crls };
  const once = (crypto) =>
    mustBe(true, verifyEvidence(evidence, { ...options, crypto, cache: new VerifyCache() }).ok);
  const { jobs, crypto } = recording(nodeVerifyCrypto());
  once(crypto);
  const repeated = (work) => () => {
    for (let i = 0; i < COUNT; i++) {
      work(nodeVerifyCrypto());
    }
  };
  const ours = repeated(once);
  const bare = repeated((fresh) => {
    for (const job of jobs) {
      mustBe(true, job(fresh));
    }
  });
  return { ...inTurns(ours, bare, COUNT), jobs: jobs.length };
}

if (!isMainThread && workerData?.bench === 'verify-cold') {
  parentPort.postMessage(coldVerifications());
}
