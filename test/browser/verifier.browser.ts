// SPDX-License-Identifier: Apache-2.0
/** softsnp/verify in Chromium: the same verdicts, findings and causes as in Node, on the same evidence. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { vectorCases } from '../../src/cli/vectors/cases.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { explain, VerifyCache, verifyEvidence } from '../../src/verify/index.ts';
import { HAVE_VECTORS, INDEX, vector, whenValidMs } from '../verify/vectors.ts';
import { type Case, evidenceOf, optionsOf, type Pool, type Verdict, verdictOf } from './cases.ts';
import { type Browser, HAVE_CHROMIUM, startChromium } from './chromium.ts';

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

const judged = new WeakMap<readonly Case[], readonly Verdict[]>();

/** Once for all that compare with it. */
function judgeInNode(pool: Pool, cases: readonly Case[]): readonly Verdict[] {
  const verdicts = judged.get(cases) ?? judgeAll(pool, cases);
  judged.set(cases, verdicts);
  return verdicts;
}

function judgeAll(pool: Pool, cases: readonly Case[]): readonly Verdict[] {
  const crypto = nodeVerifyCrypto();
  const cache = new VerifyCache();
  return cases.map((given) => {
    const evidence = evidenceOf(pool, given);
    const result = verifyEvidence(evidence, { ...optionsOf(pool, given), crypto, cache });
    return verdictOf(result, result.ok ? [] : explain(evidence, result, crypto));
  });
}

describe.skipIf(!HAVE_CHROMIUM)('softsnp/verify in Chromium', () => {
  let browser: Browser;
  let server: Server;
  let page: Page;
  /** What the page has at hand. */
  let handed: Pool = {};

  beforeAll(async () => {
    browser = await startChromium();
    // WebCrypto is there only for a page from this machine, hence a server for an empty one.
    server = createServer(({ url }, response) =>
      response.end(url === '/pool' ? JSON.stringify(handed) : '<!doctype html><title>verifier</title>'),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    page = await browser.context.newPage();
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    const bundle = await rolldown({
      input: fileURLToPath(new URL('verifier-page.ts', import.meta.url)),
      platform: 'browser',
    });
    const { output } = await bundle.generate({ format: 'iife', minify: true });
    await bundle.close();
    await page.addScriptTag({ content: output[0].code });
  });

  afterAll(async () => {
    await browser?.close();
    server?.close();
  });

  async function judgeInBoth(
    pool: Pool,
    cases: readonly Case[],
    judge: 'judgeInPage' | 'judgeInPageAlone' = 'judgeInPage',
  ): Promise<readonly Verdict[]> {
    if (handed !== pool) {
      handed = pool;
      await page.evaluate('takePool()');
    }
    const inPage = (await page.evaluate(`${judge}(${JSON.stringify(cases)})`)) as readonly Verdict[];
    const inNode = judgeInNode(pool, cases);
    expect(inPage.length).toBe(cases.length);
    for (const [i, verdict] of inPage.entries()) {
      expect(verdict, cases[i]!.name).toEqual(JSON.parse(JSON.stringify(inNode[i])));
    }
    return inPage;
  }

  describe.skipIf(!HAVE_VECTORS)('genuine AMD evidence', () => {
    const pool: Pool = HAVE_VECTORS
      ? Object.fromEntries(
          INDEX.filter(({ file }) => /\.(bin|der)$/.test(file) && !/fixtures|OVMF|svsm/i.test(file)).map(
            ({ file }) => [file, base64(vector(file))],
          ),
        )
      : {};
    const reports = INDEX.filter(({ file }) => /\/report-/.test(file));
    const leaves = INDEX.filter(({ file }) => /\/(BAD-)?v[cl]ek-/.test(file)).map(({ file }) => file);
    const authorities = INDEX.filter(({ file }) => /\/(ark|ask|asvk)-/.test(file)).map(({ file }) => file);
    const pair = (report: string, leaf: string): Case => ({
      name: `${report} with ${leaf}`,
      report,
      certificates: [leaf, ...authorities],
      atMs: whenValidMs(leaf),
      crl: 'skip',
      allowsDebug: true,
    });

    it('every report is accepted with each leaf of the index', async () => {
      const cases = reports.flatMap(({ file, leaf = [] }) => leaf.map((cert) => pair(file, cert)));
      expect(reports.length).toBeGreaterThan(40);
      const verdicts = await judgeInBoth(pool, cases);
      expect(verdicts.filter(({ ok, isAmd }) => ok && isAmd)).toHaveLength(cases.length);
      expect(await judgeInBoth(pool, cases, 'judgeInPageAlone')).toEqual(verdicts);
    });

    it('no report is accepted with any other leaf, over the whole matrix', async () => {
      const cases = reports.flatMap(({ file, leaf = [] }) =>
        leaves.filter((cert) => !leaf.includes(cert)).map((cert) => pair(file, cert)),
      );
      expect(cases.length).toBeGreaterThan(1000);
      const verdicts = await judgeInBoth(pool, cases);
      expect(verdicts.filter(({ ok }) => ok)).toEqual([]);
    });

    it('revocation lists, the two SEV-Genoa and tables of real hosts are judged alike', async () => {
      const genoa = {
        report: 'openpcc-openpcc/report-v3-genoa-vcek-a9e9196c94d2.bin',
        leaf: 'openpcc-openpcc/vcek-genoa-3941d081fb81.der',
        ask: 'virtee-sev/ask-genoa-5464738c1546.der',
        revoked: 'enarx-steward/ask-genoa-54467b96b8ba.der',
        ark: 'virtee-sev/ark-genoa-4c6598d19c18.der',
      };
      const lists = INDEX.filter(({ file }) => /\/crl-/.test(file)).map(({ file }) => file);
      const cases: Case[] = [];
      for (const atMs of [Date.UTC(2024, 0, 1), Date.UTC(2025, 9, 1), Date.UTC(2026, 9, 1)]) {
        for (const asks of [[genoa.revoked, genoa.ask], [genoa.revoked], [genoa.ask]]) {
          cases.push({
            name: `Genoa at ${atMs} with ${asks.length} intermediates`,
            report: genoa.report,
            certificates: [genoa.leaf, ...asks, genoa.ark],
            crls: lists,
            atMs,
            crl: 'require',
          });
        }
        for (const { file: table } of INDEX.filter(({ file }) => /certtable/.test(file))) {
          for (const { file: report } of reports.filter(({ file }) => /veraison|trustee/.test(file))) {
            cases.push({
              name: `${report} with ${table} at ${atMs}`,
              report,
              table,
              atMs,
              crl: 'if-present',
            });
          }
        }
      }
      const verdicts = await judgeInBoth(pool, cases);
      expect(verdicts.some(({ ok }) => ok)).toBe(true);
      const codes = verdicts.flatMap(({ steps }) =>
        steps.flatMap(({ findings }) => findings.map(({ code }) => code)),
      );
      expect(codes).toEqual(expect.arrayContaining(['CERT_REVOKED', 'CRL_STALE']));
    });
  });

  describe('the negative set', () => {
    const pool: Record<string, string> = {};
    let expected: readonly (readonly [name: string, isGood: boolean])[];
    let cases: readonly Case[];

    beforeAll(() => {
      const names = new Map<string, string>();
      const named = (bytes: Uint8Array): string => {
        const text = base64(bytes);
        const name = names.get(text) ?? `set/${names.size}`;
        names.set(text, name);
        pool[name] = text;
        return name;
      };
      const all = [...vectorCases(nodeCrypto({ deterministic: false }), seededRandom(1))];
      expected = all.map(({ name, expected: codes }) => [name, codes.length === 0]);
      cases = all.map(({ name, evidence, options }): Case => {
        const { report, table, certificates, crls } = evidence;
        return {
          name,
          report: named(report),
          ...(table === undefined ? {} : { table: named(table) }),
          ...(certificates === undefined ? {} : { certificates: certificates.map(named) }),
          ...(crls === undefined ? {} : { crls: crls.map(named) }),
          ...(options.trust === 'amd' ? {} : { trust: options.trust.map(named) }),
          atMs: options.atMs,
          crl: options.crl ?? 'require',
          ...(options.crlMinimumNumber === undefined
            ? {}
            : { crlMinimumNumber: String(options.crlMinimumNumber) }),
          ...(options.product === undefined ? {} : { product: options.product }),
        };
      });
    });

    it.each([
      ['WebCrypto', 'judgeInPage'],
      ['JavaScript alone', 'judgeInPageAlone'],
    ] as const)(
      'lands on its verdicts, with the findings and causes of Node: %s',
      async (_, judge) => {
        const verdicts = await judgeInBoth(pool, cases, judge);
        for (const [i, [name, isGood]] of expected.entries()) {
          expect(verdicts[i]!.ok, name).toBe(isGood);
        }
      },
      180_000,
    );
  });
});
