// SPDX-License-Identifier: Apache-2.0
/** Folders, links, several tables and whole collections, as people hand them to softsnp verify and show. */
import { generateKeyPairSync } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  ARK_GUID,
  ASK_GUID,
  CRL_GUID,
  EXTRA_PLATFORM_INFO_GUID,
  VCEK_GUID,
} from '../../src/abi/cert-table.ts';
import { toPem } from '../../src/certs/pem.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { concat, fromHex, toHex, utf8 } from '../../src/lib/bytes.ts';
import { forge } from './soft.ts';
import { type Typed, typed } from './typed.ts';

const directory = mkdtempSync(join(tmpdir(), 'softsnp-evidence-'));
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

const milan = forge('Milan');
const report = milan.report();
const leaf = milan.leaf();
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const chainPem = toPem(ask) + toPem(ark);
const table = encodeCertificateTable([
  { guid: VCEK_GUID, data: leaf },
  { guid: ASK_GUID, data: ask },
  { guid: ARK_GUID, data: ark },
]);

const file = (name: string, data: Uint8Array | string): string => {
  const path = join(directory, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, data);
  return path;
};
const folderOf = (name: string, files: Readonly<Record<string, Uint8Array | string>>): string => {
  mkdirSync(join(directory, name), { recursive: true });
  for (const [entry, data] of Object.entries(files)) {
    file(join(name, entry), data);
  }
  return join(directory, name);
};

/** A name of nothing but a common name. */
function commonName(text: string): Uint8Array {
  const value = utf8(text);
  const attribute = concat(fromHex('06035504030c'), Uint8Array.of(value.length), value);
  const { length } = attribute;
  return concat(Uint8Array.of(0x30, length + 4, 0x31, length + 2, 0x30, length), attribute);
}

const reportPath = file('report.bin', report);
const verify = (words: readonly string[], path = reportPath): Promise<Typed> =>
  typed(['verify', 'report', path, '--no-crl', '--trust', 'softsnp', ...words]);

describe('a folder of certificates', () => {
  it('is read through links, as Kubernetes mounts it', async () => {
    const real = folderOf('linked/..data', { 'vcek.der': leaf, 'chain.pem': chainPem });
    const mount = dirname(real);
    for (const name of ['vcek.der', 'chain.pem']) {
      symlinkSync(join('..data', name), join(mount, name));
    }
    symlinkSync('nowhere', join(mount, 'dangling'));
    expect((await verify(['--certs', mount])).code).toBe(0);
    symlinkSync('nowhere', join(mount, 'ark.pem'));
    const dangling = await verify(['--certs', mount]);
    expect([dangling.code, dangling.err]).toEqual([1, expect.stringContaining('ark.pem: ENOENT')]);
  });

  it('may hold something large that is no certificate', async () => {
    const certs = folderOf('with-image', { 'vcek.der': leaf, 'chain.pem': chainPem, 'disk.img': '' });
    truncateSync(join(certs, 'disk.img'), 2 ** 31);
    expect((await verify(['--certs', certs])).code).toBe(0);
  });

  it('may hold a whole collection: the certificate of this chip and TCB is found in it', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [
        `vcek-${String(i).padStart(2, '0')}.der`,
        milan.leaf('VCEK', { tcb: { ...milan.tcb, microcode: i } }),
      ]),
    );
    const certs = folderOf('collection', { ...files, 'vcek-right.der': leaf, 'chain.pem': chainPem });
    expect((await verify(['--certs', certs])).code).toBe(0);
    const alone = await typed(['verify', 'certs', certs, '--no-crl', '--trust', 'softsnp', '--json']);
    expect(alone.code).toBe(0);
    expect(JSON.parse(alone.out).chains).toHaveLength(21);
  });

  it('is named in findings and causes file by file, and its contents never', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    const certs = folderOf('with-key', { 'vcek.pem': pem, 'chain.pem': chainPem });
    for (const words of [[], ['--json']]) {
      const { code, out } = await verify(['--certs', certs, ...words]);
      expect(code).toBe(2);
      expect(out).toContain('with-key/vcek.pem is PEM of PRIVATE KEY');
      expect(out).toContain('CERT_IS_PRIVATE_KEY');
      expect(out).not.toContain(pem.split('\n')[1]!.slice(0, 12));
    }
  });

  it('tells of a page that was saved without an ending in its name', async () => {
    const certs = folderOf('with-page', { vcek: '<html>429</html>', 'chain.pem': chainPem, notes: 'text' });
    const { code, out } = await verify(['--certs', certs]);
    expect(code).toBe(3);
    expect(out).toContain('CERT_IS_ERROR_PAGE');
    expect(out).toContain('with-page/vcek is an HTML or XML page');
    expect(out).not.toContain('notes');
  });

  it('may hold the report: it is neither taken for a certificate nor blamed', async () => {
    const files = {
      'vcek-report.bin': report,
      'cert-report.b64': Buffer.from(report).toString('base64'),
      outblob: report,
      'vcek.der': leaf,
    };
    const whole = folderOf('with-report', { ...files, 'chain.pem': chainPem });
    expect((await verify(['--certs', whole])).code).toBe(0);
    const certs = folderOf('with-report-alone', files);
    const { code, out } = await typed([
      'verify',
      'report',
      reportPath,
      '--no-crl',
      '--certs',
      certs,
      '--json',
    ]);
    const { why } = JSON.parse(out);
    expect([code, why.map(({ code: cause }: { code: string }) => cause)]).toEqual([3, ['CHAIN_MISSING']]);
    expect(out).not.toContain('with-report-alone/');
  });

  it('is named without what a terminal would obey, also where a file of it cannot be read', async () => {
    const certs = folderOf('hostile', { '\u001b[2J\u009b\u202e.pem': '<html>', 'chain.pem': chainPem });
    for (const words of [[], ['--json']]) {
      const { out } = await verify(['--certs', certs, ...words]);
      expect(out).toContain(words.length === 0 ? '\\u{1b}[2J' : '\\\\u{1b}[2J');
      expect(out.replaceAll('\n', '')).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    }
    const shown = await typed(['show', 'certs', certs]);
    expect(shown.out.replaceAll('\n', '')).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    symlinkSync('nowhere', join(certs, '\u001b]0;x\u0007.pem'));
    const { code, err } = await verify(['--certs', certs]);
    expect([code, err]).toEqual([1, expect.stringContaining('\\u{1b}]0;x\\u{7}.pem: ENOENT')]);
  });

  it('may be given under --crl', async () => {
    const lists = folderOf('lists', { 'root.crl': milan.crl(), readme: 'x' });
    const certs = file('all.pem', toPem(leaf) + chainPem);
    const words = ['verify', 'report', reportPath, '--certs', certs, '--trust', 'softsnp', '--crl'];
    expect((await typed([...words, lists])).code).toBe(0);
    expect((await typed([...words, folderOf('no-lists', { readme: 'x' })])).code).toBe(1);
  });
});

describe('certificate tables', () => {
  const page = file('page.html', '<html>404</html>');
  const beside = folderOf('beside', { outblob: report, auxblob: table });
  const damaged = folderOf('damaged', { outblob: report, auxblob: table.subarray(0, 2000) });
  const good = file('good.table', table);

  it('under --table are judged, whatever stands beside the report', async () => {
    const refused = await verify(['--table', page], beside);
    expect([refused.code, refused.out]).toEqual([2, expect.stringContaining('TABLE_IS_SOMETHING_ELSE')]);
    const accepted = await verify(['--table', good], damaged);
    expect([accepted.code, accepted.err]).toEqual([
      0,
      expect.stringContaining('damaged/auxblob is not used'),
    ]);
    expect((await verify([], damaged)).code).toBe(2);
  });

  it('all count: what one lacks another may hold', async () => {
    const leafOnly = file('leaf.table', encodeCertificateTable([{ guid: VCEK_GUID, data: leaf }]));
    const rest = encodeCertificateTable([
      { guid: ASK_GUID, data: ask },
      { guid: ARK_GUID, data: ark },
      { guid: CRL_GUID, data: milan.crl({ revoked: [0x010001] }) },
    ]);
    const { code, out } = await verify(['--table', leafOnly, '--certs', file('rest.table', rest)]);
    expect([code, out]).toEqual([4, expect.stringContaining('rest.table.CRL')]);
  });

  it.each([
    ['hexadecimal', toHex(table)],
    ['base64', Buffer.from(table).toString('base64')],
  ])('are read in %s', async (name, text) => {
    const path = file(`${name}.table`, text);
    expect((await verify(['--table', path])).code).toBe(0);
    expect((await verify(['--certs', path])).code).toBe(0);
    expect((await typed(['show', 'table', path])).out).toContain('VCEK');
  });

  it('hand their other entries on, unread', async () => {
    const more = encodeCertificateTable([
      { guid: EXTRA_PLATFORM_INFO_GUID, data: Uint8Array.of(8, 0, 0, 0) },
      { guid: '00112233-4455-6677-8899-aabbccddeeff', data: Uint8Array.of(1, 2) },
    ]);
    const { out } = await verify(['--table', file('more.table', more), '--certs', good, '--json']);
    expect(JSON.parse(out)).toMatchObject({
      ok: true,
      other_table_entries: [
        { guid: EXTRA_PLATFORM_INFO_GUID, kind: 'extra platform info', data: '08000000' },
        { guid: '00112233-4455-6677-8899-aabbccddeeff', kind: 'unknown', data: '0102' },
      ],
    });
  });
});

describe('certificates as text', () => {
  it('are read in hexadecimal', async () => {
    const certs = folderOf('hex', { 'vcek.txt': toHex(leaf), 'ask.txt': toHex(ask), 'ark.txt': toHex(ark) });
    expect((await verify(['--certs', certs])).code).toBe(0);
  });
});

describe('text with a byte order mark', () => {
  it('is read under --certs, --trust, --crl and --table', async () => {
    const pem = file('bom.pem', `\ufeff${toPem(leaf)}${chainPem}`);
    const root = file('root-bom.pem', `\ufeff${toPem(ark)}`);
    const list = file('crl-bom.pem', `\ufeff${toPem(milan.crl(), 'X509 CRL')}`);
    const words = ['verify', 'report', reportPath, '--trust', root, '--crl', list];
    expect((await typed([...words, '--certs', pem])).code).toBe(0);
    const coded = file('table-bom.b64', `\ufeff${Buffer.from(table).toString('base64')}`);
    expect((await typed([...words, '--table', coded])).code).toBe(0);
    expect((await typed(['show', 'certs', pem])).out).toContain('SEV-VCEK');
  });
});

describe('a folder of configfs-tsm', () => {
  it('whose provider is another than sev_guest is said to be evidence of other hardware', async () => {
    const quote = folderOf('tdx', { outblob: new Uint8Array(4000).fill(7), provider: 'tdx_guest\n' });
    const { code, out } = await verify([], quote);
    expect([code, out]).toEqual([2, expect.stringContaining('OTHER_HARDWARE')]);
    expect(out).toContain('The provider that configfs-tsm names is tdx_guest.');
    const own = folderOf('snp', { outblob: new Uint8Array(4000).fill(7), provider: 'sev_guest\n' });
    expect((await verify([], own)).out).toContain('REPORT_IS_SOMETHING_ELSE');
  });
});

describe('names in certificates', () => {
  it('are shown without what a terminal would obey', async () => {
    const csp = file('csp.der', milan.leaf('VLEK', { csp: 'CN=cloud\u009b31m' }));
    const subject = file('subject.der', milan.leaf('VCEK', { subject: commonName('a\u009b2J\u202eb') }));
    for (const path of [csp, subject]) {
      for (const words of [
        ['show', 'certs', path],
        ['show', 'certs', path, '--json'],
        ['verify', 'report', reportPath, '--certs', path],
        ['verify', 'report', reportPath, '--certs', path, '--json'],
        ['verify', 'certs', path, '--json'],
      ]) {
        const { out } = await typed(words);
        expect(out.length).toBeGreaterThan(100);
        expect(out.replaceAll('\n', '')).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
      }
    }
    expect((await typed(['show', 'certs', subject])).out).toContain('CN=a\\u{9b}2J\\u{202e}b');
  });
});

describe('--trust', () => {
  it('names the file that holds no root', async () => {
    const page = file('root.html', '<html>');
    const { code, err } = await typed(['verify', 'report', reportPath, '--trust', page]);
    expect([code, err]).toEqual([1, expect.stringContaining(`no root certificate in ${page}`)]);
  });
});

describe('--at', () => {
  it.each(['2026-02-30', '2026-13-01', '2025-02-29T00:00:00Z', '2026-01-01T25:00:00Z'])(
    'refuses %s, which is no day or time',
    async (text) => {
      const { code, err } = await typed(['verify', 'report', reportPath, '--at', text]);
      expect([code, err]).toEqual([1, expect.stringContaining('is not a time')]);
    },
  );

  it('takes a leap day and a zone', async () => {
    for (const text of ['2028-02-29', '2026-06-30T23:30:00-05:00']) {
      expect((await verify(['--at', text])).code).toBe(3);
    }
  });
});

describe('softsnp show', () => {
  it('shows file, TCB parts of the line and revocation lists', async () => {
    const path = folderOf('shown', { 'vcek.der': leaf, 'root.crl': milan.crl({ revoked: [0x010001] }) });
    const { out } = await typed(['show', 'certs', path, '--json']);
    const { certificates, crls } = JSON.parse(out);
    expect(certificates[0]).toMatchObject({
      file: join(path, 'vcek.der'),
      tcb: { boot_loader: 4, tee: 1, snp: 24, microcode: 219 },
    });
    expect(certificates[0].tcb).not.toHaveProperty('fmc');
    expect(crls[0]).toMatchObject({
      file: join(path, 'root.crl'),
      kind: 'CRL',
      revoked: [{ serial: '010001' }],
    });
    const alone = await typed(['show', 'certs', join(path, 'root.crl')]);
    expect([alone.code, alone.out]).toEqual([0, expect.stringContaining('ARK-Milan')]);
  });

  it('says that there is nothing instead of showing it', async () => {
    const empty = folderOf('nothing', {});
    const { code, err } = await typed(['show', 'certs', empty]);
    expect([code, err]).toEqual([1, expect.stringContaining('no certificates and no revocation lists')]);
  });

  it('shows the fields of a report in their order', async () => {
    const { out } = await typed(['show', 'report', reportPath]);
    const offsets = out.split('\n').flatMap((line) => /^0x([0-9a-f]{3}) /.exec(line)?.[1] ?? []);
    expect(offsets.length).toBeGreaterThan(30);
    expect(offsets).toEqual([...offsets].sort());
  });

  it('takes a key for a key, an ID block for an ID block and a certificate for its key', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
    const pem = file('key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
    const block = file('block.bin', new Uint8Array(96));
    expect((await typed(['show', 'key', block])).err).toContain('is no P-384 key');
    expect((await typed(['show', 'id-block', pem])).err).toContain(
      'is no ID block (96 bytes) and no ID auth',
    );
    const locked = privateKey.export({
      type: 'pkcs8',
      format: 'pem',
      cipher: 'aes-256-cbc',
      passphrase: 'x',
    });
    expect((await typed(['show', 'key', file('locked.pem', locked as string)])).err).toContain(
      'under a passphrase',
    );
    const spki = publicKey.export({ type: 'spki', format: 'der' }) as Buffer;
    const ofKey = (await typed(['show', 'key', pem])).out;
    expect((await typed(['show', 'key', file('key.der', spki)])).out).toBe(ofKey);
    const ofLeaf = await typed(['show', 'key', file('leaf.der', leaf)]);
    const ofPem = await typed(['show', 'key', file('leaf.pem', toPem(leaf))]);
    expect([ofLeaf.code, ofLeaf.out]).toEqual([0, ofPem.out]);
  });
});

describe('docs/howto/verify.md', () => {
  const page = readFileSync(new URL('../../docs/howto/verify.md', import.meta.url), 'utf8');
  const unnamed = (names: readonly string[]): readonly string[] =>
    names.filter((name) => !page.includes(`\`${name}\``));

  it('names every field of the verdict', async () => {
    const certs = file('documented.pem', toPem(leaf) + chainPem);
    const { out } = await verify(['--certs', certs, '--json']);
    const { findings, ...verdict } = JSON.parse(out);
    expect(
      unnamed([...Object.keys(verdict), ...Object.keys(verdict.chain), ...Object.keys(findings[0])]),
    ).toEqual([]);
    const alone = await typed(['verify', 'certs', certs, '--no-crl', '--trust', 'softsnp', '--json']);
    expect(unnamed(Object.keys(JSON.parse(alone.out)))).toEqual([]);
  });
});

describe('softsnp vectors', () => {
  it.each(['/proc/softsnp', reportPath])('says that it cannot write to %s', async (path) => {
    const { code, err } = await typed(['vectors', path]);
    expect([code, err]).toEqual([1, expect.stringContaining('[FILE_UNWRITABLE]')]);
  });
});
