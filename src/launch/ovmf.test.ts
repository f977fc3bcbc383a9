// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeU16, writeU32 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { defaultImage } from './default-image.ts';
import { efiGuidBytes, efiGuidText } from './guid.ts';
import { apResetEip, hashTableGpa, OvmfGuid, ovmfGpa, parseOvmf } from './ovmf.ts';

const SIZE = defaultImage().length;
const METADATA = SIZE - 4096;
const FOOTER = SIZE - 50;

/** Where the data of a footer entry begins. */
function entryAt(image: Uint8Array, guid: string): number {
  const wanted = efiGuidBytes(guid);
  for (let at = image.length - 400; at < image.length; at++) {
    if (wanted.every((byte, i) => image[at + i] === byte)) {
      return at - 2;
    }
  }
  throw new Error(`${guid} is not in the image`);
}

const broken = (change: (image: Uint8Array) => void): Uint8Array => {
  const image = defaultImage();
  change(image);
  return image;
};
const refusal = (code: string, message: RegExp): unknown =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe('GUIDs in EFI byte order', () => {
  it('swap the first three groups and keep the last eight bytes', () => {
    const bytes = efiGuidBytes('00112233-4455-6677-8899-aabbccddeeff');
    expect([...bytes]).toEqual([
      0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ]);
    expect(efiGuidText(bytes)).toBe('00112233-4455-6677-8899-aabbccddeeff');
  });
});

describe('a firmware image', () => {
  it('ends at 4 GiB, or where the caller says', () => {
    const image = parseOvmf(defaultImage());
    expect(ovmfGpa(image)).toBe(0xffff_0000n);
    expect(ovmfGpa(image, 0x8000_0000n)).toBe(0x7fff_0000n);
  });

  it('without a footer table has no table and no sections', () => {
    for (const bytes of [new Uint8Array(0), new Uint8Array(49), new Uint8Array(4096)]) {
      const image = parseOvmf(bytes);
      expect(image.table).toBeNull();
      expect(image.sections).toBeNull();
      expect(hashTableGpa(image)).toBeNull();
      expect(() => apResetEip(image)).toThrow(refusal('OVMF_RESET_BLOCK_MISSING', /no GUIDed table/));
    }
  });

  it('without a metadata entry has a table and no sections', () => {
    const image = parseOvmf(
      broken((b) => {
        const at = entryAt(b, OvmfGuid.SEV_METADATA);
        b.fill(0, at + 2, at + 18);
      }),
    );
    expect(image.table).not.toBeNull();
    expect(image.sections).toBeNull();
  });

  it('without a reset block says so', () => {
    const image = parseOvmf(broken((b) => b.fill(0, entryAt(b, OvmfGuid.SEV_ES_RESET_BLOCK) + 2, FOOTER)));
    expect(() => apResetEip(image)).toThrow(refusal('OVMF_RESET_BLOCK_MISSING', /no SEV-ES reset block/));
  });

  it('with a hash table at address 0 does not check kernel hashes', () => {
    const image = parseOvmf(broken((b) => writeU32(b, entryAt(b, OvmfGuid.SEV_HASH_TABLE) - 8, 0)));
    expect(hashTableGpa(image)).toBeNull();
  });

  it('too large to lie below 4 GiB is refused', () => {
    const huge = Object.defineProperty(new Uint8Array(0), 'length', { value: 2 ** 28 + 4096 });
    expect(() => parseOvmf(huge)).toThrow(refusal('OVMF_TOO_LARGE', /268439552 bytes/));
  });

  it.each<[string, string, RegExp, (b: Uint8Array) => void]>([
    [
      'a footer shorter than its header',
      'OVMF_TABLE_INVALID',
      /claims -1 bytes/,
      (b) => writeU16(b, FOOTER, 17),
    ],
    [
      'a footer table longer than the file',
      'OVMF_TABLE_INVALID',
      /claims 65517 bytes, 65486 lie before it/,
      (b) => writeU16(b, FOOTER, 0xffff),
    ],
    [
      'an entry shorter than its header',
      'OVMF_TABLE_INVALID',
      /00f771de.* claims 17 bytes/,
      (b) => writeU16(b, entryAt(b, OvmfGuid.SEV_ES_RESET_BLOCK), 17),
    ],
    [
      'an entry longer than the table',
      'OVMF_TABLE_INVALID',
      /00f771de.* claims 300 bytes/,
      (b) => writeU16(b, entryAt(b, OvmfGuid.SEV_ES_RESET_BLOCK), 300),
    ],
    [
      'metadata before the file',
      'OVMF_METADATA_INVALID',
      /65552 bytes before the end is outside/,
      (b) => writeU32(b, entryAt(b, OvmfGuid.SEV_METADATA) - 4, SIZE + 16),
    ],
    [
      'metadata behind the file',
      'OVMF_METADATA_INVALID',
      /15 bytes before the end is outside/,
      (b) => writeU32(b, entryAt(b, OvmfGuid.SEV_METADATA) - 4, 15),
    ],
    [
      'metadata with another signature',
      'OVMF_METADATA_INVALID',
      /"ASEV"/,
      (b) => writeU32(b, METADATA, 0x5a5a5a5a),
    ],
    [
      'metadata of another version',
      'OVMF_METADATA_INVALID',
      /version 2/,
      (b) => writeU32(b, METADATA + 8, 2),
    ],
    [
      'metadata with more descriptors than its size',
      'OVMF_METADATA_INVALID',
      /4294967295 SEV metadata descriptors/,
      (b) => writeU32(b, METADATA + 12, 0xffff_ffff),
    ],
    [
      'metadata larger than what follows it',
      'OVMF_METADATA_INVALID',
      /do not fit 4097 bytes/,
      (b) => writeU32(b, METADATA + 4, 4097),
    ],
    [
      'sections of more than 1 GiB',
      'OVMF_TOO_LARGE',
      /more than 1 GiB/,
      (b) => writeU32(b, METADATA + 16 + 4, 0x4000_0000),
    ],
  ])('with %s is refused as %s', (_, code, message, change) => {
    expect(() => parseOvmf(broken(change))).toThrow(refusal(code, message));
  });

  it('with any bytes changed near its end parses or is refused, and nothing else', () => {
    const at = fc.integer({ min: METADATA, max: SIZE - 1 });
    const changes = fc.array(fc.tuple(at, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(changes, (edits) => {
        const image = broken((b) => {
          for (const [offset, value] of edits) {
            b[offset] = value;
          }
        });
        try {
          const { sections } = parseOvmf(image);
          expect(sections === null || sections.length <= 340).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('of any random bytes behind a valid footer parses or is refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 50, maxLength: 400 }), (bytes) => {
        bytes.set(efiGuidBytes(OvmfGuid.TABLE_FOOTER), bytes.length - 48);
        try {
          parseOvmf(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
