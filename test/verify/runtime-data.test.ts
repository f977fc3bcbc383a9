// SPDX-License-Identifier: Apache-2.0
/** What Azure's paravisor puts beside a report counts only where the report vouches for it. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { gather, takeFile } from '../../console/src/evidence.ts';
import { toPem } from '../../src/certs/pem.ts';
import { concat, utf8, writeU32 } from '../../src/lib/bytes.ts';
import { exitCodeOf, readReportInput } from '../../src/verify/index.ts';
import { forge, judge } from './soft.ts';
import { typed } from './typed.ts';

const milan = forge('Milan');
const keys = utf8('{"keys":[{"kid":"HCLAkPub","kty":"RSA"}]}');
const forged = utf8('{"keys":[{"kid":"HCLAkPub","kty":"EVE"}]}');
const hash = Uint8Array.from(createHash('sha256').update(keys).digest());
const report = milan.report({ fields: { report_data: concat(hash, new Uint8Array(32)) } });
const certificates = [milan.leaf(), ...milan.chain()];
const trust = [milan.authority.ark];

/** Header, report, IGVM_REQUEST_DATA, and the room that the TPM keeps for all of it. */
function hcl(data: Uint8Array, { hashType = 1, size = data.length, room = 300 } = {}): Uint8Array {
  const out = concat(new Uint8Array(0x20), report, new Uint8Array(20), data, new Uint8Array(room));
  out.set(utf8('HCLA'));
  writeU32(out, 0x4c0, 20 + data.length);
  writeU32(out, 0x4c8, 2);
  writeU32(out, 0x4cc, hashType);
  writeU32(out, 0x4d0, size);
  return out;
}

const judged = (input: Uint8Array) => {
  const { report: own, runtimeData } = readReportInput(input);
  return judge({ report: own, certificates, ...(runtimeData === null ? {} : { runtimeData }) }, { trust });
};
const about = (input: Uint8Array): readonly (readonly [code: string, severity: string])[] =>
  judged(input)
    .findings.filter(({ code }) => code.startsWith('RUNTIME_DATA'))
    .map(({ code, severity }) => [code, severity]);

describe('the runtime data of an HCL report', () => {
  it('is accepted where REPORT_DATA begins with its hash', () => {
    expect(readReportInput(hcl(keys)).runtimeData).toEqual({ hashType: 1, data: keys });
    expect(judged(hcl(keys)).ok).toBe(true);
    expect(about(hcl(keys))).toEqual([]);
  });

  it('refuses the evidence where it is another, cut short or longer', () => {
    const mismatch = [['RUNTIME_DATA_MISMATCH', 'error']];
    const result = judged(hcl(forged));
    expect([result.ok, exitCodeOf(result)]).toEqual([false, 2]);
    expect(about(hcl(forged))).toEqual(mismatch);
    expect(about(hcl(keys, { size: keys.length - 1 }))).toEqual(mismatch);
    expect(about(hcl(keys, { size: keys.length + 1 }))).toEqual(mismatch);
    expect(about(hcl(keys.subarray(0, 9), { size: keys.length, room: 0 }))).toEqual(mismatch);
    expect(about(hcl(keys, { size: 0xffff_ffff }))).toEqual(mismatch);
  });

  it('refuses what says that it is hashed with something else: a claim that would spare it the check', () => {
    for (const hashType of [0, 2, 3, 77]) {
      expect(about(hcl(keys, { hashType }))).toEqual([['RUNTIME_DATA_NOT_CHECKED', 'error']]);
    }
  });

  it('is none where there is none', () => {
    expect(readReportInput(hcl(new Uint8Array(0), { hashType: 0 })).runtimeData).toBeNull();
    expect(readReportInput(hcl(keys).subarray(0, 0x4c0)).runtimeData).toBeNull();
  });

  it('is judged for programs that hand it over themselves', () => {
    expect(judge({ report, certificates, runtimeData: { hashType: 1, data: forged } }, { trust }).ok).toBe(
      false,
    );
    expect(judge({ report, certificates, runtimeData: { hashType: 1, data: keys } }, { trust }).ok).toBe(
      true,
    );
  });

  it('comes with the report of the console, and goes with it', () => {
    const [right, wrong] = [hcl(keys), hcl(forged)].map((bytes) => takeFile('hcl.bin', bytes));
    expect(gather([right!]).runtimeData).toEqual({ hashType: 1, data: keys });
    expect(gather([wrong!, right!]).runtimeData).toEqual({ hashType: 1, data: keys });
    expect(gather([wrong!, takeFile('report.bin', report)])).not.toHaveProperty('runtimeData');
  });
});

describe('softsnp verify report', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-hcl-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const file = (name: string, data: Uint8Array | string): string => {
    writeFileSync(join(folder, name), data);
    return join(folder, name);
  };
  const words = ['--no-crl', '--trust', 'softsnp', '--certs'];

  it('refuses an HCL report with the keys of somebody else, and says as what it was read', async () => {
    const certs = file('certs.pem', certificates.map((der) => toPem(der)).join(''));
    const good = await typed(['verify', 'report', file('good.bin', hcl(keys)), ...words, certs]);
    expect([good.code, good.out]).toEqual([0, expect.stringContaining('\nread as  Azure HCL report\n')]);
    const bad = Buffer.from(hcl(forged)).toString('base64');
    const refused = await typed(['verify', 'report', file('bad.b64', bad), ...words, certs]);
    expect([refused.code, refused.out]).toEqual([2, expect.stringContaining('RUNTIME_DATA_MISMATCH')]);
    expect(refused.out).toContain('\nread as  base64, Azure HCL report\n');
    expect((await typed(['show', 'report', file('good.bin', hcl(keys))])).out).toContain(
      'read as  Azure HCL report\n',
    );
    const plain = await typed(['verify', 'report', file('plain.bin', report), ...words, certs]);
    expect([plain.code, plain.out]).toEqual([0, expect.not.stringContaining('read as')]);
  });
});
