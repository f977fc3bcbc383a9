// SPDX-License-Identifier: Apache-2.0
/** Evidence in memory that others write to: what is judged is what was read once, and nothing of it is written. */
import { webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { VCEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeCertificateTable, readCertificateTable } from '../../src/certs/table.ts';
import { concat } from '../../src/lib/bytes.ts';
import {
  type AsyncVerifyCrypto,
  explain,
  parsePolicy,
  readReportInput,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { AT_MS, crypto, forge, judge } from './soft.ts';

const milan = forge('Milan');
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const leaf = milan.leaf();
const report = milan.report();
const web = webVerifyCrypto(webcrypto.subtle);

/** WebCrypto beside somebody who writes while it works. */
function interrupted(interrupt: (data: Uint8Array) => void): AsyncVerifyCrypto {
  return {
    async sha256Hex(data) {
      const digest = await web.sha256Hex(data);
      interrupt(data);
      return digest;
    },
    verifyRsaPss: (spki, message, signature) => web.verifyRsaPss(spki, message, signature),
    async verifyEcdsaP384(point, message, r, s) {
      const verdict = web.verifyEcdsaP384(point, message, r, s);
      interrupt(message);
      return verdict;
    },
  };
}

const options = { atMs: AT_MS, crl: 'skip', trust: [ark] } as const;

describe('evidence that changes while WebCrypto works', () => {
  it('does not make a certificate known by the fingerprint of another', async () => {
    const other = milan.leaf('VCEK', { productName: 'Milan-B1' });
    expect(other.length).toBe(leaf.length);
    const memory = Uint8Array.from(leaf);
    const swap = (data: Uint8Array): void => {
      if (Buffer.compare(data, leaf) === 0) {
        memory.set(other);
      }
    };
    const result = await verifyEvidenceAsync(
      { report, certificates: [memory, ask, ark] },
      { ...options, crypto: interrupted(swap) },
    );
    expect(memory).toEqual(other);
    const { fingerprint, certificate, endorsement } = result.chain.leaf!;
    expect(fingerprint).toBe(crypto.sha256Hex(certificate.der));
    expect(certificate.der).toEqual(other);
    expect(endorsement!.productName).toBe('Milan-B1');
  });

  it('is judged by the report that was there at first', async () => {
    const unwanted = milan.report({ fields: { vmpl: 3 } });
    const policy = parsePolicy({ vmpl: 0 });
    const certificates = [leaf, ask, ark];
    for (const [first, then, ok] of [
      [report, unwanted, true],
      [unwanted, report, false],
    ] as const) {
      const memory = Uint8Array.from(first);
      const result = await verifyEvidenceAsync(
        { report: memory, certificates },
        { ...options, policy, crypto: interrupted(() => memory.set(then)) },
      );
      expect(memory).toEqual(then);
      expect(result.ok).toBe(ok);
    }
  });
});

describe('evidence in a Buffer', () => {
  it('stays as it was, also when a cause is looked for by trying', () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: leaf }]);
    for (const at of [0, 4, 6]) {
      table.subarray(at, at + (at === 0 ? 4 : 2)).reverse();
    }
    const lost = milan.report({ after: (bytes) => bytes.fill(0, 0x188, 0x18b) });
    const certificates = [leaf, ask, ark].map((der) => Buffer.from(der));
    for (const [cause, given] of [
      ['TABLE_GUIDS_SWAPPED', { report: Buffer.from(report), table: Buffer.from(table) }],
      ['REPORT_LOST_CPUID', { report: Buffer.from(lost), certificates }],
    ] as const) {
      const before = structuredClone(given);
      const result = judge(given, { trust: [ark] });
      expect(explain(given, result, crypto).map(({ code }) => code)).toContain(cause);
      expect(structuredClone(given)).toEqual(before);
    }
  });

  it('is copied where a copy is promised', () => {
    const buffer = Buffer.from(concat(report, encodeCertificateTable([{ guid: VCEK_GUID, data: leaf }])));
    const input = readReportInput(buffer);
    const reading = readCertificateTable(buffer.subarray(1184));
    const { report: decoded } = judge({ report: buffer.subarray(0, 1184) }, { trust: [ark] });
    buffer.fill(0);
    expect(input.report).toEqual(report);
    expect('entries' in reading && reading.entries[0]!.data).toEqual(leaf);
    expect(decoded!.measurement).toEqual(new Uint8Array(48).fill(0xd1));
  });
});
