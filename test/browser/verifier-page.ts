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

let pool: Pool = {};

/** Has the evidence come that the cases name; as an argument its megabytes would be parsed as a program. */
async function takePool(): Promise<void> {
  pool = (await (await fetch('/pool')).json()) as Pool;
}

async function judgeInPage(cases: readonly Case[]): Promise<readonly Verdict[]> {
  const crypto = webVerifyCrypto(globalThis.crypto.subtle);
  const cache = new VerifyCache();
  const verdicts: Verdict[] = [];
  const judge = async (given: Case): Promise<Verdict> => {
    const evidence = evidenceOf(pool, given);
    const result = await verifyEvidenceAsync(evidence, { ...optionsOf(pool, given), crypto, cache });
    return verdictOf(result, result.ok ? [] : await explainAsync(evidence, result, crypto));
  };
  const atOnce = 16;
  for (let at = 0; at < cases.length; at += atOnce) {
    verdicts.push(...(await Promise.all(cases.slice(at, at + atOnce).map(judge))));
  }
  return verdicts;
}

function judgeInPageAlone(cases: readonly Case[]): readonly Verdict[] {
  const crypto = jsVerifyCrypto();
  const cache = new VerifyCache();
  return cases.map((given) => {
    const evidence = evidenceOf(pool, given);
    const result = verifyEvidence(evidence, { ...optionsOf(pool, given), crypto, cache });
    return verdictOf(result, result.ok ? [] : explain(evidence, result, crypto));
  });
}

Object.assign(globalThis, { takePool, judgeInPage, judgeInPageAlone });
