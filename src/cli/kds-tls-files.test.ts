// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isKeyPair } from '../kds/tls.ts';
import { seededRandom } from '../os/node-crypto.ts';
import { tlsFiles } from './kds-tls-files.ts';

const NOW_MS = Date.UTC(2026, 10, 21);
const YEAR_MS = 365.25 * 86_400_000;
const CSPS = ['CN=cloud.example'];
const random = seededRandom(31);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-tls-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const filesAt = (nowMs: number) => tlsFiles(folder, CSPS, nowMs, random);
const text = (name: string): string => readFileSync(join(folder, name), 'utf8');
const contents = (): readonly string[] =>
  readdirSync(folder)
    .sort()
    .map((name) => `${name}\n${text(name)}`);

describe('the TLS files of a key service', () => {
  it('are made once, and complete', () => {
    const { root, identity, warnings } = filesAt(NOW_MS);
    expect(warnings).toEqual([]);
    expect(readFileSync(root, 'utf8')).toBe(identity.root);
    const before = contents();
    expect(before.map((file) => file.split('\n')[0])).toEqual([
      'client-cloud.example.key',
      'client-cloud.example.pem',
      'client-root.key',
      'root.pem',
      'server-root.key',
    ]);
    filesAt(NOW_MS + 1000);
    expect(contents()).toEqual(before);
  });

  it.each([
    ['an hour back', NOW_MS - 3_600_000, 0],
    ['a week back', NOW_MS - 7 * 86_400_000, 2],
    ['ten years back', NOW_MS - 10 * YEAR_MS, 2],
    ['1970', 0, 2],
    ['a year on', NOW_MS + YEAR_MS, 0],
    ['2038', Date.UTC(2038, 0, 19, 3, 14, 8), 2],
    ['2106', Date.UTC(2106, 1, 7, 6, 28, 16), 2],
  ])(
    'keep their roots and keys when the clock jumps to %s, and say what is wrong',
    (_when, atMs, warnings) => {
      const keys = ['server-root.key', 'client-root.key', 'client-cloud.example.key', 'root.pem'];
      filesAt(NOW_MS);
      const before = keys.map(text);
      const jumped = filesAt(atMs);
      expect(jumped.warnings.length).toBe(warnings);
      for (const warning of jumped.warnings) {
        expect(warning).toMatch(
          /root\.key: the root is valid from 2026-11-20 to 2036-11-21 and today is \d{4}/,
        );
      }
      expect(keys.map(text)).toEqual(before);
      expect(filesAt(NOW_MS).warnings).toEqual([]);
      expect(keys.map(text)).toEqual(before);
      // Whichever certificate the provider has now, it is valid and of its key.
      const certificate = text('client-cloud.example.pem');
      const privateKey = text('client-cloud.example.key');
      expect(isKeyPair({ certificate, privateKey }, authorityOf('client-root.key'))).toBe(true);
      const { validFrom, validTo } = new X509Certificate(certificate);
      expect(Date.parse(validFrom)).toBeLessThanOrEqual(NOW_MS);
      expect(Date.parse(validTo)).toBeGreaterThan(NOW_MS);
    },
  );

  it('take in what another process has made meanwhile', () => {
    filesAt(NOW_MS);
    const root = text('root.pem');
    rmSync(join(folder, 'root.pem'));
    rmSync(join(folder, 'client-cloud.example.pem'));
    filesAt(NOW_MS);
    expect(text('root.pem')).toBe(root);
  });

  it('can be read where nothing may be written', () => {
    filesAt(NOW_MS);
    chmodSync(folder, 0o500);
    const { mtimeMs } = statSync(folder);
    expect(filesAt(NOW_MS).identity.root).toBe(text('root.pem'));
    // Root may write all the same: that it did not shows in the folder's time.
    expect(statSync(folder).mtimeMs).toBe(mtimeMs);
    chmodSync(folder, 0o700);
  });

  it('are rid of what a crash left, but not of what is being written', () => {
    filesAt(NOW_MS);
    const [old, young] = ['.root.pem.0123.new', '.root.pem.4567.new'];
    writeFileSync(join(folder, old!), 'half');
    writeFileSync(join(folder, young!), 'half');
    utimesSync(join(folder, old!), NOW_MS / 1000 - 7200, NOW_MS / 1000 - 7200);
    utimesSync(join(folder, young!), NOW_MS / 1000 - 10, NOW_MS / 1000 - 10);
    filesAt(NOW_MS);
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([young]);
  });

  it('are for their owner alone where they hold keys', () => {
    filesAt(NOW_MS);
    for (const name of readdirSync(folder)) {
      expect([name, statSync(join(folder, name)).mode & 0o777]).toEqual([
        name,
        name.endsWith('.key') ? 0o600 : 0o644,
      ]);
    }
  });
});

function authorityOf(name: string): { certificate: string; privateKey: string } {
  const at = text(name).indexOf('-----BEGIN PRIVATE KEY-----');
  return { certificate: text(name).slice(0, at), privateKey: text(name).slice(at) };
}
