// SPDX-License-Identifier: Apache-2.0
/** What the console takes a file for, and what its picture says; no browser needed. */
import { describe, expect, it } from 'vitest';
import { pictureOfChain, pictureOfReport } from '../../console/src/chain-model.ts';
import {
  gather,
  type Item,
  MAX_CERTIFICATES,
  NO_FILES,
  retaken,
  rootsOf,
  takeFile,
  unreadFile,
  withItems,
} from '../../console/src/evidence.ts';
import { readPolicy, withDemand } from '../../console/src/judge.ts';
import { actionOf, cureOf, sourceOf } from '../../console/src/words.ts';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { MAX_CERTIFICATES as OF_THE_COMMAND_LINE } from '../../src/cli/evidence-files.ts';
import { concat, fromHex, toHex, utf8 } from '../../src/lib/bytes.ts';
import { CAUSES, type CauseCode, FINDINGS, type FindingCode } from '../../src/verify/index.ts';
import { AT_MS, forge, judge } from '../verify/soft.ts';

const milan = forge('Milan');
const report = milan.report({ kind: 'VCEK' });
const leaf = milan.leaf('VCEK');
const [ask, ark] = milan.chain('VCEK') as [Uint8Array, Uint8Array];
const table = encodeCertificateTable([
  { guid: VCEK_GUID, data: leaf },
  { guid: ASK_GUID, data: ask },
  { guid: ARK_GUID, data: ark },
]);
const json = (fields: Record<string, Uint8Array>): Uint8Array =>
  utf8(
    JSON.stringify(
      Object.fromEntries(
        Object.entries(fields).map(([name, data]) => [name, Buffer.from(data).toString('base64')]),
      ),
    ),
  );

describe('a demand taken from a report', () => {
  it('takes the place of no other demand', () => {
    const document = {
      vmpl: 0,
      minimum_tcb: {
        Milan: { committed: { snp: 3 }, reported: { snp: 1 } },
        Genoa: { reported: { snp: 2 } },
      },
    };
    const demand = { minimum_tcb: { Milan: { reported: { snp: 24, tee: 1 } } } };
    expect(withDemand(document, demand)).toEqual({
      vmpl: 0,
      minimum_tcb: {
        Milan: { committed: { snp: 3 }, reported: { snp: 24, tee: 1 } },
        Genoa: { reported: { snp: 2 } },
      },
    });
    expect(withDemand({ allowed_chips: ['aa'] }, { allowed_chips: 'bb' })).toEqual({ allowed_chips: 'bb' });
  });
});

describe('a dropped file', () => {
  it.each([
    ['a report', 'x', report, 'report', 'version 3'],
    ['a report in hexadecimal', 'x', utf8(toHex(report)), 'report', 'version 3, hexadecimal'],
    [
      'JSON of configfs-tsm',
      'x',
      json({ outblob: report, auxblob: table }),
      'report',
      'with certificate table',
    ],
    ['a certificate table', 'x', table, 'table', 'VCEK, ASK or ASVK, ARK'],
    ['a table in base64', 'x', utf8(Buffer.from(table).toString('base64')), 'table', 'VCEK, ASK or ASVK'],
    ['a certificate in hexadecimal', 'x', utf8(toHex(leaf)), 'certificates', 'SEV-VCEK'],
    ['a certificate in DER', 'x', leaf, 'certificates', 'SEV-VCEK'],
    ['certificates in PEM', 'x', utf8(toPem(ask) + toPem(ark)), 'certificates', 'SEV-Milan, ARK-Milan'],
    ['a truncated report', 'x', report.subarray(0, 900), 'report', 'not 1184 bytes'],
    [
      'an error page named like a certificate',
      'vcek.der',
      utf8('429 Too Many Requests'),
      'certificates',
      'unreadable',
    ],
    ['an error page', 'x', utf8('<html>404</html>'), 'certificates', 'unreadable'],
    ['a broken table', 'auxblob', table.subarray(0, 40), 'table', 'no table'],
    [
      'a quote of Intel',
      'x',
      concat(fromHex('0400020081000000'), new Uint8Array(4000)),
      'report',
      'not 1184 bytes',
    ],
    ['a log', 'trace.jsonl', utf8('{"step":1}\n{"step":2}\n'), 'ignored', 'no evidence'],
    ['a drawing', 'x.svg', utf8('<svg xmlns="http://www.w3.org/2000/svg"/>'), 'ignored', 'an XML document'],
    ['an XML document', 'x', utf8('<?xml version="1.0"?><a/>'), 'ignored', 'an XML document'],
    ['a page of today', 'x', utf8('<!DOCTYPE html><p>404</p>'), 'certificates', 'unreadable'],
    ['nothing', 'x', new Uint8Array(0), 'ignored', 'no evidence'],
  ] as const)('%s is taken for what it is', (_, name, bytes, kind, contents) => {
    const item = takeFile(name, bytes);
    expect(item.kind).toBe(kind);
    expect(item.contents).toContain(contents);
  });

  it('is named without what a page or a terminal would obey', () => {
    expect(takeFile('a\u202egnp.bin', report).name).toBe('a\\u{202e}gnp.bin');
    expect(rootsOf('\u001b.pem', ark)).toMatchObject([{ name: '\\u{1b}.pem' }]);
  });

  it('can be taken for something else by whoever dropped it', () => {
    expect(takeFile('x', leaf, 'crl').evidence).toEqual({ crls: [leaf] });
    expect(takeFile('x', leaf, 'ignored').evidence).toEqual({});
  });

  it('takes the place of the report or table before it, and certificates gather', () => {
    const other = report.with(0x50, 1);
    const files = [report, table, leaf, other, leaf, ask].map((bytes, i) => takeFile(`${i % 4}`, bytes));
    const { items } = withItems([], files);
    const { certificates, labels, ...rest } = gather(items);
    expect(rest).toEqual({ report: other, table, crls: [] });
    expect(labels).toEqual({ table: '1', certificates: ['2', '0 (2)', '1 (2)'], crls: [] });
    expect(certificates).toContain(ask);
    expect(items.filter(({ kind }) => kind === 'report')).toHaveLength(1);
  });

  const take = (before: readonly Item[], ...files: readonly (readonly [string, Uint8Array])[]) =>
    withItems(
      before,
      files.map(([name, bytes]) => takeFile(name, bytes)),
    );

  it('says which report took the place of which, and keeps the other to be chosen again', () => {
    const other = report.with(0x50, 1);
    const both = take([], ['a.bin', report], ['b.bin', other]);
    expect(both.notes).toEqual(['b.bin is the report now, in the place of a.bin.']);
    expect(gather(both.items).report).toEqual(other);
    expect(both.items[0]).toMatchObject({ kind: 'ignored', contents: 'not used: b.bin is the report' });
    const back = retaken(both.items, both.items[0]!, 'report');
    expect(back.notes).toEqual(['a.bin is the report now, in the place of b.bin.']);
    expect(gather(back.items).report).toEqual(report);
    expect(take(back.items, ['outblob', other.subarray(0, 900)]).notes).toEqual([
      'outblob is the report now, in the place of a.bin.',
    ]);
  });

  it.each([
    ['report.txt', utf8('reports are kept in the archive'), 'report'],
    ['auxblob', utf8('no table'), 'table'],
  ] as const)('%s does not take the place of a good one for its name alone', (name, bytes, kind) => {
    const good = ['good', kind === 'report' ? report : table] as const;
    expect(take([], [name, bytes]).items[0]).toMatchObject({ kind });
    for (const { items, notes } of [
      take(take([], good).items, [name, bytes]),
      take([], good, [name, bytes]),
      take([], [name, bytes], good),
      take(take([], [name, bytes]).items, good),
    ]) {
      expect(gather(items)[kind]).toEqual(good[1]);
      expect(notes).toEqual([
        expect.stringMatching(`^${name} is no .*${kind}, whatever its name says: good is used`),
      ]);
    }
  });

  it('keeps the size it has, though it was not read, and nobody can take it for anything', () => {
    const { items } = withItems(
      [],
      [takeFile('report.bin', report), unreadFile('report.log', 2 << 20, 'large')],
    );
    expect(items[1]).toMatchObject({
      kind: 'ignored',
      given: { size: 2 << 20 },
      contents: 'not read: large',
    });
    expect(gather(items).report).toEqual(report);
  });

  it('has a name of its own, whatever it is called', () => {
    const texts = ['one', 'two', 'three', 'two'].map((text) => ['pasted text', utf8(text)] as const);
    const { items } = texts.reduce((all, text) => take(all.items, text), NO_FILES);
    expect(items.map(({ name }) => name)).toEqual(['pasted text', 'pasted text (3)', 'pasted text (2)']);
  });

  it('counts among as many certificates as on the command line', () => {
    expect(MAX_CERTIFICATES).toBe(OF_THE_COMMAND_LINE);
  });
});

describe('what the page advises', () => {
  const ELSEWHERE = /--|src\/|docs\/|command line|`|\{|\boption\b/;

  it.each(Object.keys(FINDINGS) as FindingCode[])('%s: in words of the page', (code) => {
    const { action, source } = FINDINGS[code];
    expect(`${actionOf({ code, action })} ${sourceOf({ source })}`).not.toMatch(ELSEWHERE);
  });

  it.each(Object.keys(CAUSES) as CauseCode[])('%s: in words of the page', (code) => {
    expect(cureOf({ code, cure: CAUSES[code].cure })).not.toMatch(ELSEWHERE);
  });

  it('keeps a cure that was made for the case', () => {
    const cure = 'Fetch https://kdsintf.amd.com/vcek/v1/Milan/0?blSPL=3';
    expect(cureOf({ code: 'CERT_IS_STALE', cure })).toBe(cure);
  });

  it('says where the missing list of a root is', () => {
    const { findings } = judge({ report, table }, { trust: [ark], crl: 'require' });
    expect(findings.find(({ code }) => code === 'CRL_MISSING')).toMatchObject({
      expected: 'a list issued by ARK-Milan: /vcek/v1/Milan/crl of the key service',
    });
  });
});

describe('a trusted root', () => {
  it('is a self-issued certificate, and says of itself what it is', () => {
    expect(rootsOf('ark.pem', utf8(toPem(ark)))).toMatchObject([
      { subject: 'ARK-Milan', comment: 'softsnp TEST ROOT, NOT AMD' },
    ]);
    expect(rootsOf('chain.pem', utf8(toPem(leaf) + toPem(ask)))).toEqual([]);
    expect(rootsOf('nothing', new Uint8Array(9))).toEqual([]);
  });
});

describe('the picture of a chain', () => {
  const evidence = { report, table };

  it('marks a root that nobody trusts, and a test root that somebody does', () => {
    expect(pictureOfReport(judge(evidence)).anchor.kind).toBe('untrusted');
    const trusted = pictureOfReport(judge(evidence, { trust: [ark] }));
    expect(trusted.anchor).toMatchObject({ kind: 'test', title: 'TEST ROOT', detail: 'NOT AMD' });
    expect(trusted.boxes.map(({ kind, tone }) => [kind, tone])).toEqual([
      ['REPORT', 'ok'],
      ['VCEK', 'ok'],
      ['ASK', 'ok'],
      ['ARK', 'ok'],
    ]);
    expect(trusted.links.map(({ tone }) => tone)).toEqual(['ok', 'ok', 'ok']);
  });

  it('breaks where a signature is wrong or a certificate is missing', () => {
    const forged = pictureOfReport(
      judge({ report: report.with(0x90, report[0x90]! ^ 1), table }, { trust: [ark] }),
    );
    expect(forged.links.map(({ says }) => says)).toEqual(['NOT signed by', 'signed by', 'signed by']);
    const bare = pictureOfReport(judge({ report, certificates: [leaf] }, { atMs: AT_MS }));
    expect(bare.boxes.map(({ isMissing }) => isMissing)).toEqual([false, false, true, true]);
    expect(bare.anchor.kind).toBe('none');
    const none = { leaf: null, intermediate: null, root: null, crl: null };
    const authorities = pictureOfChain(none, [], null);
    expect(authorities.boxes.map(({ kind }) => kind)).toEqual(['ASK', 'ARK']);
  });
});

describe('the policy in the editor', () => {
  it('is read as it stands, or says where it is wrong', () => {
    expect(readPolicy('  ')).toHaveProperty('policy');
    expect(readPolicy('{ "vmpl": 0 }')).toHaveProperty('policy.vmpl', [0]);
    expect(readPolicy('{ "vmpl": ')).toHaveProperty('wrong', expect.stringContaining('not JSON'));
    expect(readPolicy('{ "guest_policy": { "debug": true } }')).toHaveProperty(
      'wrong',
      expect.stringContaining('policy.guest_policy.debug'),
    );
  });
});
