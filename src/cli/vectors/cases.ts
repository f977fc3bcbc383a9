// SPDX-License-Identifier: Apache-2.0
/**
 * The negative set: evidence under softsnp's test roots that a verifier must refuse, and the little that
 * it must accept although it looks odd. Each case is wrong in one respect; all else about it is right.
 */
import { PRODUCT_LINES, type ProductLine } from '../../abi/product.ts';
import type { MachineCrypto, Random } from '../../lib/crypto.ts';
import { Cases, type VectorCase } from './case.ts';
import { authorityCases } from './chain-cases.ts';
import { derCases } from './der-cases.ts';
import { genoaCases } from './extension-cases.ts';
import { Forge } from './forge.ts';
import { leafCases, turinCases } from './leaf-cases.ts';
import { acceptedCases, pairingCases, tcbCases } from './pairing-cases.ts';
import { reportCases, signatureCases } from './report-cases.ts';
import { revocationCases } from './revocation-cases.ts';
import { signingCases } from './signing-cases.ts';
import { tableCases } from './table-cases.ts';

/** All cases; the same seed gives the same bytes. */
export function* vectorCases(crypto: MachineCrypto, random: Random): Generator<VectorCase> {
  const forges = Object.fromEntries(
    PRODUCT_LINES.map((product) => [product, new Forge(product, crypto, random)]),
  ) as Record<ProductLine, Forge>;
  for (const product of PRODUCT_LINES) {
    const cases = new Cases(forges[product]);
    yield* acceptedCases(cases);
    yield* pairingCases(cases, forges);
    yield* tcbCases(cases);
    yield* reportCases(cases);
    yield* signatureCases(cases);
  }
  const milan = new Cases(forges.Milan);
  yield* authorityCases(milan, forges);
  yield* leafCases(milan);
  yield* signingCases(milan);
  yield* derCases(milan);
  yield* revocationCases(milan, forges);
  yield* tableCases(milan);
  yield* genoaCases(new Cases(forges.Genoa));
  yield* turinCases(new Cases(forges.Turin));
}
