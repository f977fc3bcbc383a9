// SPDX-License-Identifier: Apache-2.0
/** Bundled and run in the page: judges cases with the browser's own WebCrypto, and with JavaScript alone. */
import {
  explain,
  explainAsync,
  VerifyCache,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { jsVerifyCrypto } from '../../src/verify/js.ts';
import { type Case, evidenceOf, optionsOf, type Pool, type Verdict, verdictOf } from './cases.ts';

async function judgeInPage(pool: Pool, cases: readonly Case[]): Promise<readonly Verdict[]> {
  const crypto = webVerifyCrypto(globalThis.crypto.subtle);
  const cache = new VerifyCache();
  const verdicts: Verdict[] = [];
  for (const given of cases) {
    const evidence = evidenceOf(pool, given);
    const result = await verifyEvidenceAsync(evidence, { ...optionsOf(pool, given), crypto, cache });
    verdicts.push(verdictOf(result, result.ok ? [] : await explainAsync(evidence, result, crypto)));
  }
  return verdicts;
}

function judgeInPageAlone(pool: Pool, cases: readonly Case[]): readonly Verdict[] {
  const crypto = jsVerifyCrypto();
  const cache = new VerifyCache();
  return cases.map((given) => {
    const evidence = evidenceOf(pool, given);
    const result = verifyEvidence(evidence, { ...optionsOf(pool, given), crypto, cache });
    return verdictOf(result, result.ok ? [] : explain(evidence, result, crypto));
  });
}

Object.assign(globalThis, { judgeInPage, judgeInPageAlone });
