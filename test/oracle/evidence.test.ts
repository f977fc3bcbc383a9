// SPDX-License-Identifier: Apache-2.0
/** The evidence of every product, report version and key kind, as openssl, go-sev-guest and snpguest see it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import { HAVE_VECTORS, INDEX, vector } from '../verify/vectors.ts';
import { onPath, run, softsnp, tool, withFolder } from './tools.ts';

const PRODUCTS = ['milan', 'genoa', 'turin'] as const;
const VERSIONS = [2, 3, 5] as const;
const KEYS = ['vcek', 'vlek'] as const;
const CASES = PRODUCTS.flatMap((product) =>
  VERSIONS.flatMap((version) => KEYS.map((key) => ({ product, version, key }))),
);

const check = tool('go/check', 'go-sev-guest check');
const snpguest = tool('cargo/bin/snpguest', 'snpguest verify');
const openssl = onPath('openssl');
if (!openssl) {
  console.warn('SKIPPED: openssl is not installed');
}

interface Case {
  readonly product: string;
  readonly version: number;
  readonly key: string;
}

/** attest --out into the folder; fails the test with what softsnp said. */
function attest(folder: string, { product, version, key }: Case): string {
  const out = join(folder, 'out');
  const done = softsnp(
    'attest',
    '--chip',
    product,
    '--report-version',
    String(version),
    '--key',
    key,
    '--state',
    join(folder, 'state'),
    '--out',
    out,
  );
  expect(done.stderr).toBe('');
  expect(done.status).toBe(0);
  return out;
}

/** SEQUENCE { INTEGER r, INTEGER s } of the two little-endian fields. */
function derSignature(report: Uint8Array): Uint8Array {
  const integer = (at: number): number[] => {
    const big = [...report.subarray(at, at + 48)].reverse();
    while (big.length > 1 && big[0] === 0) {
      big.shift();
    }
    return [0x02, big.length + (big[0]! >> 7), ...(big[0]! >> 7 ? [0] : []), ...big];
  };
  const body = [...integer(0x2a0), ...integer(0x2e8)];
  return Uint8Array.from([0x30, body.length, ...body]);
}

/** AMD's own root of a product line, in PEM: the same name as softsnp's, another key. */
const amdRoot = (product: string): string =>
  toPem(vector(INDEX.find(({ file }) => file.includes(`/ark-${product}-`))!.file));

/** One of each line and kind of key is enough to see that nobody takes softsnp's for AMD's. */
const UNDER_AMD = CASES.filter(({ version }) => version === 3);

describe.skipIf(!openssl)('openssl', () => {
  it.skipIf(!HAVE_VECTORS).each(UNDER_AMD)("refuses $product, $key under AMD's root", (row) => {
    withFolder((folder) => {
      const out = attest(folder, row);
      const root = join(folder, 'amd.pem');
      writeFileSync(root, amdRoot(row.product));
      const intermediate = join(out, row.key === 'vcek' ? 'ask.pem' : 'asvk.pem');
      const leaf = join(out, `${row.key}.pem`);
      const verify = ['verify', '-CAfile', root, '-untrusted', intermediate, leaf];
      expect(run('openssl', verify).status).not.toBe(0);
    });
  });

  it.each(CASES)('verifies the report and the chain of $product, version $version, $key', (row) => {
    withFolder((folder) => {
      const out = attest(folder, row);
      const leaf = join(out, `${row.key}.pem`);
      const intermediate = join(out, row.key === 'vcek' ? 'ask.pem' : 'asvk.pem');
      const chain = run('openssl', [
        'verify',
        '-CAfile',
        join(out, 'ark.pem'),
        '-untrusted',
        intermediate,
        leaf,
      ]);
      expect(chain.stdout).toBe(`${leaf}: OK\n`);

      const report = Uint8Array.from(readFileSync(join(out, 'report.bin')));
      expect(report[0]).toBe(row.version);
      writeFileSync(join(folder, 'body'), report.subarray(0, 0x2a0));
      writeFileSync(join(folder, 'sig'), derSignature(report));
      const pub = run('openssl', ['x509', '-in', leaf, '-noout', '-pubkey']);
      writeFileSync(join(folder, 'pub.pem'), pub.stdout);
      const verify = [
        'dgst',
        '-sha384',
        '-verify',
        join(folder, 'pub.pem'),
        '-signature',
        join(folder, 'sig'),
        join(folder, 'body'),
      ];
      expect(run('openssl', verify).stdout).toBe('Verified OK\n');

      report[0x90]! ^= 1;
      writeFileSync(join(folder, 'body'), report.subarray(0, 0x2a0));
      expect(run('openssl', verify).status).toBe(1);
      expect(run('openssl', ['x509', '-in', leaf, '-noout', '-text']).stdout).toContain(
        'softsnp TEST ROOT, NOT AMD',
      );
    });
  });
});

/**
 * What go-sev-guest 0.15.0 supports: it knows neither the FMC extension of Turin nor, when the report has no
 * CPUID bytes, the product name "Genoa" without a stepping, which is what AMD writes.
 */
const GO_SUPPORTS = CASES.filter(
  ({ product, version, key }) =>
    product === 'milan' || (product === 'genoa' && !(version === 2 && key === 'vcek')),
);

describe.skipIf(check === null)('go-sev-guest check', () => {
  const goCheck = (
    folder: string,
    out: string,
    { product }: Case,
    bundle: string | null,
  ): ReturnType<typeof run> => {
    const attestation = join(folder, 'attestation.bin');
    writeFileSync(
      attestation,
      Buffer.concat([readFileSync(join(out, 'report.bin')), readFileSync(join(out, 'certs.bin'))]),
    );
    const name = `${product[0]!.toUpperCase()}${product.slice(1)}`;
    return run(check!, [
      ...['-in', attestation, '-inform', 'bin', '-network=false', '-product', name, '-stepping', '0'],
      ...(bundle === null ? [] : ['-product_key_path', bundle]),
      ...['-guest_policy', '0x30000'],
    ]);
  };

  it.each(GO_SUPPORTS.filter(({ version }) => version === 3))(
    "refuses $product, $key under AMD's roots, its own",
    (row) => {
      withFolder((folder) => {
        const refused = goCheck(folder, attest(folder, row), row, null);
        expect(refused.status).not.toBe(0);
        expect(`${refused.stdout}${refused.stderr}`).toMatch(/signed|signature|certificate/i);
      });
    },
  );

  it.each(GO_SUPPORTS)('accepts $product, version $version, $key under -product_key_path', (row) => {
    withFolder((folder) => {
      const out = attest(folder, row);
      const bundle = join(folder, 'bundle.pem');
      const intermediate = readFileSync(join(out, row.key === 'vcek' ? 'ask.pem' : 'asvk.pem'), 'utf8');
      writeFileSync(bundle, `${intermediate}${readFileSync(join(out, 'ark.pem'), 'utf8')}`);
      const accepted = goCheck(folder, out, row, bundle);
      expect(`${accepted.stdout}${accepted.stderr}`).not.toMatch(/fatal|error/i);
      expect(accepted.status).toBe(0);
    });
  });
});

describe.skipIf(snpguest === null)('snpguest', () => {
  // A version 2 report does not name its product: snpguest must be told.
  /** It refuses Turin by name in a report that cannot say so itself; the signature alone it still checks. */
  const signatureOnly = (row: Case): boolean => row.product === 'turin' && row.version === 2;

  it.skipIf(!HAVE_VECTORS).each(UNDER_AMD)("refuses $product, $key beside AMD's root", (row) => {
    withFolder((folder) => {
      const out = attest(folder, row);
      const certs = join(folder, 'certs');
      mkdirSync(certs);
      for (const name of [row.key === 'vcek' ? 'ask' : 'asvk', row.key]) {
        writeFileSync(join(certs, `${name}.pem`), readFileSync(join(out, `${name}.pem`)));
      }
      writeFileSync(join(certs, 'ark.pem'), amdRoot(row.product));
      expect(run(snpguest!, ['verify', 'certs', certs]).status).not.toBe(0);
    });
  });

  it.each(CASES)('verifies certs and attestation of $product, version $version, $key', (row) => {
    withFolder((folder) => {
      const out = attest(folder, row);
      const certs = join(folder, 'certs');
      mkdirSync(certs);
      for (const name of ['ark', row.key === 'vcek' ? 'ask' : 'asvk', row.key]) {
        writeFileSync(join(certs, `${name}.pem`), readFileSync(join(out, `${name}.pem`)));
      }
      const chain = run(snpguest!, ['verify', 'certs', certs]);
      expect(`${chain.stdout}${chain.stderr}`).not.toMatch(/error/i);
      expect(chain.status).toBe(0);
      const model = row.version === 2 ? ['-p', row.product, ...(signatureOnly(row) ? ['-s'] : [])] : [];
      const report = run(snpguest!, ['verify', 'attestation', ...model, certs, join(out, 'report.bin')]);
      expect(`${report.stdout}${report.stderr}`).not.toMatch(/error/i);
      expect(report.status).toBe(0);
    });
  });
});
