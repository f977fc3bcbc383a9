// SPDX-License-Identifier: Apache-2.0
/**
 * Project Wycheproof's vectors for the two algorithms of the verifier, through every cryptography it may be given. They
 * are not part of this repository: SOFTSNP_WYCHEPROOF names a folder with its testvectors_v1 files, and .ci/run takes
 * them out of the crate `wycheproof`.
 *
 * A report has a fixed form of 672 signed bytes and Wycheproof's messages have not, so no vector can be a report. The
 * ECDSA vectors therefore go through what verifyEvidence judges R and S of a report with, in the form a report has them.
 */
import { webcrypto } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fromHex, reversed } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import { runAsync, runSync } from '../../src/verify/crypto.ts';
import { contentOf, decodeDer, Tag } from '../../src/verify/der.ts';
import { webVerifyCrypto } from '../../src/verify/index.ts';
import { jsVerifyCrypto } from '../../src/verify/js.ts';
import { signatureFindings } from '../../src/verify/signature.ts';
import { crypto } from './soft.ts';

const folder = process.env['SOFTSNP_WYCHEPROOF'] ?? '';
const HAVE = existsSync(join(folder, 'ecdsa_secp384r1_sha384_test.json'));
if (!HAVE) {
  console.warn('SKIPPED: Wycheproof; SOFTSNP_WYCHEPROOF names no folder with its vectors');
}

interface Group {
  readonly publicKey: { readonly uncompressed: string };
  readonly tests: readonly {
    readonly tcId: number;
    readonly msg: string;
    readonly sig: string;
    readonly result: string;
  }[];
}

const groupsOf = <G>(file: string): readonly G[] =>
  (JSON.parse(readFileSync(join(folder, file), 'utf8')) as { testGroups: G[] }).testGroups;

const web = webVerifyCrypto(webcrypto.subtle);
const js = jsVerifyCrypto();

/** A part as a report has it; null when it does not fit, as no report could carry it then. */
function part(bigEndian: Uint8Array): Uint8Array | null {
  const out = new Uint8Array(72);
  const little = reversed(bigEndian);
  if (little.subarray(72).some((byte) => byte !== 0)) {
    return null;
  }
  out.set(little.subarray(0, 72));
  return out;
}

type Parts = readonly [Uint8Array | null, Uint8Array | null] | null;

function derParts(bytes: Uint8Array): Parts {
  try {
    const root = decodeDer(bytes, { what: 'Signature', maxBytes: 1024, maxNodes: 3 });
    const [r, s, ...rest] = root.children;
    if (root.tag !== Tag.SEQUENCE || r?.tag !== Tag.INTEGER || s?.tag !== Tag.INTEGER || rest.length > 0) {
      return null;
    }
    const isNegative = (at: number): boolean => bytes[at]! >= 0x80;
    return isNegative(r.body) || isNegative(s.body)
      ? null
      : [part(contentOf(bytes, r)), part(contentOf(bytes, s))];
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return null;
  }
}

/** Shorter halves are the same numbers in a form of wrong size, which a report does not have. */
const halves = (bytes: Uint8Array): Parts =>
  bytes.length % 2 === 1 || bytes.length < 96
    ? null
    : [part(bytes.subarray(0, bytes.length / 2)), part(bytes.subarray(bytes.length / 2))];

describe.skipIf(!HAVE)('Wycheproof ecdsa_secp384r1_sha384', () => {
  it.each([
    ['ecdsa_secp384r1_sha384_test.json', derParts],
    ['ecdsa_secp384r1_sha384_p1363_test.json', halves],
  ] as const)('%s: every verdict as published, whichever the cryptography', async (file, read) => {
    const testGroups = groupsOf<Group>(file);
    const counts = { valid: 0, invalid: 0, unfit: 0 };
    for (const { publicKey, tests } of testGroups) {
      const key = { kind: 'p384', point: fromHex(publicKey.uncompressed) } as const;
      for (const { tcId, msg, sig, result } of tests) {
        const parts = read(fromHex(sig));
        const [signature_r, signature_s] = parts ?? [null, null];
        if (signature_r === null || signature_s === null) {
          expect(result, `${file} ${tcId}`).not.toBe('valid');
          counts.unfit += 1;
          continue;
        }
        const judging = () => signatureFindings(fromHex(msg), { signature_r, signature_s }, key);
        const found = runSync(crypto, judging());
        expect(found.length === 0, `${file} ${tcId}`).toBe(result === 'valid');
        expect(await runAsync(web, judging()), `${file} ${tcId}`).toEqual(found);
        expect(runSync(js, judging()), `${file} ${tcId}`).toEqual(found);
        counts[result === 'valid' ? 'valid' : 'invalid'] += 1;
      }
    }
    console.log(
      `${file}: ${counts.valid} valid, ${counts.invalid} invalid, ${counts.unfit} of a form no report has`,
    );
    expect(counts.valid).toBeGreaterThan(50);
    expect(counts.invalid).toBeGreaterThan(50);
  });
});

interface PssGroup {
  readonly publicKeyDer: string;
  readonly tests: Group['tests'];
}

describe.skipIf(!HAVE)('Wycheproof rsa_pss_4096_sha384_mgf1_48', () => {
  it('every verdict as published, whichever the cryptography', async () => {
    const file = 'rsa_pss_4096_sha384_mgf1_48_test.json';
    const counts = { valid: 0, invalid: 0 };
    for (const { publicKeyDer, tests } of groupsOf<PssGroup>(file)) {
      const spki = fromHex(publicKeyDer);
      for (const { tcId, msg, sig, result } of tests) {
        const [message, signature] = [fromHex(msg), fromHex(sig)];
        const verdicts = [
          crypto.verifyRsaPss(spki, message, signature),
          await web.verifyRsaPss(spki, message, signature),
          js.verifyRsaPss(spki, message, signature),
        ];
        const isValid = result === 'valid';
        expect(verdicts, `${file} ${tcId}`).toEqual([isValid, isValid, isValid]);
        counts[isValid ? 'valid' : 'invalid'] += 1;
      }
    }
    console.log(`${file}: ${counts.valid} valid, ${counts.invalid} invalid`);
    expect(counts.valid).toBeGreaterThan(20);
    expect(counts.invalid).toBeGreaterThan(20);
  });
});
