// SPDX-License-Identifier: Apache-2.0
/**
 * One verdict, wherever it is given: node:crypto, WebCrypto, JavaScript alone, a worker and the command line agree on
 * every finding of the published vectors. test/browser holds Chromium to the same. SOFTSNP_LONG=1 leaves none out.
 */
import { webcrypto } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { defineCommand } from 'citty';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import { runCli, type Verb } from '../../src/cli/run.ts';
import type { VectorCase } from '../../src/cli/vectors/case.ts';
import { vectorCases } from '../../src/cli/vectors/cases.ts';
import { verifyVerb } from '../../src/cli/verify.ts';
import { concat } from '../../src/lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import {
  type Evidence,
  exitCodeOf,
  parsePolicy,
  VerifyCache,
  type VerifyResult,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { jsVerifyCrypto } from '../../src/verify/js.ts';
import { cache, crypto, LONG } from './soft.ts';
import { authorities, HAVE_VECTORS, INDEX, vector, whenValidMs } from './vectors.ts';

/** One question to the verifier. */
interface Case {
  readonly name: string;
  readonly evidence: Evidence;
  readonly options: VectorCase['options'] & { readonly allowsDebug?: boolean };
}

const all: readonly Case[] = [
  ...vectorCases(nodeCrypto({ deterministic: false }), seededRandom(1)),
  ...genuine(),
];
// Short runs take a prime step, so that no row of a generated table is always passed over.
const cases = all.filter((_, i) => LONG || i % 13 === 0);

/** Four genuine reports are of debug guests. */
const policies = [parsePolicy({}), parsePolicy({ guest_policy: { debug: 'any' } })] as const;

const withPolicy = ({ allowsDebug, ...options }: Case['options']) => ({
  ...options,
  policy: policies[allowsDebug === true ? 1 : 0],
});

/** All that a verdict says. */
const verdictOf = (result: VerifyResult) => ({
  ok: result.ok,
  exitCode: exitCodeOf(result),
  identity: result.identity,
  product: result.product,
  isAmd: result.chain.isAmd,
  crl: result.chain.crl,
  steps: result.steps,
});

const expected = cases.map(({ evidence, options }) =>
  verdictOf(verifyEvidence(evidence, { ...withPolicy(options), crypto, cache })),
);

/** Every genuine report with its own leaf and with one of another host. */
function genuine(): readonly Case[] {
  const certificates = HAVE_VECTORS ? authorities() : [];
  return INDEX.filter(({ file }) => /\/report-/.test(file)).flatMap(({ file, leaf = [] }) =>
    [leaf[0]!, 'google-go-sev-guest/vcek-milan-0d057f9b6e29.der'].map((cert) => ({
      name: `${file} with ${cert}`,
      evidence: { report: vector(file), certificates: [vector(cert), ...certificates] },
      options: { atMs: whenValidMs(cert), crl: 'skip', trust: 'amd', allowsDebug: true } as const,
    })),
  );
}

function expectAlike(found: readonly unknown[]): void {
  expect(found).toHaveLength(cases.length);
  for (const [i, verdict] of found.entries()) {
    expect(verdict, cases[i]!.name).toEqual(expected[i]);
  }
}

describe('the verdict is the same', () => {
  it('without a cache', () => {
    expectAlike(
      cases.map(({ evidence, options }) =>
        verdictOf(verifyEvidence(evidence, { ...withPolicy(options), crypto })),
      ),
    );
  });

  it.each([
    ['without a cache', undefined],
    ['with a cache', new VerifyCache()],
  ])('with WebCrypto, %s', async (_, shared) => {
    const web = webVerifyCrypto(webcrypto.subtle);
    const found: unknown[] = [];
    for (const { evidence, options } of cases) {
      const given = { ...withPolicy(options), crypto: web };
      const result = await verifyEvidenceAsync(
        evidence,
        shared === undefined ? given : { ...given, cache: shared },
      );
      found.push(verdictOf(result));
    }
    expectAlike(found);
  });

  it('with JavaScript alone', () => {
    const js = jsVerifyCrypto();
    const own = new VerifyCache();
    expectAlike(
      cases.map(({ evidence, options }) =>
        verdictOf(verifyEvidence(evidence, { ...withPolicy(options), crypto: js, cache: own })),
      ),
    );
  });

  it.each([
    ['Buffers', (bytes: Uint8Array): Uint8Array => Buffer.from(bytes)],
    [
      'views into larger buffers',
      (bytes: Uint8Array) => concat(bytes, bytes, bytes).subarray(bytes.length, 2 * bytes.length),
    ],
    ['shared memory', shared],
  ])('for bytes in %s, with node:crypto and WebCrypto', async (_, form) => {
    const web = webVerifyCrypto(webcrypto.subtle);
    const formed: unknown[] = [];
    const asynchronous: unknown[] = [];
    for (const { evidence, options } of cases) {
      const given = inForm(evidence, form);
      const trust = options.trust === 'amd' ? options.trust : options.trust.map(form);
      formed.push(verdictOf(verifyEvidence(given, { ...withPolicy(options), trust, crypto })));
      asynchronous.push(
        verdictOf(await verifyEvidenceAsync(given, { ...withPolicy(options), trust, crypto: web })),
      );
    }
    expectAlike(formed);
    expectAlike(asynchronous);
  });
});

function shared(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(new SharedArrayBuffer(bytes.length));
  out.set(bytes);
  return out;
}

function inForm(
  { report, table, certificates, crls }: Evidence,
  form: (bytes: Uint8Array) => Uint8Array,
): Evidence {
  return {
    report: form(report),
    ...(table === undefined ? {} : { table: form(table) }),
    ...(certificates === undefined ? {} : { certificates: certificates.map(form) }),
    ...(crls === undefined ? {} : { crls: crls.map(form) }),
  };
}

describe('the verdict is the same in a worker', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-worker-'));
  let worker: Worker;

  beforeAll(async () => {
    const bundle = await rolldown({
      input: fileURLToPath(new URL('everywhere-worker.ts', import.meta.url)),
      platform: 'node',
    });
    const file = join(folder, 'worker.mjs');
    await bundle.write({ file, format: 'es' });
    await bundle.close();
    worker = new Worker(file);
  });

  afterAll(async () => {
    await worker?.terminate();
    rmSync(folder, { recursive: true });
  });

  it.each(['node', 'web', 'js'] as const)('with the cryptography %s', async (provider) => {
    const answer = new Promise<readonly VerifyResult[]>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    const questions = cases.map(({ evidence, options }) => ({ evidence, options: withPolicy(options) }));
    worker.postMessage({ provider, questions });
    expectAlike((await answer).map(verdictOf));
  });
});

describe('the verdict is the same on the command line', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-everywhere-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  /** It looks at every list there is, remembers no number of one, and has higher limits for files of one's own. */
  const isExpressible = ({ evidence: { certificates = [], crls = [] }, options }: Case): boolean =>
    options.crlMinimumNumber === undefined &&
    (options.crl !== 'skip' || crls.length === 0) &&
    certificates.length <= 16 &&
    crls.length <= 8;

  /** It names files where the library, without labels, names places. */
  const withPlaces = (out: string, inFolder: string, { crls = [] }: Evidence): string =>
    out
      .replaceAll(`${inFolder}/`, '')
      .replace(/certs\/(\d+)\.der/g, (_, i) => `certificates[${Number(i)}]`)
      .replace(/certs\/(\d+)\.crl/g, 'CRL[$1]')
      .replaceAll('last.crl', `CRL[${crls.length - 1}]`)
      .replaceAll('table.bin', 'table');

  it('with its exit code', async () => {
    let asked = 0;
    for (const [i, given] of cases.entries()) {
      if (!isExpressible(given)) {
        continue;
      }
      asked += 1;
      const { exitCode, steps, ...rest } = expected[i]!;
      const own = join(folder, String(i));
      const { code, out, err } = await onCommandLine(own, given);
      expect(err, given.name).toBe('');
      const { ok, identity, product, findings, exit_code, chain } = JSON.parse(
        withPlaces(out, own, given.evidence),
      );
      expect([code, exit_code], given.name).toEqual([exitCode, exitCode]);
      expect({ ok, identity, product, isAmd: chain.is_amd }, given.name).toMatchObject({
        ok: rest.ok,
        identity: rest.identity,
        product: rest.product,
        isAmd: rest.isAmd,
      });
      expect(findings, given.name).toEqual(steps.flatMap((step) => step.findings));
    }
    expect(cases.length - asked).toBeLessThan(10);
    expect(asked).toBeGreaterThan(50);
  });
});

async function onCommandLine(
  folder: string,
  { evidence, options }: Case,
): Promise<{ code: number; out: string; err: string }> {
  const write = (name: string, bytes: Uint8Array | string): string => {
    writeFileSync(join(folder, name), bytes);
    return join(folder, name);
  };
  mkdirSync(join(folder, 'certs'), { recursive: true });
  const { report, table, certificates = [], crls = [] } = evidence;
  for (const [i, der] of certificates.entries()) {
    write(`certs/${String(i).padStart(2, '0')}.der`, der);
  }
  // The two options contradict each other; lists are read in the folder as well.
  const isRequired = (options.crl ?? 'require') === 'require';
  for (const [i, der] of (isRequired ? crls.slice(0, -1) : crls).entries()) {
    write(`certs/${i}.crl`, der);
  }
  const last = isRequired ? crls.at(-1) : undefined;
  const argv = [
    ...['verify', 'report', write('report.bin', report), '--certs', join(folder, 'certs'), '--json'],
    ...['--at', new Date(options.atMs).toISOString()],
    ...(options.trust === 'amd'
      ? []
      : ['--trust', write('roots.pem', options.trust.map((der) => toPem(der)).join(''))]),
    ...(table === undefined ? [] : ['--table', write('table.bin', table)]),
    ...(isRequired ? [] : ['--no-crl']),
    ...(last === undefined ? [] : ['--crl', write('last.crl', last)]),
    ...(options.product === undefined ? [] : ['--product', options.product.toLowerCase()]),
    ...(options.allowsDebug === true
      ? ['--policy', write('policy.json', '{"guest_policy":{"debug":"any"}}')]
      : []),
  ];
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
  const clock = { nowMs: () => 0, monotonicMs: () => 0 };
  const root: Verb = defineCommand({
    meta: { name: 'softsnp' },
    subCommands: { verify: verifyVerb(output, { clock, kdsTiming: {} }) },
  });
  return { code: await runCli(root, argv, '0', output), out, err };
}
