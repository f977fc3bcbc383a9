// SPDX-License-Identifier: Apache-2.0
/** Bundled and run in a worker: judges what it is sent with the cryptography it is told. */
import { webcrypto } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import {
  type Evidence,
  VerifyCache,
  type VerifyOptions,
  type VerifyResult,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { jsVerifyCrypto } from '../../src/verify/js.ts';

interface Message {
  readonly provider: 'node' | 'web' | 'js';
  readonly questions: readonly { readonly evidence: Evidence; readonly options: VerifyOptions }[];
}

async function judge({ provider, questions }: Message): Promise<readonly VerifyResult[]> {
  const cache = new VerifyCache();
  const results: VerifyResult[] = [];
  for (const { evidence, options } of questions) {
    if (provider === 'web') {
      const crypto = webVerifyCrypto(webcrypto.subtle);
      results.push(await verifyEvidenceAsync(evidence, { ...options, crypto, cache }));
    } else {
      const crypto = provider === 'js' ? jsVerifyCrypto() : nodeVerifyCrypto();
      results.push(verifyEvidence(evidence, { ...options, crypto, cache }));
    }
  }
  return results;
}

parentPort!.on('message', (message: Message) => {
  judge(message).then((results) => parentPort!.postMessage(results));
});
