// SPDX-License-Identifier: Apache-2.0
/** What is fetched for evidence, what is not, and when it is judged. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { toPem } from '../../src/certs/pem.ts';
import { validity } from '../../src/cli/vectors/der.ts';
import { utf8 } from '../../src/lib/bytes.ts';
import { BugError, EnvironmentError } from '../../src/lib/errors.ts';
import {
  type Evidence,
  type EvidenceSource,
  fetchEvidence,
  type VerifyOptions,
  verifyEvidence,
} from '../../src/verify/index.ts';
import { AT_MS, crypto, errorsOf, forge } from './soft.ts';
import { type Typed, typed } from './typed.ts';

const milan = forge('Milan');
const turin = forge('Turin');
const report = milan.report();
const leaf = milan.leaf();
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const crl = milan.crl();
const trust = [ark, turin.authority.ark];
const YEAR_MS = 365 * 86_400_000;

/** A source that has everything of one host, and writes down what it is asked for. */
function sourceOf(host = milan): EvidenceSource & { readonly asked: string[] } {
  const asked: string[] = [];
  const [intermediate, root] = host.chain() as [Uint8Array, Uint8Array];
  return {
    asked,
    vcek(product, hwid) {
      asked.push(`vcek ${product} ${hwid.length}`);
      return product === host.product
        ? Promise.resolve(host.leaf())
        : Promise.reject(new EnvironmentError('KDS_NOT_FOUND', 'the key service does not know it'));
    },
    chain(path, product) {
      asked.push(`chain ${path} ${product}`);
      return Promise.resolve({ intermediate, ark: root });
    },
    crl(path, product) {
      asked.push(`crl ${path} ${product}`);
      return Promise.resolve(host.crl());
    },
  };
}

describe('fetchEvidence', () => {
  const options: VerifyOptions & { crypto: typeof crypto } = { atMs: AT_MS, trust, crypto };
  const verdict = async (
    evidence: Evidence,
    source: EvidenceSource,
    more: Partial<VerifyOptions> = {},
  ): Promise<{ codes: readonly string[]; failures: readonly string[] }> => {
    const given = { ...options, ...more };
    const first = verifyEvidence(evidence, given);
    const fetched = await fetchEvidence(source, evidence, first, given);
    return { codes: errorsOf(verifyEvidence(fetched.evidence, given)), failures: fetched.failures };
  };

  it.each<[string, Evidence, Partial<VerifyOptions>, readonly string[]]>([
    ['nothing where all is there', { report, certificates: [leaf, ask, ark], crls: [crl] }, {}, []],
    ['all where there is nothing', { report }, {}, ['vcek Milan 128', 'chain vcek Milan', 'crl vcek Milan']],
    ['the list alone', { report, certificates: [leaf, ask, ark] }, {}, ['crl vcek Milan']],
    [
      'no list where none is required',
      { report },
      { crl: 'if-present' },
      ['vcek Milan 128', 'chain vcek Milan'],
    ],
    ['the chain alone', { report, certificates: [leaf], crls: [crl] }, {}, ['chain vcek Milan']],
    [
      'the leaf of this chip where there is that of another',
      { report, certificates: [forge('Milan', 2).leaf(), ask, ark], crls: [crl] },
      {},
      ['vcek Milan 128', 'chain vcek Milan'],
    ],
    [
      'another line where a version 2 report is not known under the first',
      { report: milan.report({ version: 2 }) },
      {},
      ['vcek Milan 128', 'chain vcek Milan', 'crl vcek Milan'],
    ],
  ])('fetches %s', async (_, evidence, more, asked) => {
    const source = sourceOf();
    expect(await verdict(evidence, source, more)).toEqual({ codes: [], failures: [] });
    expect(source.asked).toEqual(asked);
  });

  it('asks for a Turin chip by 16 digits', async () => {
    const source = sourceOf(turin);
    expect(await verdict({ report: turin.report() }, source)).toEqual({ codes: [], failures: [] });
    expect(source.asked[0]).toBe('vcek Turin 16');
  });

  it('says why something could not be had, and fetches the rest for a VLEK', async () => {
    const source = sourceOf();
    const { codes, failures } = await verdict({ report: milan.report({ kind: 'VLEK' }) }, source);
    expect(codes).toContain('LEAF_MISSING');
    expect(failures).toEqual([expect.stringContaining('VLEK')]);
    expect(source.asked).toEqual(['chain vlek Milan', 'crl vlek Milan']);
  });

  it('does not ask a service that does not answer for the next thing', async () => {
    const source = sourceOf();
    const dead: EvidenceSource = {
      ...source,
      vcek: (product) => {
        source.asked.push(product);
        return Promise.reject(new EnvironmentError('KDS_UNAVAILABLE', 'no answer'));
      },
    };
    const { failures } = await verdict({ report: milan.report({ version: 2 }) }, dead);
    expect(failures).toEqual(['no answer']);
    expect(source.asked).toEqual(['Milan']);
  });

  it('takes any Error of a foreign source for a no, but not a defect', async () => {
    const source = sourceOf();
    const no = { ...source, vcek: () => Promise.reject(new TypeError('no route')) };
    expect((await verdict({ report }, no)).failures).toEqual(['no route']);
    const defect = { ...source, vcek: () => Promise.reject(new BugError('impossible')) };
    await expect(verdict({ report }, defect)).rejects.toThrow('impossible');
  });
});

describe('softsnp verify report --kds', () => {
  const directory = mkdtempSync(join(tmpdir(), 'softsnp-fetch-'));
  const path = join(directory, 'report.bin');
  let server: Server;
  let base: string;
  let asked: string[] = [];
  let issued: () => Uint8Array = () => leaf;

  beforeAll(async () => {
    writeFileSync(path, report);
    server = createServer((request, response) => {
      const target = request.url!;
      asked.push(target);
      const body = target.endsWith('/cert_chain')
        ? utf8(toPem(ask) + toPem(ark))
        : target.endsWith('/crl')
          ? crl
          : issued();
      response.writeHead(200).end(body);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    asked = [];
  });
  afterAll(() => {
    server.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const verify = (words: readonly string[], environment = {}): Promise<Typed> =>
    typed(['verify', 'report', path, '--trust', 'softsnp', ...words], environment);

  it('accepts a certificate that the service issues while the verifier waits', async () => {
    let nowMs = AT_MS;
    issued = () => {
      nowMs += 5000;
      return milan.leaf('VCEK', { validity: validity(nowMs - 1000, nowMs + YEAR_MS) });
    };
    const clock = { nowMs: () => nowMs, monotonicMs: () => performance.now() };
    const { code, out } = await verify(['--kds', base, '--cache', 'none'], { clock });
    expect([code, out]).toEqual([0, expect.stringMatching(/^ACCEPTED/)]);
    issued = () => leaf;
  });

  it('asks for nothing where nothing is missing', async () => {
    const certs = join(directory, 'chain.pem');
    writeFileSync(certs, toPem(leaf) + toPem(ask) + toPem(ark));
    const { code } = await verify(['--kds', base, '--certs', certs, '--no-crl', '--cache', 'none']);
    expect([code, asked]).toEqual([0, []]);
  });

  it('keeps what it was given for the next time', async () => {
    const cache = join(directory, 'cache');
    expect((await verify(['--kds', base, '--cache', cache])).code).toBe(0);
    expect(readdirSync(cache).length).toBeGreaterThan(0);
    asked = [];
    expect((await verify(['--kds', base, '--cache', cache])).code).toBe(0);
    expect(asked).toEqual([]);
  });

  it('refuses a port that cannot be asked, and a deadline that is none', async () => {
    const port = await verify(['--kds', 'http://127.0.0.1:1', '--cache', 'none']);
    expect([port.code, port.err]).toEqual([1, expect.stringContaining('a port that fetch refuses')]);
    const deadline = await verify(['--kds', base, '--cache', 'none', '--deadline', 'soon']);
    expect([deadline.code, deadline.err]).toEqual([1, expect.stringContaining('--deadline')]);
  });
});
