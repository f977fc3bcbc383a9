// SPDX-License-Identifier: Apache-2.0
/**
 * Project Wycheproof's ECDSA P-384 vectors through the judgement of report signatures. They are not part of
 * this repository: SOFTSNP_WYCHEPROOF names a folder with its testvectors_v1 files.
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
  ] as const)('%s: every verdict as published, with node:crypto and with WebCrypto', async (file, read) => {
    const { testGroups } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { testGroups: Group[] };
    const web = webVerifyCrypto(webcrypto.subtle);
    let count = 0;
    for (const { publicKey, tests } of testGroups) {
      const key = { kind: 'p384', point: fromHex(publicKey.uncompressed) } as const;
      for (const { tcId, msg, sig, result } of tests) {
        const parts = read(fromHex(sig));
        const [signature_r, signature_s] = parts ?? [null, null];
        if (signature_r === null || signature_s === null) {
          expect(result, `${file} ${tcId}`).not.toBe('valid');
          continue;
        }
        const judging = () => signatureFindings(fromHex(msg), { signature_r, signature_s }, key);
        const found = runSync(crypto, judging());
        expect(found.length === 0, `${file} ${tcId}`).toBe(result === 'valid');
        expect(await runAsync(web, judging())).toEqual(found);
        count += 1;
      }
    }
    expect(count).toBeGreaterThan(100);
  });
});
