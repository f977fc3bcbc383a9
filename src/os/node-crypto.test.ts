// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { equalBytes, fromHex, toHex, utf8 } from '../lib/bytes.ts';
import { nodeCrypto, seededRandom, systemRandom } from './node-crypto.ts';

/** Why the generator of the system gives nothing; null: it does. */
const entropy = vi.hoisted(() => ({ error: null as Error | null }));
vi.mock('node:crypto', async (original) => {
  const real = await original<typeof import('node:crypto')>();
  const randomBytes = (length: number): Buffer => {
    if (entropy.error !== null) {
      throw entropy.error;
    }
    return real.randomBytes(length);
  };
  return { ...real, randomBytes };
});

const scalar = fromHex(`${'00'.repeat(47)}07`);

describe('seededRandom', () => {
  it('repeats for the same seed, whatever the sizes asked, and differs for another', () => {
    const a = seededRandom(7);
    const b = seededRandom(7);
    const first = a.bytes(100);
    const pieces = Uint8Array.from([...b.bytes(1), ...b.bytes(33), ...b.bytes(66)]);
    expect(toHex(pieces)).toBe(toHex(first));
    expect(toHex(seededRandom(8).bytes(100))).not.toBe(toHex(first));
    expect(systemRandom.bytes(16)).toHaveLength(16);
  });
});

describe('systemRandom', () => {
  it('says that there is no entropy, and gives nothing instead', () => {
    entropy.error = Object.assign(new TypeError('no'), { code: 'ERR_OSSL_RAND_ERROR_RETRIEVING_ENTROPY' });
    expect(() => systemRandom.bytes(16)).toThrow(
      expect.objectContaining({
        code: 'ENTROPY_UNAVAILABLE',
        message: 'no random bytes: ERR_OSSL_RAND_ERROR_RETRIEVING_ENTROPY',
      }),
    );
    entropy.error = null;
    expect(systemRandom.bytes(16)).toHaveLength(16);
  });
});

describe.each([true, false])('nodeCrypto deterministic=%s', (deterministic) => {
  const crypto = nodeCrypto({ deterministic });

  it('signs what p384Verify accepts, and nothing else', () => {
    const key = crypto.p384Key(scalar);
    const signature = key.sign(utf8('report'));
    expect(crypto.p384Verify(key.publicPoint, utf8('report'), signature)).toBe(true);
    expect(crypto.p384Verify(key.publicPoint, utf8('Report'), signature)).toBe(false);
    expect(crypto.p384Verify(key.publicPoint.slice(1), utf8('report'), signature)).toBe(false);
    expect(equalBytes(key.sign(utf8('report')).r, signature.r)).toBe(deterministic);
  });

  it('opens what gcmSeal sealed and gives null for another tag, key or AAD', () => {
    const key = systemRandom.bytes(32);
    const nonce = systemRandom.bytes(12);
    const { ciphertext, tag } = crypto.gcmSeal(key, nonce, utf8('aad'), utf8('payload'));
    expect(crypto.gcmOpen(key, nonce, utf8('aad'), ciphertext, tag)).toEqual(utf8('payload'));
    expect(crypto.gcmOpen(key, nonce, utf8('aae'), ciphertext, tag)).toBeNull();
    tag[0]! ^= 1;
    expect(crypto.gcmOpen(key, nonce, utf8('aad'), ciphertext, tag)).toBeNull();
  });

  it('encrypts a page differently for each frame and key, and back', () => {
    const key = systemRandom.bytes(32);
    const page = new Uint8Array(4096).fill(0x5a);
    const at5 = crypto.memoryEncrypt(key, 5, page);
    expect(equalBytes(at5, crypto.memoryEncrypt(key, 6, page))).toBe(false);
    expect(equalBytes(crypto.memoryDecrypt(key, 5, at5), page)).toBe(true);
    expect(equalBytes(crypto.memoryDecrypt(systemRandom.bytes(32), 5, at5), page)).toBe(false);
  });

  it('hashes as node does', () => {
    expect(toHex(crypto.sha384(utf8('x')))).toBe(createHash('sha384').update('x').digest('hex'));
  });
});
