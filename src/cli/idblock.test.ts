// SPDX-License-Identifier: Apache-2.0
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { idblockVerb } from './idblock.ts';
import { runCli, type Verb } from './run.ts';

async function idblock(
  ...argv: readonly string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const output = {
    stdout: (text: string) => {
      stdout += text;
    },
    stderr: (text: string) => {
      stderr += text;
    },
  };
  const root: Verb = { subCommands: { idblock: idblockVerb(output) } };
  const code = await runCli(root, ['idblock', ...argv], '0.0.0', output);
  return { code, stdout, stderr };
}

const LD = 'd1'.repeat(48);
// Private scalar 1: the public point is the curve's generator.
const KEY_DIGEST_OF_G =
  '01ce77b697886b46c6e363a9d02bbee2506e4b21ca4b3085f35f20e4cf66ac780e01e38aad53f973cbcea56e59a7b382';

let folder: string;
const at = (name: string): string => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-idblock-'));
  const one: KeyObject = createPrivateKey({
    key: Buffer.concat([
      Buffer.from('303e0201010430', 'hex'),
      Buffer.alloc(47),
      Buffer.from([1]),
      Buffer.from('a00706052b81040022', 'hex'),
    ]),
    format: 'der',
    type: 'sec1',
  });
  const author = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
  writeFileSync(at('id.pem'), one.export({ format: 'pem', type: 'sec1' }));
  writeFileSync(at('id.der'), one.export({ format: 'der', type: 'sec1' }));
  writeFileSync(at('id8.der'), one.export({ format: 'der', type: 'pkcs8' }));
  writeFileSync(at('author.pem'), author.privateKey.export({ format: 'pem', type: 'pkcs8' }));
  writeFileSync(at('author.pub'), author.publicKey.export({ format: 'pem', type: 'spki' }));
  writeFileSync(
    at('locked.pem'),
    author.privateKey.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' }),
  );
  const p256 = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  writeFileSync(at('p256.pem'), p256.privateKey.export({ format: 'pem', type: 'pkcs8' }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const create = (...more: readonly string[]) =>
  idblock('create', '--measurement', LD, '--id-key', at('id.pem'), ...more);
const FILES = () => ['--block-file', at('block'), '--auth-file', at('auth')];

describe('softsnp idblock create', () => {
  it('prints the lines of snp-create-id-block, and its options are known', async () => {
    const { code, stdout } = await idblock(
      'create',
      '--measurement',
      Buffer.from(LD, 'hex').toString('base64'),
      '--idkey',
      at('id.pem'),
      '--authorkey',
      at('author.pem'),
    );
    expect(code).toBe(0);
    const [qemu, id, author] = stdout.trimEnd().split('\n');
    expect(qemu).toMatch(/^id-block=[A-Za-z0-9+/]{128},id-auth=[A-Za-z0-9+/]{5462}==$/);
    expect(id).toBe(`id_key_hash: ${Buffer.from(KEY_DIGEST_OF_G, 'hex').toString('base64')}`);
    expect(author).toMatch(/^author_key: [A-Za-z0-9+/]{64}$/);
  });

  it('writes files that check accepts, with and without an author key', async () => {
    for (const author of [[], ['--author-key', at('author.pem')]]) {
      expect((await create(...author, ...FILES())).code).toBe(0);
      expect(readFileSync(at('block'))).toHaveLength(96);
      expect(readFileSync(at('auth'))).toHaveLength(4096);
      const checked = await idblock(
        'check',
        at('block'),
        at('auth'),
        '--measurement',
        LD,
        '--policy',
        '0x30000',
      );
      expect(checked).toEqual({ code: 0, stdout: 'the firmware would accept it\n', stderr: '' });
    }
  });

  it('takes keys in PEM and in both DER forms', async () => {
    for (const key of ['id.pem', 'id.der', 'id8.der']) {
      const { stdout } = await idblock('create', '--measurement', LD, '--id-key', at(key), '--json');
      expect(JSON.parse(stdout)).toMatchObject({ id_key_digest: KEY_DIGEST_OF_G, author_key_digest: null });
    }
  });

  it.each<[readonly string[], RegExp]>([
    [['--measurement', 'd1', '--id-key', 'x'], /--measurement: is neither 96 hexadecimal digits nor/],
    [['--measurement', LD, '--id-key', '/nowhere'], /--id-key: cannot read/],
    [['--measurement', LD, '--id-key', 'p256.pem'], /is not on P-384/],
    [['--measurement', LD, '--id-key', 'author.pub'], /holds no private key/],
    [['--measurement', LD, '--id-key', 'locked.pem'], /under a passphrase/],
    [['--measurement', LD, '--id-key', 'id.pem', '--policy', '0'], /bit 17 must be set/],
    [
      ['--measurement', LD, '--id-key', 'id.pem', '--family-id', '00'.repeat(17)],
      /--family-id: 17 bytes given, it has 16/,
    ],
    [
      ['--measurement', LD, '--id-key', 'id.pem', '--family-id', '01'],
      /--family-id: 1 bytes given, it has 16/,
    ],
    [['--measurement', LD, '--id-key', 'id.pem', '--image-id', ''], /--image-id/],
    [['--measurement', LD, '--id-key', 'id.pem', '--guest-svn', '-1'], /--guest-svn/],
    [['--measurement', LD, '--id-key', 'id.pem', '--block-file', '/nowhere/x'], /FILE_UNWRITABLE/],
    [['--id-key', 'id.pem'], /measurement/],
  ])('create %j is wrong usage', async (argv, message) => {
    const files = argv.map((word) => (/^[a-z0-9]+\.(pem|pub)$/.test(word) ? at(word) : word));
    const { code, stderr } = await idblock('create', ...files);
    expect(stderr).toMatch(message);
    expect(code).toBe(1);
  });
});

describe('softsnp idblock show', () => {
  it('shows block and auth, raw, in hex and in base64', async () => {
    await create(
      '--author-key',
      at('author.pem'),
      '--family-id',
      `aa${'00'.repeat(15)}`,
      '--guest-svn',
      '7',
      '--policy',
      '0xb0000',
      ...FILES(),
    );
    const raw = await idblock('show', at('block'), at('auth'), '--json');
    const digest = JSON.parse((await idblock('show', at('author.pub'), '--json')).stdout) as {
      key_digest: string;
    };
    expect(JSON.parse(raw.stdout)).toEqual({
      launch_digest: LD,
      family_id: `aa${'00'.repeat(15)}`,
      image_id: '00'.repeat(16),
      version: 1,
      guest_svn: 7,
      policy: '0xb0000 (smt, debug)',
      id_key_algo: 1,
      id_key_digest: KEY_DIGEST_OF_G,
      auth_key_algo: 1,
      author_key_digest: digest.key_digest,
    });
    writeFileSync(at('block.hex'), readFileSync(at('block')).toString('hex'));
    writeFileSync(at('auth.b64'), `${readFileSync(at('auth')).toString('base64')}\n`);
    expect((await idblock('show', at('block.hex'), at('auth.b64'), '--json')).stdout).toBe(raw.stdout);
  });

  it('shows the digest of a key, private or public', async () => {
    for (const key of ['id.pem', 'id.der', 'id8.der']) {
      expect((await idblock('show', at(key))).stdout).toBe(`key_digest          ${KEY_DIGEST_OF_G}\n`);
    }
  });

  it('says when a block carries no author key', async () => {
    await create(...FILES());
    expect((await idblock('show', at('auth'))).stdout).toMatch(/author_key_digest {3}none\n/);
  });

  it('refuses what is none of these', async () => {
    writeFileSync(at('other'), 'hello');
    const { code, stderr } = await idblock('show', at('other'));
    expect([code, stderr]).toEqual([1, expect.stringContaining('is no ID block (96 bytes)')]);
    expect((await idblock('show', at('p256.pem'))).code).toBe(1);
  });
});

describe('softsnp idblock check', () => {
  it('names what the firmware would find, and its status', async () => {
    await create(...FILES());
    const { code, stdout } = await idblock(
      'check',
      at('block'),
      at('auth'),
      '--measurement',
      '00'.repeat(48),
    );
    expect(code).toBe(2);
    expect(stdout).toMatch(/^ID_BLOCK_DIGEST_MISMATCH: .*\(SEV_RET_BAD_MEASUREMENT\)\n$/);
    const json = await idblock('check', at('block'), at('auth'), '--policy', '0x20000', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({
      ok: false,
      findings: [{ code: 'ID_BLOCK_POLICY_MISMATCH', status: 'SEV_RET_POLICY_FAILURE' }],
    });
  });

  it('refuses files of another size', async () => {
    await create(...FILES());
    const { code, stderr } = await idblock('check', at('auth'), at('block'));
    expect([code, stderr]).toEqual([1, expect.stringContaining('LAYOUT_LENGTH_MISMATCH')]);
    writeFileSync(at('other'), 'hello, world');
    expect((await idblock('check', at('other'), at('auth'))).stderr).toMatch(/neither raw bytes nor hex/);
  });
});
