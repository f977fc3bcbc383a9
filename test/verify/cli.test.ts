// SPDX-License-Identifier: Apache-2.0
/** softsnp verify, show and vectors as a person types them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineCommand } from 'citty';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import type { ProductLine } from '../../src/abi/product.ts';
import { toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { runCli, type Verb } from '../../src/cli/run.ts';
import { showVerb } from '../../src/cli/show.ts';
import { vectorsVerb } from '../../src/cli/vectors.ts';
import { verifyVerb } from '../../src/cli/verify.ts';
import { concat, utf8 } from '../../src/lib/bytes.ts';
import { encodeHostState, newHostState } from '../../src/machine/index.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import type { VerifyResult } from '../../src/verify/index.ts';
import { AT_MS, forge, judge, LONG, say } from './soft.ts';
import { HAVE_VECTORS, vector } from './vectors.ts';

const directory = mkdtempSync(join(tmpdir(), 'softsnp-verify-'));
const milan = forge('Milan');
const report = milan.report();
const leaf = milan.leaf();
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];

const file = (name: string, bytes: Uint8Array | string): string => {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
};

interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(...argv: string[]): Promise<Run> {
  let out = '';
  let err = '';
  const output = {
    stdout: (text: string) => {
      out += text;
    },
    stderr: (text: string) => {
      err += text;
    },
  };
  const root: Verb = defineCommand({
    meta: { name: 'softsnp' },
    subCommands: {
      verify: verifyVerb(output, {
        clock: { nowMs: () => AT_MS, monotonicMs: () => performance.now() },
        kdsTiming: { deadlineMs: 1500, attemptMs: 1000, backoffMs: 50 },
      }),
      show: showVerb(output),
      vectors: vectorsVerb(output),
    },
  });
  const code = await runCli(root, argv, '0', output);
  return { code, out, err };
}

let reportPath: string;
let folder: string;
let crlPath: string;
let rootPath: string;

beforeAll(() => {
  reportPath = file('report.bin', report);
  crlPath = file('root.crl', milan.crl());
  rootPath = file('root.pem', toPem(ark));
  folder = join(directory, 'certs');
  mkdirSync(folder);
  writeFileSync(join(folder, 'vcek.der'), leaf);
  writeFileSync(join(folder, 'chain.pem'), toPem(ask) + toPem(ark));
  writeFileSync(join(folder, 'trace.jsonl'), '{}\n');
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe('softsnp verify report', () => {
  it('exits with 0 for accepted evidence and shows every check', async () => {
    const { code, out } = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--crl',
      crlPath,
      '--trust',
      rootPath,
    );
    expect(out).toMatch(/^ACCEPTED\n/);
    expect(code).toBe(0);
    for (const step of [
      'decode',
      'product',
      'chain',
      'revocation',
      'leaf-matches-report',
      'signature',
      'policy',
    ]) {
      expect(out).toContain(`ok    ${step}\n`);
    }
    expect(out).toContain('ARK-Milan > ASK-Milan > VCEK (NOT AMD)');
    expect(out).toContain('TEST ROOT, NOT AMD');
  });

  it('exits with 1 for wrong usage, said on the error stream', async () => {
    for (const argv of [
      ['verify', 'report'],
      ['verify', 'report', reportPath, '--nonsense'],
      ['verify', 'report', reportPath, '--at', 'yesterday'],
      ['verify', 'report', join(directory, 'absent')],
      ['verify', 'report', reportPath, '--policy', file('broken.json', '{')],
      ['verify', 'report', reportPath, '--policy', file('unknown.json', '{"mesurement": "00"}')],
      ['verify', 'report', reportPath, '--product', 'rome'],
      ['verify', 'report', reportPath, '--kds', 'http://127.0.0.1:1', '--offline'],
      ['verify', 'report', reportPath, '--trust', folder.replace('certs', 'nowhere')],
    ]) {
      const { code, err, out } = await run(...argv);
      expect(code, argv.join(' ')).toBe(1);
      expect(err).toMatch(/^softsnp( verify report)?: /);
      expect(out).toBe('');
    }
  });

  it('exits with 2 for a wrong signature and says why', async () => {
    const other = file('other.bin', forge('Milan', 2).report());
    const { code, out } = await run(
      'verify',
      'report',
      other,
      '--certs',
      folder,
      '--no-crl',
      '--trust',
      'softsnp',
    );
    expect(code).toBe(2);
    expect(out).toMatch(/^REFUSED\n/);
    expect(out).toContain('[CERT_OF_ANOTHER_CHIP]');
  });

  it('exits with 2 where softsnp evidence meets the roots of AMD', async () => {
    const { code, out } = await run('verify', 'report', reportPath, '--certs', folder, '--no-crl');
    expect(code).toBe(2);
    expect(out).toContain('ROOT_UNTRUSTED');
  });

  it('exits with 3 without certificates', async () => {
    const { code, out } = await run('verify', 'report', reportPath, '--no-crl');
    expect(code).toBe(3);
    expect(out).toContain('https://kdsintf.amd.com/vcek/v1/Milan/');
  });

  it('exits with 4 without a revocation list and for a revoked intermediate', async () => {
    const without = await run('verify', 'report', reportPath, '--certs', folder, '--trust', 'softsnp:milan');
    expect(without.code).toBe(4);
    expect(without.out).toContain('CRL_MISSING');
    const revoked = file('revoked.crl', toPem(milan.crl({ revoked: [0x010001] }), 'X509 CRL'));
    const result = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--trust',
      'softsnp',
      '--crl',
      revoked,
    );
    expect(result.code).toBe(4);
    expect(result.out).toContain('CERT_REVOKED');
  });

  it('minds what a list at hand revokes, with --no-crl too', async () => {
    const revoked = milan.crl({ revoked: [0x010001] });
    const withList = join(directory, 'with-list');
    mkdirSync(withList);
    writeFileSync(join(withList, 'chain.pem'), toPem(leaf) + toPem(ask) + toPem(ark));
    writeFileSync(join(withList, 'root.crl'), revoked);
    for (const words of [
      ['report', reportPath, '--certs', withList],
      ['certs', withList],
    ]) {
      const { code, out } = await run('verify', ...words, '--no-crl', '--trust', 'softsnp');
      expect([code, out]).toEqual([4, expect.stringContaining('CERT_REVOKED')]);
    }
  });

  it('does not choose between --crl and --no-crl', async () => {
    const report = ['verify', 'report', reportPath, '--certs', folder, '--trust', 'softsnp'];
    for (const words of [
      [...report, '--crl', crlPath, '--no-crl'],
      [...report, '--no-crl', `--crl=${crlPath}`],
      ['verify', 'certs', folder, '--no-crl', '--crl', crlPath],
    ]) {
      const { code, err } = await run(...words);
      expect([code, err]).toEqual([1, expect.stringContaining('exclude each other')]);
    }
  });

  it('refuses what stands under --crl and is none', async () => {
    const page = file('page.crl', '<html>429</html>');
    const { code, out } = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--trust',
      'softsnp',
      '--crl',
      page,
    );
    expect(code).toBe(4);
    expect(out).toContain('CRL_MALFORMED');
  });

  it('exits with 5 for evidence that is genuine and not wanted', async () => {
    const policy = file('policy.json', JSON.stringify({ vmpl: 1, guest_policy: { smt: 'forbidden' } }));
    const { code, out } = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--no-crl',
      '--trust',
      'softsnp',
      '--policy',
      policy,
    );
    expect(code).toBe(5);
    expect(out).toContain('POLICY_MISMATCH');
    expect(out).toContain('POLICY_BIT_FORBIDDEN');
  });

  it('prints one JSON object with --json', async () => {
    const { code, out } = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--no-crl',
      '--trust',
      'softsnp',
      '--json',
    );
    expect(code).toBe(0);
    const document = JSON.parse(out);
    expect(document).toMatchObject({ ok: true, exit_code: 0, product: 'Milan', why: [] });
    expect(document.report.chip_id).toHaveLength(128);
    expect(document.report.reported_tcb).toMatch(/^0x/);
    expect(document.chain.certificates.map((row: { kind: string }) => row.kind)).toEqual([
      'VCEK',
      'ASK',
      'ARK',
    ]);
  });

  it('reads a configfs-tsm folder', async () => {
    const entry = join(directory, 'entry');
    mkdirSync(entry);
    writeFileSync(join(entry, 'outblob'), report);
    const table = encodeCertificateTable([
      { guid: VCEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ask },
      { guid: ARK_GUID, data: ark },
    ]);
    writeFileSync(join(entry, 'auxblob'), table);
    const { code } = await run('verify', 'report', entry, '--no-crl', '--trust', 'softsnp');
    expect(code).toBe(0);
    const given = await run(
      'verify',
      'report',
      reportPath,
      '--table',
      join(entry, 'auxblob'),
      '--no-crl',
      '--trust',
      'softsnp',
    );
    expect(given.code).toBe(0);
  });

  it('trusts the root of a state folder, and of a bundle only the root', async () => {
    const state = join(directory, 'state');
    mkdirSync(state);
    const crypto = nodeCrypto({ deterministic: true });
    const host = newHostState(crypto, seededRandom(1), 'Milan', { seed: 1 });
    writeFileSync(join(state, 'state.json'), encodeHostState(crypto, host));
    const good = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--no-crl',
      '--trust',
      `softsnp:${state}`,
    );
    expect(good.code).toBe(0);
    const bundle = file('bundle.pem', toPem(ask) + toPem(ark));
    expect(
      (await run('verify', 'report', reportPath, '--certs', folder, '--no-crl', '--trust', bundle)).code,
    ).toBe(0);
    const intermediate = file('ask.pem', toPem(ask));
    expect(
      (await run('verify', 'report', reportPath, '--certs', folder, '--no-crl', '--trust', intermediate))
        .code,
    ).toBe(1);
  });

  const NO_CRL = ['--no-crl', '--trust', 'softsnp'] as const;

  it.each([24, 48, 4096])('refuses a report with %i zeros behind it', async (zeros) => {
    const path = file('trailing.bin', concat(report, new Uint8Array(zeros)));
    const { code, out } = await run('verify', 'report', path, '--certs', folder, ...NO_CRL);
    expect([code, out]).toEqual([2, expect.stringContaining('REPORT_LENGTH_MISMATCH')]);
  });

  it('has a verdict for files much larger than evidence', async () => {
    const huge = file('huge.der', new Uint8Array(10 << 20).fill(0x30));
    const asReport = await run('verify', 'report', huge, '--certs', folder, ...NO_CRL);
    expect([asReport.code, asReport.out]).toEqual([2, expect.stringContaining('REPORT_LENGTH_MISMATCH')]);
    const asLeaf = await run('verify', 'report', reportPath, '--certs', huge, ...NO_CRL);
    expect([asLeaf.code, asLeaf.out]).toEqual([2, expect.stringContaining('CERT_MALFORMED')]);
    const asTable = await run('verify', 'report', reportPath, '--table', huge, ...NO_CRL);
    expect([asTable.code, asTable.out]).toEqual([2, expect.stringContaining('CERT_TABLE_INVALID')]);
    const asList = await run(
      ...['verify', 'report', reportPath, '--certs', folder, '--crl', huge, '--trust', 'softsnp'],
    );
    expect([asList.code, asList.out]).toEqual([4, expect.stringContaining('CRL_MALFORMED')]);
  });

  it('reads no more than 64 MiB, of a file without an end and of a folder in all', async () => {
    const tooMuch = [1, expect.stringContaining('has more than 67108864 bytes')];
    const endless = await run('verify', 'report', '/dev/zero', '--certs', folder, ...NO_CRL);
    expect([endless.code, endless.err]).toEqual(tooMuch);
    const large = file('large.bin', '');
    truncateSync(large, (64 << 20) + 1);
    const asTable = await run('verify', 'report', reportPath, '--table', large, ...NO_CRL);
    expect([asTable.code, asTable.err]).toEqual(tooMuch);
    const many = join(directory, 'many');
    mkdirSync(many);
    for (const name of ['a.der', 'b.der', 'c.der']) {
      writeFileSync(join(many, name), '');
      truncateSync(join(many, name), 30 << 20);
    }
    const asFolder = await run('verify', 'report', reportPath, '--certs', many, ...NO_CRL);
    expect([asFolder.code, asFolder.err]).toEqual([
      1,
      expect.stringMatching(/many\/c.der has more than \d+ bytes/),
    ]);
  });

  it('takes the time from --at', async () => {
    const late = await run(
      'verify',
      'report',
      reportPath,
      '--certs',
      folder,
      '--no-crl',
      '--trust',
      'softsnp',
      '--at',
      '2040-01-01',
    );
    expect(late.code).toBe(2);
    expect(late.out).toContain('CERT_EXPIRED');
  });
});

describe('softsnp verify report --kds', () => {
  let server: Server;
  let base: string;
  const asked: string[] = [];
  let answer: (target: string) => Uint8Array | number;

  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url!);
      const given = answer(request.url!);
      if (typeof given === 'number') {
        response.writeHead(given).end('no');
      } else {
        response.writeHead(200).end(given);
      }
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(() => {
    server.close();
  });

  const kds = (): readonly string[] => ['--kds', base, '--cache', 'none'];
  const service = (target: string): Uint8Array | number => {
    if (target === '/vcek/v1/Milan/cert_chain') {
      return utf8(toPem(ask) + toPem(ark));
    }
    if (target === '/vcek/v1/Milan/crl') {
      return milan.crl();
    }
    return target.startsWith('/vcek/v1/Milan/') ? leaf : 404;
  };

  it('fetches VCEK, chain and revocation list', async () => {
    answer = service;
    const { code, out } = await run('verify', 'report', reportPath, ...kds(), '--trust', 'softsnp');
    expect(out).toMatch(/^ACCEPTED/);
    expect(code).toBe(0);
    expect(asked.some((target) => target.includes('blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219'))).toBe(true);
  });

  it('takes nothing from a service whose root is not AMD’s, and says so', async () => {
    answer = service;
    const { code, out, err } = await run('verify', 'report', reportPath, '--kds', base);
    expect(code).toBe(3);
    expect(err).toContain('ROOT_UNTRUSTED');
    expect(out).toMatch(/^REFUSED/);
    expect(out).toContain('LEAF_MISSING');
  });

  it('exits with 3 and names the URL when it answers 429', async () => {
    answer = () => 429;
    const { code, err } = await run('verify', 'report', reportPath, ...kds(), '--trust', 'softsnp');
    expect(code).toBe(3);
    expect(err).toContain('429');
  });

  it('exits with 3 when nobody answers', async () => {
    const nobody = createServer();
    await new Promise<void>((resolve) => {
      nobody.listen(0, '127.0.0.1', resolve);
    });
    const { port } = nobody.address() as AddressInfo;
    await new Promise((resolve) => {
      nobody.close(resolve);
    });
    const { code, err } = await run(
      'verify',
      'report',
      reportPath,
      '--kds',
      `http://127.0.0.1:${port}`,
      '--cache',
      'none',
      '--trust',
      'softsnp',
    );
    expect(code).toBe(3);
    expect(err).toContain('not fetched');
  });

  it('exits with 4 when it has no revocation list', async () => {
    answer = (target) => (target.endsWith('/crl') ? 500 : service(target));
    const { code } = await run('verify', 'report', reportPath, ...kds(), '--trust', 'softsnp');
    expect(code).toBe(4);
  });

  it('gives up on an answer that does not end', async () => {
    answer = () => new Uint8Array(1 << 20);
    const { code, err } = await run('verify', 'report', reportPath, ...kds(), '--trust', 'softsnp');
    expect(code).toBe(3);
    expect(err).toContain('more than 65536 bytes');
  });

  it('tries both lines for a version 2 report, which names none', async () => {
    answer = service;
    const old = file('v2.bin', milan.report({ version: 2 }));
    const { code } = await run('verify', 'report', old, ...kds(), '--trust', 'softsnp');
    expect(code).toBe(0);
  });
});

describe('softsnp verify certs', () => {
  it('accepts a good folder and refuses one with another intermediate', async () => {
    const good = await run('verify', 'certs', folder, '--no-crl', '--trust', 'softsnp');
    expect(good.code).toBe(0);
    expect(good.out).toContain('ok    ARK-Milan > ASK-Milan > VCEK');
    const wrong = file('wrong.pem', toPem(leaf) + toPem(forge('Genoa').authority.ask) + toPem(ark));
    const bad = await run('verify', 'certs', wrong, '--no-crl', '--trust', 'softsnp', '--json');
    expect(bad.code).toBe(3);
    expect(JSON.parse(bad.out)).toMatchObject({ ok: false, exit_code: 3 });
  });

  it('judges a chain without leaf', async () => {
    const chain = file('chain.pem', toPem(ask) + toPem(ark));
    expect((await run('verify', 'certs', chain, '--no-crl', '--trust', 'softsnp')).code).toBe(0);
    expect((await run('verify', 'certs', chain, '--no-crl')).code).toBe(2);
  });

  it('exits with 3 where there is nothing', async () => {
    const empty = join(directory, 'empty');
    mkdirSync(empty);
    expect((await run('verify', 'certs', empty, '--no-crl')).code).toBe(3);
  });
});

describe('softsnp show', () => {
  it('shows every field of a report with its offset', async () => {
    const { code, out } = await run('show', 'report', reportPath);
    expect(code).toBe(0);
    expect(out).toContain('0x180  reported_tcb');
    expect(out).toContain('boot_loader,tee,snp,microcode = 4,1,24,219');
    const json = JSON.parse((await run('show', 'report', reportPath, '--json')).out);
    expect(json).toMatchObject({ product: 'Milan', findings: [] });
  });

  it('refuses what is no report with exit code 1', async () => {
    expect((await run('show', 'report', file('short.bin', report.subarray(0, 9)))).code).toBe(1);
  });

  it('shows certificates, also inside a table, and says which are none', async () => {
    const { out } = await run('show', 'certs', folder, '--json');
    expect(JSON.parse(out).certificates.map((row: { kind: string }) => row.kind)).toEqual([
      'ASK',
      'ARK',
      'VCEK',
    ]);
    for (const text of ['<html>', '']) {
      const none = await run('show', 'certs', file('none.pem', text));
      expect([none.code, none.out]).toEqual([1, expect.stringContaining('malformed')]);
      expect((await run('show', 'certs', file('none.pem', text), '--json')).code).toBe(1);
    }
    const mixed = await run(
      'show',
      'certs',
      file('mixed.pem', `${toPem(leaf)}${toPem(leaf.subarray(0, 9))}`),
    );
    expect(mixed.code).toBe(0);
  });

  it('shows a table', async () => {
    const table = file('table.bin', encodeCertificateTable([{ guid: VCEK_GUID, data: leaf }]));
    expect((await run('show', 'table', table)).out).toContain(
      `VCEK                 ${leaf.length} bytes at 48`,
    );
    expect((await run('show', 'certs', table)).out).toContain('SEV-VCEK');
    expect((await run('show', 'table', reportPath)).code).toBe(1);
  });

  it('shows keys and ID blocks as softsnp idblock does', async () => {
    const block = file('block.bin', new Uint8Array(96));
    const { code, out } = await run('show', 'id-block', block);
    expect(code).toBe(0);
    expect(out).toContain('launch_digest');
  });
});

describe('softsnp vectors', () => {
  interface Row {
    readonly name: string;
    readonly verdict: string;
    readonly codes?: readonly string[];
    readonly warnings?: readonly string[];
    readonly time: string;
    readonly report: string;
    readonly table?: string;
    readonly certificates?: readonly string[];
    readonly crls?: readonly string[];
    readonly trusted_roots: 'amd' | readonly string[];
    readonly crl_mode: 'require' | 'if-present' | 'skip';
    readonly crl_minimum_number?: string;
    readonly product?: ProductLine;
  }

  const rowsOf = (folder: string): readonly Row[] =>
    JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')).cases;

  /** As another verifier would: from the files, and nothing else. */
  function judgeRow(folder: string, row: Row): VerifyResult {
    const read = (name: string): Uint8Array => Uint8Array.from(readFileSync(join(folder, name)));
    return judge(
      {
        report: read(row.report),
        ...(row.table === undefined ? {} : { table: read(row.table) }),
        certificates: (row.certificates ?? []).map(read),
        crls: (row.crls ?? []).map(read),
      },
      {
        atMs: Date.parse(row.time),
        trust: row.trusted_roots === 'amd' ? 'amd' : row.trusted_roots.map(read),
        crl: row.crl_mode,
        ...(row.crl_minimum_number === undefined ? {} : { crlMinimumNumber: BigInt(row.crl_minimum_number) }),
        ...(row.product === undefined ? {} : { product: row.product }),
      },
    );
  }

  const codesOf = ({ findings }: VerifyResult, wanted: string): string[] => [
    ...new Set(findings.filter(({ severity }) => severity === wanted).map(({ code }) => code)),
  ];

  function expectAsIndexed(folder: string, row: Row): void {
    const result = judgeRow(folder, row);
    expect(result.ok, row.name).toBe(row.verdict === 'accept');
    expect(codesOf(result, 'error').sort(), row.name).toEqual([...row.codes!].sort());
    expect(codesOf(result, 'warning').sort(), row.name).toEqual([...row.warnings!].sort());
  }

  it('writes files that give the verdicts and codes of their index', async () => {
    const out = join(directory, 'vectors');
    expect((await run('vectors', out, '--seed', '7')).code).toBe(0);
    const rows = rowsOf(out);
    expect(rows.length).toBeGreaterThan(700);
    const page = readFileSync(new URL('../../docs/howto/verify.md', import.meta.url), 'utf8');
    const fields = new Set(rows.flatMap((row) => Object.keys(row)));
    expect([...fields].filter((field) => !page.includes(`\`${field}\``))).toEqual([]);
    // The folder of them all is a collection like any other.
    const collection = await run('verify', 'report', reportPath, '--certs', join(out, 'shared'), '--no-crl');
    expect([collection.code, collection.out]).toEqual([2, expect.not.stringContaining('CERT_TOO_MANY')]);
    for (const row of rows.filter((_, i) => LONG || i % 7 === 0)) {
      expectAsIndexed(out, row);
    }
  }, 120_000);

  it.skipIf(!LONG)('with --every-bit leaves no bit and no length out, and none is accepted', async () => {
    const out = join(directory, 'every-bit');
    expect((await run('vectors', out, '--every-bit')).code).toBe(0);
    const rows = rowsOf(out);
    const damaged = rows.filter(({ name }) => name.startsWith('every-bit/'));
    const good = rows[0]!;
    expect(good.verdict).toBe('accept');
    const [leafFile, intermediateFile] = good.certificates!;
    const sizes = [good.report, leafFile!, intermediateFile!].map((name) => statSync(join(out, name)).size);
    // Eight bits of every byte, and every length below the whole.
    expect(damaged).toHaveLength(9 * sizes.reduce((sum, size) => sum + size, 0));
    for (const row of damaged) {
      expect([row.verdict, row.codes], row.name).toEqual(['reject', undefined]);
      expect(judgeRow(out, row).ok, row.name).toBe(false);
    }
    say(`vectors --every-bit: ${damaged.length} cases, none accepted`);
  });
});

describe.skipIf(!HAVE_VECTORS)('genuine evidence on the command line', () => {
  it('verifies as captured from configfs-tsm', async () => {
    const path = file(
      'tsm.json',
      vector('veraison-services/files/scheme/sevsnp/test/evidence/sevsnp-tsm-report.json'),
    );
    const { code, out } = await run('verify', 'report', path, '--no-crl');
    expect(out).toContain('(AMD)');
    expect(code).toBe(0);
  });
});
