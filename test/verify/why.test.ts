// SPDX-License-Identifier: Apache-2.0
/** docs/howto/did-not-verify.md: every cause in its table is made to happen here, and found. */

import { generateKeyPairSync, webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeTcb } from '../../src/abi/tcb-version.ts';
import { toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { validity } from '../../src/cli/vectors/der.ts';
import { concat, fromHex, toHex, utf8, writeU32 } from '../../src/lib/bytes.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import {
  AMD_ROOTS,
  CAUSES,
  type CauseCode,
  type Evidence,
  type Explanation,
  explain,
  explainAsync,
  explainCertificates,
  VerifyCache,
  type VerifyCrypto,
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
/** With two line feeds in it and no CR LF. */
const lineFed = milan.report({ fields: { report_data: new Uint8Array(64).fill(0x61).fill(0x0a, 9, 11) } });
const YEAR_MS = 365 * 86_400_000;

const tcb = (changes: Partial<typeof milan.tcb>) => ({ ...milan.tcb, ...changes });
const word = (changes: Partial<typeof milan.tcb>) => encodeTcb(tcb(changes), 'Milan');

interface Happening {
  readonly code: CauseCode;
  readonly what: string;
  readonly evidence: Evidence;
  readonly options?: Partial<VerifyOptions> & { readonly crypto?: VerifyCrypto };
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
    code: 'REPORT_IS_TEXT',
    what: 'the report as go-configfs-tsm writes it',
    evidence: { report: goJson({ OutBlob: report }), certificates },
  },
  {
    code: 'REPORT_IS_TRUNCATED',
    what: 'half a report in JSON',
    evidence: { report: goJson({ OutBlob: report.subarray(0, 512) }), certificates },
  },
  {
    code: 'REPORT_HAS_MORE_BYTES',
    what: 'one digit too many',
    evidence: { report: utf8(`${toHex(report)}0`), certificates },
  },
  {
    code: 'REPORT_WENT_THROUGH_TEXT',
    what: 'line ends changed as on Windows',
    evidence: { report: withReturns(lineFed), certificates },
  },
  {
    code: 'REPORT_WENT_THROUGH_TEXT',
    what: 'bytes taken for Latin-1 and written in UTF-8',
    evidence: { report: utf8(Buffer.from(report).toString('latin1')), certificates },
  },
  {
    code: 'REPORT_WENT_THROUGH_TEXT',
    what: 'both, and in base64 after that',
    evidence: {
      report: utf8(
        Buffer.from(withReturns(utf8(Buffer.from(lineFed).toString('latin1')))).toString('base64'),
      ),
      certificates,
    },
  },
  { code: 'OTHER_HARDWARE', what: 'a TDX quote', evidence: { report: quote(4, 0x81), certificates } },
  {
    code: 'OTHER_HARDWARE',
    what: 'an SGX quote in JSON',
    evidence: { report: goJson({ outblob: quote(3, 0) }), certificates },
  },
  { code: 'OTHER_HARDWARE', what: 'an EPID quote', evidence: { report: epidQuote(), certificates } },
  {
    code: 'OTHER_HARDWARE',
    what: 'Azure’s HCL report of a TDX VM',
    evidence: { report: hclOfTdx(), certificates },
  },
  {
    code: 'OTHER_HARDWARE',
    what: 'something unknown of which configfs-tsm says that it is from tdx_guest',
    evidence: { report: seededRandom(2).bytes(4000), provider: 'tdx_guest', certificates },
  },
  {
    code: 'PRODUCT_OPTION_WRONG',
    what: 'Genoa for a version 2 report of Milan',
    evidence: { report: milan.report({ version: 2 }), certificates },
    options: { product: 'Genoa' },
  },
  {
    code: 'PRODUCT_OPTION_WRONG',
    what: 'Turin for a version 2 report of Milan',
    evidence: { report: milan.report({ version: 2 }), certificates },
    options: { product: 'Turin' },
  },
  {
    code: 'PRODUCT_OPTION_WRONG',
    what: 'Genoa for a version 3 report of Milan',
    evidence: { report, certificates },
    options: { product: 'Genoa' },
  },
  {
    code: 'CHAIN_MISSING',
    what: 'the leaf alone',
    evidence: { report, certificates: [leaf] },
    options: { trust: 'amd' },
  },
  {
    code: 'CHAIN_MISSING',
    what: 'no root',
    evidence: { report, certificates: [leaf, chain[0]!] },
    options: { trust: 'amd' },
  },
  {
    code: 'CERT_IS_OTHER_PEM',
    what: 'as openssl x509 -trustout writes it',
    evidence: { report, certificates: [utf8(toPem(leaf, 'TRUSTED CERTIFICATE')), ...chain] },
  },
  {
    code: 'AMD_ROOT_NOT_NAMED',
    what: 'the root of AMD where another was named',
    evidence: { report, certificates },
    options: { trust: [genoa.authority.ark], cache: new VerifyCache(), crypto: withAmdRoot() },
  },
  {
    code: 'CRL_IS_SOMETHING_ELSE',
    what: 'a page',
    evidence: { report, certificates, crls: [utf8('<html>429</html>')] },
    options: { crl: 'require' },
  },
];

function goJson(fields: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const coded = Object.entries(fields).map(([name, data]) => [name, Buffer.from(data).toString('base64')]);
  return utf8(JSON.stringify(Object.fromEntries(coded)));
}

function withReturns(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from([...bytes].flatMap((byte) => (byte === 0x0a ? [0x0d, 0x0a] : [byte])));
}

/** With the vendor id that all of Intel's quoting enclaves have. */
function quote(version: number, tee: number): Uint8Array {
  const out = seededRandom(3).bytes(4600);
  writeU32(out, 0, version | (2 << 16));
  writeU32(out, 4, tee);
  out.set(fromHex('939a7233f79c4ca9940a0db3957f0607'), 12);
  return out;
}

function epidQuote(): Uint8Array {
  const out = new Uint8Array(432 + 4 + 680);
  writeU32(out, 0, 2);
  out[10] = 0x0b;
  writeU32(out, 432, 680);
  return out;
}

function hclOfTdx(): Uint8Array {
  const out = new Uint8Array(2600);
  out.set(utf8('HCLA'));
  writeU32(out, 0x20, 0x81);
  writeU32(out, 0x4c8, 4);
  return out;
}

/** As if the root of softsnp were one that is pinned. */
function withAmdRoot(): VerifyCrypto {
  const ark = toHex(milan.authority.ark);
  return {
    ...crypto,
    sha256Hex: (data) => (toHex(data) === ark ? AMD_ROOTS[0]!.sha256 : crypto.sha256Hex(data)),
  };
}

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

const nameOf = (commonName: string): Uint8Array => {
  const text = utf8(commonName);
  const attribute = concat(fromHex('06035504030c'), Uint8Array.of(text.length), text);
  return concat(
    Uint8Array.of(0x30, attribute.length + 4, 0x31, attribute.length + 2, 0x30, attribute.length),
    attribute,
  );
};

const causesOf = (evidence: Evidence, options: Happening['options'] = {}): Explanation[] => {
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

  it.each([
    ['Genoa', 2],
    ['Turin', 2],
    ['Genoa', 3],
  ] as const)(
    'blames the option %s for a version %d report of Milan, and nothing else',
    (product, version) => {
      const found = causesOf({ report: milan.report({ version }), certificates }, { product });
      expect(found.map(({ code }) => code)).toEqual(['PRODUCT_OPTION_WRONG']);
      expect(found[0]!.because).toContain(`The option says ${product}`);
      expect(JSON.stringify(found)).not.toContain('https:');
    },
  );

  it('does not make a fact of what the option says', () => {
    const [missing] = causesOf({ report: milan.report({ version: 2 }) }, { product: 'Genoa' });
    expect(missing!.because).toMatch(/^By the option given the report is of a Genoa part/);
    const unknown = milan.report({
      fields: { cpuid_fam_id: 0, cpuid_mod_id: 0 },
      after: (b) => b.fill(1, 0x50, 0x51),
    });
    const [cause] = causesOf({ report: unknown, certificates }, { product: 'Genoa' });
    expect(cause).toMatchObject({
      code: 'CERT_OF_ANOTHER_LINE',
      because: expect.stringContaining('The option says'),
      cure: expect.stringContaining('If the option is right'),
    });
  });

  it('names the certificates that are missing and where they are', () => {
    const [cause] = causesOf({ report, certificates: [leaf] }, { trust: 'amd' });
    expect(cause).toMatchObject({
      because: 'ASK (SEV-Milan) and ARK (ARK-Milan) are not among what was given.',
      cure: 'Fetch https://kdsintf.amd.com/vcek/v1/Milan/cert_chain',
      explains: ['INTERMEDIATE_MISSING', 'ROOT_MISSING'],
    });
    const vlek = milan.report({ kind: 'VLEK' });
    const given = [milan.leaf('VLEK'), milan.authority.asvk];
    const [of] = causesOf({ report: vlek, certificates: given }, { trust: 'amd' });
    expect(of).toMatchObject({
      because: 'ARK (ARK-Milan) is not among what was given.',
      cure: 'Fetch https://kdsintf.amd.com/vlek/v1/Milan/cert_chain',
      explains: ['ROOT_MISSING'],
    });
  });

  it('believes no root that nobody has named what it says of itself, and repeats nothing of it', () => {
    const root = (comment: string): Uint8Array =>
      milan.ca('ARK', {
        extensions: (all) =>
          all.map((extension) =>
            extension.oid === '2.16.840.1.113730.1.13'
              ? { ...extension, value: concat(Uint8Array.of(0x16, comment.length), utf8(comment)) }
              : extension,
          ),
      });
    const own = milan.ca('ARK');
    expect(causesOf({ report, certificates: [leaf, chain[0]!, own] }, { trust: 'amd' })).toMatchObject([
      { code: 'SOFTSNP_ROOT', because: expect.stringContaining('anybody can write') },
    ]);
    for (const comment of ['\u001b[2J\u001b[HACCEPTED', 'softsnp TEST ROOT, NOT AMD!', 'x']) {
      const certificates = [leaf, chain[0]!, root(comment)];
      const found = causesOf({ report, certificates }, { trust: 'amd' });
      expect(found).toEqual([]);
    }
  });

  it('says what a file is whose report is in none of the fields that are looked for', () => {
    const [cause] = causesOf({ report: utf8('{"evidence":"x"}'), certificates });
    expect(cause).toMatchObject({
      code: 'REPORT_IS_SOMETHING_ELSE',
      because: 'It is JSON, and no field outblob (in any case) holds a report in base64.',
    });
  });

  it.each([
    ['is an Intel TDX quote, version 5', quote(5, 0x81)],
    ['is an Intel SGX quote, version 3', quote(3, 0)],
    ['is an Intel SGX quote, version 2 (EPID)', epidQuote()],
    ['is an Azure HCL report of an Intel TDX VM', hclOfTdx()],
  ])('%s', (is, bytes) => {
    expect(causesOf({ report: bytes, certificates })[0]!.because).toBe(`It ${is}.`);
  });

  it('repeats nothing of a provider that is no name of a device', () => {
    const evidence = { report: seededRandom(2).bytes(4000), provider: 'password=hunter2', certificates };
    expect(causesOf(evidence).map(({ code }) => code)).toEqual(['REPORT_IS_SOMETHING_ELSE']);
  });

  it('takes nothing for a cut report that lacks the bit every guest policy has', () => {
    const other = new Uint8Array(1116);
    writeU32(other, 0, 2);
    other[900] = 1;
    expect(causesOf({ report: other, certificates })[0]!.code).toBe('REPORT_IS_SOMETHING_ELSE');
  });

  it('shows names and file names without what a terminal would obey', () => {
    const subject = milan.leaf('VCEK', { subject: nameOf('a\u009b2J\u202eb') });
    const evidence = {
      report,
      certificates: [subject, utf8('<html>'), ...chain],
      labels: { certificates: ['x', 'certs/\u001b[31m.pem'] },
    };
    const result = judge(evidence, { trust });
    const said = [
      ...result.findings.flatMap(({ where, expected, actual, message }) => [
        where,
        expected,
        actual,
        message,
      ]),
      ...explain(evidence, result, crypto).flatMap(({ because, cure }) => [because, cure]),
    ].join(' ');
    expect(said).toContain('CN=a\\u{9b}2J\\u{202e}b');
    expect(said).toContain('certs/\\u{1b}[31m.pem');
    expect(said).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
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
    expect(causes({ certificates: [genoa.leaf('VLEK')] })).toEqual(['CHAIN_MISSING']);
    expect(causes({ certificates: [milan.authority.ark] })).toEqual(['CHAIN_MISSING']);
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
