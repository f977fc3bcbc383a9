// SPDX-License-Identifier: Apache-2.0
/** docs/howto/did-not-verify.md: every cause in its table is made to happen here, and found. */

import { generateKeyPairSync, webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeTcb } from '../../src/abi/tcb-version.ts';
import { toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { validity } from '../../src/cli/vectors/der.ts';
import { concat, toHex, utf8, writeU32 } from '../../src/lib/bytes.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import {
  CAUSES,
  type CauseCode,
  type Evidence,
  type Explanation,
  explain,
  explainAsync,
  explainCertificates,
  type VerifyOptions,
  verifyCertificates,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { AT_MS, crypto, forge, judge } from './soft.ts';

const milan = forge('Milan');
const genoa = forge('Genoa');
const turin = forge('Turin');
const chain = milan.chain();
const leaf = milan.leaf();
const report = milan.report();
const trust = [milan.authority.ark, genoa.authority.ark, turin.authority.ark];
const YEAR_MS = 365 * 86_400_000;

const tcb = (changes: Partial<typeof milan.tcb>) => ({ ...milan.tcb, ...changes });
const word = (changes: Partial<typeof milan.tcb>) => encodeTcb(tcb(changes), 'Milan');

interface Happening {
  readonly code: CauseCode;
  readonly what: string;
  readonly evidence: Evidence;
  readonly options?: Partial<VerifyOptions>;
}

const certificates = [leaf, ...chain];
const table = encodeCertificateTable([
  { guid: VCEK_GUID, data: leaf },
  { guid: ASK_GUID, data: chain[0]! },
  { guid: ARK_GUID, data: chain[1]! },
]);
const privateKey = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey.export({
  type: 'pkcs8',
  format: 'pem',
}) as string;
const swappedTable = (): Uint8Array => {
  const table = encodeCertificateTable([
    { guid: VCEK_GUID, data: leaf },
    { guid: ASK_GUID, data: chain[0]! },
  ]);
  for (const at of [0, 24]) {
    for (const [from, to] of [
      [0, 4],
      [4, 6],
      [6, 8],
    ] as const) {
      table.subarray(at + from, at + to).reverse();
    }
  }
  return table;
};

const happenings: readonly Happening[] = [
  {
    code: 'REPORT_IS_TEXT',
    what: 'the report in hexadecimal',
    evidence: { report: utf8(toHex(report)), certificates },
  },
  {
    code: 'REPORT_IS_TEXT',
    what: 'the report in base64',
    evidence: { report: utf8(Buffer.from(report).toString('base64')), certificates },
  },
  {
    code: 'REPORT_IS_WRAPPED',
    what: 'MSG_REPORT_RSP',
    evidence: { report: response(0, report), certificates },
  },
  {
    code: 'REPORT_IS_WRAPPED',
    what: 'an answer of the firmware that holds an error',
    evidence: { report: response(0x16, new Uint8Array(0)), certificates },
  },
  {
    code: 'REPORT_IS_TRUNCATED',
    what: 'the first 1024 bytes',
    evidence: { report: report.subarray(0, 1024), certificates },
  },
  {
    code: 'SIGNATURE_BIG_ENDIAN',
    what: 'R and S turned around in their 72 bytes',
    evidence: {
      report: milan.report({
        after: (b) => {
          b.subarray(0x2a0, 0x2e8).reverse();
          b.subarray(0x2e8, 0x330).reverse();
        },
      }),
      certificates,
    },
  },
  {
    code: 'SIGNATURE_BIG_ENDIAN',
    what: 'R and S turned around in their 48 bytes',
    evidence: {
      report: milan.report({
        after: (b) => {
          b.subarray(0x2a0, 0x2d0).reverse();
          b.subarray(0x2e8, 0x318).reverse();
        },
      }),
      certificates,
    },
  },
  {
    code: 'SIGNATURE_PARTS_SWAPPED',
    what: 'S before R',
    evidence: {
      report: milan.report({
        after: (b) => b.set(concat(b.slice(0x2e8, 0x330), b.slice(0x2a0, 0x2e8)), 0x2a0),
      }),
      certificates,
    },
  },
  {
    code: 'REPORT_LOST_CPUID',
    what: 'CPUID bytes zeroed by a tool',
    evidence: { report: milan.report({ after: (b) => b.fill(0, 0x188, 0x18b) }), certificates },
    options: { product: 'Milan' },
  },
  {
    code: 'REPORT_CHANGED',
    what: 'one byte of REPORT_DATA',
    evidence: {
      report: milan.report({
        after: (b) => {
          b[0x50]! ^= 1;
        },
      }),
      certificates,
    },
  },
  {
    code: 'CERT_OF_CURRENT_TCB',
    what: 'the certificate of CURRENT_TCB',
    evidence: {
      report: milan.report({ fields: { current_tcb: word({ snp: 25 }) } }),
      certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 25 }) }), ...chain],
    },
  },
  {
    code: 'CERT_OF_COMMITTED_TCB',
    what: 'the certificate of COMMITTED_TCB',
    evidence: {
      report: milan.report({ fields: { current_tcb: word({ snp: 26 }), committed_tcb: word({ snp: 25 }) } }),
      certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 25 }) }), ...chain],
    },
  },
  {
    code: 'CERT_OF_LAUNCH_TCB',
    what: 'the certificate of LAUNCH_TCB',
    evidence: {
      report: milan.report({ fields: { launch_tcb: word({ snp: 20 }) } }),
      certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 20 }) }), ...chain],
    },
  },
  {
    code: 'CERT_IS_STALE',
    what: 'a blob from before a commit',
    evidence: {
      report,
      certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 10, microcode: 100 }) }), ...chain],
    },
  },
  {
    code: 'CERT_IS_AHEAD',
    what: 'a blob written before the commit',
    evidence: { report, certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 30 }) }), ...chain] },
  },
  {
    code: 'CERT_OF_ANOTHER_CHIP',
    what: 'the certificate of another host',
    evidence: { report, certificates: [forge('Milan', 2).leaf(), ...chain] },
  },
  {
    code: 'VLEK_FOR_VCEK_REPORT',
    what: 'a VLEK beside a report of the VCEK',
    evidence: { report, certificates: [milan.leaf('VLEK'), ...milan.chain('VLEK')] },
  },
  {
    code: 'VCEK_FOR_VLEK_REPORT',
    what: 'a VCEK beside a report of the VLEK',
    evidence: { report: milan.report({ kind: 'VLEK' }), certificates },
  },
  {
    code: 'INTERMEDIATE_OF_ANOTHER_LINE',
    what: 'the ASK of Genoa',
    evidence: { report, certificates: [leaf, genoa.authority.ask, milan.authority.ark] },
  },
  {
    code: 'ASK_FOR_VLEK',
    what: 'the ASK below a VLEK',
    evidence: { report: milan.report({ kind: 'VLEK' }), certificates: [milan.leaf('VLEK'), ...chain] },
  },
  {
    code: 'ASVK_FOR_VCEK',
    what: 'the ASVK below a VCEK',
    evidence: { report, certificates: [leaf, ...milan.chain('VLEK')] },
  },
  {
    code: 'INTERMEDIATE_REPLACED',
    what: 'another ASK of the same name',
    evidence: { report, certificates: [milan.leaf('VCEK', { signer: genoa.authorityKey('ASK') }), ...chain] },
  },
  { code: 'NO_CERTIFICATE', what: 'the report alone', evidence: { report } },
  {
    code: 'NO_CERTIFICATE',
    what: 'a report of a VLEK alone',
    evidence: { report: milan.report({ kind: 'VLEK' }) },
  },
  {
    code: 'CHIP_ID_MASKED',
    what: 'a masked CHIP_ID and no certificate',
    evidence: { report: milan.report({ fields: { chip_id: new Uint8Array(64) } }) },
  },
  {
    code: 'CERT_IS_ERROR_PAGE',
    what: 'the page of a 429',
    evidence: {
      report,
      certificates: [utf8('<html><head><title>429 Too Many Requests</title></head></html>'), ...chain],
    },
  },
  {
    code: 'TURIN_URL',
    what: 'what a 404 for the long id leaves',
    evidence: { report: turin.report(), certificates: [utf8('<html>404</html>'), ...turin.chain()] },
  },
  {
    code: 'CERT_IS_PEM',
    what: 'the certificate in PEM',
    evidence: { report, certificates: [utf8(toPem(leaf)), ...chain] },
  },
  { code: 'TABLE_GUIDS_SWAPPED', what: 'GUIDs in EFI order', evidence: { report, table: swappedTable() } },
  {
    code: 'SOFTSNP_ROOT',
    what: 'softsnp under the roots of AMD',
    evidence: { report, certificates },
    options: { trust: 'amd' },
  },
  {
    code: 'EXPIRED_VLEK',
    what: 'a VLEK of the year before last',
    evidence: {
      report: milan.report({ kind: 'VLEK' }),
      certificates: [
        milan.leaf('VLEK', { validity: validity(AT_MS - 2 * YEAR_MS, AT_MS - YEAR_MS) }),
        ...milan.chain('VLEK'),
      ],
    },
  },
  {
    code: 'REPORT_IS_TRUNCATED',
    what: 'half of the hexadecimal text',
    evidence: { report: utf8(toHex(report).slice(0, 1184)), certificates },
  },
  {
    code: 'REPORT_IS_TRUNCATED',
    what: 'half of the base64 text',
    evidence: { report: utf8(Buffer.from(report).toString('base64').slice(0, 800)), certificates },
  },
  {
    code: 'REPORT_HAS_MORE_BYTES',
    what: 'a line break at the end',
    evidence: { report: concat(report, utf8('\n')), certificates },
  },
  {
    code: 'REPORT_HAS_MORE_BYTES',
    what: 'a line break at the end, in hexadecimal',
    evidence: { report: utf8(`${toHex(report)}0a`), certificates },
  },
  { code: 'REPORT_IS_DUMP', what: 'xxd', evidence: { report: utf8(xxd(report)), certificates } },
  {
    code: 'REPORT_IS_SOMETHING_ELSE',
    what: 'a page',
    evidence: { report: utf8('<!doctype html><title>502</title>'), certificates },
  },
  {
    code: 'REPORT_IS_SOMETHING_ELSE',
    what: 'the certificate in PEM',
    evidence: { report: utf8(toPem(leaf)), certificates },
  },
  {
    code: 'REPORT_IS_SOMETHING_ELSE',
    what: 'the table',
    evidence: { report: table, certificates },
  },
  {
    code: 'REPORT_IS_SOMETHING_ELSE',
    what: 'nothing',
    evidence: { report: new Uint8Array(0), certificates },
  },
  {
    code: 'SIGNER_UNKNOWN',
    what: 'a masked CHIP_ID and the certificate of another chip',
    evidence: {
      report: milan.report({ fields: { chip_id: new Uint8Array(64) } }),
      certificates: [forge('Milan', 2).leaf(), ...chain],
    },
  },
  {
    code: 'SIGNER_UNKNOWN',
    what: 'the VLEK of another cloud',
    evidence: {
      report: milan.report({ kind: 'VLEK' }),
      certificates: [forge('Milan', 2).leaf('VLEK'), ...milan.chain('VLEK')],
    },
  },
  {
    code: 'CERT_OF_ANOTHER_TCB',
    what: 'a TCB with one part above and one below',
    evidence: {
      report,
      certificates: [milan.leaf('VCEK', { tcb: tcb({ snp: 10, microcode: 255 }) }), ...chain],
    },
  },
  {
    code: 'CERT_OF_ANOTHER_LINE',
    what: 'a VLEK of Genoa beside a report of Milan',
    evidence: {
      report: milan.report({ kind: 'VLEK' }),
      certificates: [genoa.leaf('VLEK'), ...genoa.chain('VLEK')],
    },
  },
  {
    code: 'CERT_OF_ANOTHER_LINE',
    what: 'a VCEK of Genoa beside a report of Milan',
    evidence: { report, certificates: [genoa.leaf(), ...genoa.chain()] },
  },
  {
    code: 'CERT_IS_ERROR_PAGE',
    what: 'a page that is not in ASCII',
    evidence: { report, certificates: [utf8('<html>Zu viele Anfragen – bitte warten</html>'), ...chain] },
  },
  {
    code: 'CERT_IS_TRUNCATED',
    what: 'the first 1000 bytes',
    evidence: { report, certificates: [leaf.subarray(0, 1000), ...chain] },
  },
  {
    code: 'CERT_IS_TRUNCATED',
    what: 'an empty file',
    evidence: { report, certificates: [new Uint8Array(0), ...chain] },
  },
  {
    code: 'CERT_IS_TRUNCATED',
    what: 'PEM without its end',
    evidence: { report, certificates: [utf8(toPem(leaf).slice(0, 900)), ...chain] },
  },
  {
    code: 'CERT_IS_TEXT',
    what: 'the certificate in hexadecimal',
    evidence: { report, certificates: [utf8(toHex(leaf)), ...chain] },
  },
  {
    code: 'CERT_IS_PRIVATE_KEY',
    what: 'a private key by the name of vcek.pem',
    evidence: {
      report,
      certificates: [utf8(privateKey), ...chain],
      labels: { certificates: ['certs/vcek.pem'] },
    },
  },
  {
    code: 'CERT_IS_SOMETHING_ELSE',
    what: 'the report in the place of the certificate',
    evidence: { report, certificates: [report, ...chain] },
  },
  {
    code: 'TABLE_IS_TRUNCATED',
    what: 'the first page of the table',
    evidence: { report, table: table.subarray(0, 2048) },
  },
  {
    code: 'TABLE_IS_DAMAGED',
    what: 'two entries of one place',
    evidence: { report, table: overlapping() },
  },
  {
    code: 'TABLE_IS_SOMETHING_ELSE',
    what: 'a page',
    evidence: { report, table: utf8('<html>404</html>') },
  },
  {
    code: 'TABLE_IS_SOMETHING_ELSE',
    what: 'random bytes',
    evidence: { report, table: seededRandom(1).bytes(4096) },
  },
  {
    code: 'CRL_IS_SOMETHING_ELSE',
    what: 'a page',
    evidence: { report, certificates, crls: [utf8('<html>429</html>')] },
    options: { crl: 'require' },
  },
];

function overlapping(): Uint8Array {
  const out = table.slice();
  out.copyWithin(24 + 16, 16, 24);
  return out;
}

function xxd(bytes: Uint8Array): string {
  const line = (at: number): string =>
    `${at.toString(16).padStart(8, '0')}: ${toHex(bytes.subarray(at, at + 16)).replace(/.{4}/g, '$& ')} ................`;
  return Array.from({ length: bytes.length / 16 }, (_, i) => line(16 * i)).join('\n');
}

function response(status: number, body: Uint8Array): Uint8Array {
  const out = new Uint8Array(4000);
  writeU32(out, 0, status);
  writeU32(out, 4, body.length);
  out.set(body, 0x20);
  return out;
}

const causesOf = (evidence: Evidence, options: Partial<VerifyOptions> = {}): Explanation[] => {
  const result = judge(evidence, { trust, ...options });
  expect(result.ok).toBe(false);
  return explain(evidence, result, crypto);
};

describe('why not', () => {
  it.each(happenings)('$code: $what', ({ code, evidence, options }) => {
    const found = causesOf(evidence, options);
    expect(found.map((explanation) => explanation.code)).toContain(code);
    const codes = judge(evidence, { trust, ...options }).findings.map((finding) => finding.code);
    for (const explanation of found) {
      expect(explanation.explains.some((explained) => codes.includes(explained))).toBe(true);
    }
  });

  it('every cause of the table happens above', () => {
    const happened = new Set(happenings.map(({ code }) => code));
    expect(Object.keys(CAUSES).filter((code) => !happened.has(code as CauseCode))).toEqual([]);
  });

  it('gives the very URL to fetch from', () => {
    const [cause] = causesOf({ report: turin.report(), certificates: turin.chain() });
    expect(cause!.cure).toBe(
      `Fetch https://kdsintf.amd.com/vcek/v1/Turin/${toHex(turin.chipId.subarray(0, 8))}?fmcSPL=01&blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219`,
    );
  });

  it('gives both URLs where a version 2 report leaves the line open', () => {
    const [cause] = causesOf({ report: milan.report({ version: 2 }) });
    expect(cause!.cure).toMatch(/\/vcek\/v1\/Milan\/.* or, .*\/vcek\/v1\/Genoa\//);
  });

  it('speaks of the old form of a Turin URL only where a page was found', () => {
    const codes = causesOf({ report: turin.report(), certificates: turin.chain() }).map(({ code }) => code);
    expect(codes).toEqual(['NO_CERTIFICATE']);
  });

  it('never shows what is in a file, only its name and form', () => {
    const secrets = [utf8(privateKey), utf8('password=hunter2'), utf8('<html>session 4711</html>')];
    const evidence = { report, certificates: secrets, labels: { certificates: ['a.pem', 'b.pem', 'c.pem'] } };
    const result = judge(evidence, { trust });
    const said = JSON.stringify([result.findings, explain(evidence, result, crypto)]);
    for (const secret of [privateKey.split('\n')[1]!.slice(0, 16), 'hunter2', '4711']) {
      expect(said).not.toContain(secret);
    }
    expect(said).toContain('a.pem is PEM of PRIVATE KEY');
    expect(result.findings.map(({ where }) => where)).toContain('b.pem');
  });

  it('has causes for certificates without a report', () => {
    const causes = (evidence: Omit<Evidence, 'report'>): CauseCode[] => {
      const result = verifyCertificates(evidence, { atMs: AT_MS, crl: 'if-present', trust, crypto });
      expect(result.ok).toBe(false);
      return explainCertificates(evidence, result).map(({ code }) => code);
    };
    expect(causes({ certificates: [leaf, genoa.authority.ask, milan.authority.ark] })).toEqual([
      'INTERMEDIATE_OF_ANOTHER_LINE',
    ]);
    expect(causes({ certificates: [leaf, ...milan.chain('VLEK')] })).toEqual(['ASVK_FOR_VCEK']);
    expect(causes({ certificates: [utf8('<html>'), ...chain] })).toEqual(['CERT_IS_ERROR_PAGE']);
    expect(causes({ table: table.subarray(0, 2048) })).toEqual(['TABLE_IS_TRUNCATED']);
    expect(causes({ certificates: [utf8(privateKey)] })).toEqual(['CERT_IS_PRIVATE_KEY']);
  });

  it('has nothing to say about accepted evidence', () => {
    const evidence = { report, certificates };
    const result = judge(evidence, { trust });
    expect(result.ok).toBe(true);
    expect(explain(evidence, result, crypto)).toEqual([]);
  });

  it('names a stale certificate as such only where the chip fits', () => {
    const other = forge('Milan', 3).leaf('VCEK', { tcb: tcb({ snp: 1 }) });
    expect(causesOf({ report, certificates: [other, ...chain] }).map(({ code }) => code)).toEqual([
      'CERT_OF_ANOTHER_CHIP',
    ]);
  });

  it('says the same with WebCrypto', async () => {
    for (const { evidence, options } of happenings) {
      const result = judge(evidence, { trust, ...options });
      expect(await explainAsync(evidence, result, webVerifyCrypto(webcrypto.subtle))).toEqual(
        explain(evidence, result, crypto),
      );
    }
  });
});
