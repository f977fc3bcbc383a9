// SPDX-License-Identifier: Apache-2.0
/** Reports and certificates in every form people have them in. */
import { describe, expect, it } from 'vitest';
import { VCEK_GUID } from '../../src/abi/cert-table.ts';
import { certificatesOf, toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { concat, toHex, utf8, writeU32 } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import { explain, readCertificateInput, readReportInput, verifyEvidence } from '../../src/verify/index.ts';
import { crypto, errorsOf, forge, judge } from './soft.ts';
import { HAVE_VECTORS, vector } from './vectors.ts';

const milan = forge('Milan');
const report = milan.report();
const leaf = milan.leaf();
const table = encodeCertificateTable([{ guid: VCEK_GUID, data: leaf }]);
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

function response(status: number, body: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(size);
  writeU32(out, 0, status);
  writeU32(out, 4, body.length);
  out.set(body, 0x20);
  return out;
}

const utf16 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(`\ufeff${text}`, 'utf16le'));
const hcl = concat(utf8('HCLA'), new Uint8Array(28), report, new Uint8Array(1384));

describe('a report', () => {
  const forms: readonly (readonly [string, Uint8Array, readonly string[]])[] = [
    ['binary', report, []],
    ['hexadecimal', utf8(toHex(report)), ['hexadecimal']],
    ['hexadecimal in lines', utf8(`${toHex(report).replace(/.{64}/g, '$&\n')}\n`), ['hexadecimal']],
    ['hexadecimal with 0x', utf8(`0x${toHex(report)}`), ['hexadecimal']],
    ['base64', utf8(base64(report)), ['base64']],
    ['base64 in lines', utf8(`${base64(report).replace(/.{76}/g, '$&\r\n')}\r\n`), ['base64']],
    ['base64url without padding', utf8(Buffer.from(report).toString('base64url')), ['base64']],
    ['hexadecimal behind a byte order mark', utf8(`\ufeff${toHex(report)}\n`), ['hexadecimal']],
    ['base64 behind a byte order mark', utf8(`\ufeff${base64(report)}\r\n`), ['base64']],
    ['base64 in UTF-16, as PowerShell redirects it', utf16(`${base64(report)}\r\n`), ['base64']],
    ['MSG_REPORT_RSP of 4000 bytes', response(0, report, 4000), ['MSG_REPORT_RSP']],
    ['MSG_REPORT_RSP of 1216 bytes', response(0, report, 1216), ['MSG_REPORT_RSP']],
    ['Azure HCL report', hcl, ['Azure HCL report']],
    ['Azure HCL report in base64', utf8(base64(hcl)), ['base64', 'Azure HCL report']],
    ['report and table', concat(report, table), ['report and table']],
    ['report and table in whole pages', concat(report, table, new Uint8Array(4096)), ['report and table']],
    [
      'configfs-tsm JSON',
      utf8(JSON.stringify({ outblob: base64(report), auxblob: base64(table), provider: 'sev_guest' })),
      ['configfs-tsm JSON'],
    ],
    [
      'JSON of go-configfs-tsm, behind a byte order mark',
      utf8(`\ufeff${JSON.stringify({ Provider: 'sev_guest\n', OutBlob: base64(report), AuxBlob: null })}`),
      ['configfs-tsm JSON'],
    ],
    [
      'JSON with a name that is not in ASCII',
      utf8(JSON.stringify({ von: 'Büro', outblob: base64(report) })),
      ['configfs-tsm JSON'],
    ],
  ];
  it.each(forms)('is found in %s', (_, input, expected) => {
    const found = readReportInput(input);
    expect(found.report).toEqual(report);
    expect(found.forms).toEqual(expected);
  });

  it('brings its table along', () => {
    expect(readReportInput(concat(report, table)).table).toEqual(table);
    const json = utf8(JSON.stringify({ outblob: base64(report), auxblob: base64(table) }));
    expect(readReportInput(json).table).toEqual(table);
    expect(readReportInput(report).table).toBeNull();
  });

  it('brings table and provider along whatever the case of their names', () => {
    const fields = { Provider: 'sev_guest\n', OutBlob: base64(report), AuxBlob: base64(table) };
    expect(readReportInput(utf8(JSON.stringify(fields)))).toMatchObject({
      report,
      table,
      provider: 'sev_guest',
    });
  });

  it('is not made up where there is none: such input comes back as it is', () => {
    for (const input of [
      new Uint8Array(0),
      utf8('hello'),
      utf8('{}'),
      utf8('{"outblob": 3}'),
      utf8('{"outblob": "AA==", "OutBlob": "AA=="}'),
      utf8('{"outblob": null}'),
      utf8('{broken'),
      report.subarray(0, 1000),
      concat(report, new Uint8Array(7)),
      concat(report, new Uint8Array(24)),
      concat(report, new Uint8Array(4096)),
      concat(report, new Uint8Array(24), leaf),
      concat(report, table, Uint8Array.of(1)),
      new Uint8Array(1 << 21),
    ]) {
      const { report: same, forms: none, table: absent } = readReportInput(input);
      expect(same).toBe(input);
      expect([none, absent]).toEqual([[], null]);
    }
  });

  it('is an InputError where the firmware answered with an error', () => {
    expect(() => readReportInput(response(0x16, new Uint8Array(0), 4000))).toThrow(InputError);
    expect(() => readReportInput(response(0x27, new Uint8Array(0), 4000))).toThrow(/0x27/);
  });
});

describe('certificates', () => {
  const crl = milan.crl();
  it('are found in DER, PEM, base64 and tables, lists told from certificates', () => {
    expect(readCertificateInput(leaf)).toEqual({ certificates: [leaf], crls: [], table: null, form: 'DER' });
    expect(readCertificateInput(crl)).toEqual({ certificates: [], crls: [crl], table: null, form: 'DER' });
    const pem = utf8(
      milan
        .chain()
        .map((der) => toPem(der))
        .join('') + toPem(crl, 'X509 CRL'),
    );
    expect(readCertificateInput(pem)).toEqual({
      certificates: milan.chain(),
      crls: [crl],
      table: null,
      form: 'PEM',
    });
    expect(readCertificateInput(utf8(base64(leaf)))).toEqual({
      certificates: [leaf],
      crls: [],
      table: null,
      form: 'base64',
    });
    expect(readCertificateInput(table)).toEqual({ certificates: [], crls: [], table, form: 'table' });
  });

  it.each([
    ['a byte order mark', (pem: string) => utf8(`\ufeff${pem}`)],
    ['a comment that is not in ASCII', (pem: string) => utf8(`# Zertifikat für Prüfung\n${pem}`)],
    ['a comment in Latin-1', (pem: string) => Uint8Array.from(Buffer.from(`# für\n${pem}`, 'latin1'))],
    ['PowerShell’s UTF-16', utf16],
  ])('are found in PEM with %s', (_, written) => {
    const pem = toPem(leaf) + toPem(crl, 'X509 CRL');
    expect(readCertificateInput(written(pem))).toEqual({
      certificates: [leaf],
      crls: [crl],
      table: null,
      form: 'PEM',
    });
  });

  it.each(['TRUSTED CERTIFICATE', 'X509 CERTIFICATE', 'PKCS7', 'PKCS #7 SIGNED DATA', 'CMS'])(
    'under the label %s are not skipped: they are certificates that cannot be read',
    (label) => {
      const other = toPem(leaf, label);
      const { certificates, form } = readCertificateInput(utf8(toPem(leaf) + other + toPem(leaf)));
      expect([certificates, form]).toEqual([[leaf, leaf, utf8(other.trimEnd())], 'PEM']);
      const result = judge({ report, certificates: [...certificates, ...milan.chain()] });
      expect(errorsOf(result)).toContain('CERT_MALFORMED');
      const said = explain({ report, certificates }, result, crypto).map(({ because }) => because);
      expect(said).toContain(`certificates[2] is PEM of ${label}.`);
      expect(() => certificatesOf(utf8(toPem(leaf) + other))).toThrow(label);
    },
  );

  it('are found beside keys, requests and parameters, which are none', () => {
    const others = ['EC PARAMETERS', 'PUBLIC KEY', 'CERTIFICATE REQUEST', 'PRIVATE KEY'];
    const pem = others.map((label) => toPem(Uint8Array.of(0x30, 0), label)).join('') + toPem(leaf);
    expect(readCertificateInput(utf8(pem)).certificates).toEqual([leaf]);
  });

  it('of version 1 are certificates, though they begin with an INTEGER as revocation lists do', () => {
    const first = milan.leaf('VCEK', { version: new Uint8Array(0), extensions: () => [] });
    expect(readCertificateInput(first)).toMatchObject({ certificates: [first], crls: [] });
  });

  it('that are none come back for the verifier to refuse', () => {
    for (const input of [utf8('<html>'), utf8('-----BEGIN CERTIFICATE-----\n'), new Uint8Array(3)]) {
      expect(readCertificateInput(input)).toEqual({
        certificates: [input],
        crls: [],
        table: null,
        form: 'unknown',
      });
    }
  });
});

describe.skipIf(!HAVE_VECTORS)('evidence of a real configfs-tsm', () => {
  it('verifies as it was captured', () => {
    const input = vector('veraison-services/files/scheme/sevsnp/test/evidence/sevsnp-tsm-report.json');
    const { report: genuine, table: auxblob } = readReportInput(input);
    const result = verifyEvidence(
      { report: genuine, table: auxblob! },
      { atMs: Date.UTC(2026, 0, 1), crl: 'skip', crypto },
    );
    expect(errorsOf(result)).toEqual([]);
    expect(result.chain.isAmd).toBe(true);
  });
});
