// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { utf8, writeU16, writeU32, writeU64 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { type CpuidOffsets, cpuidSites } from './cpuid-sites.ts';
import type { ByteSource } from './elf.ts';
import { cpuidDecoder } from './x86-decoder.ts';

/** The decoder; null where the optional library is not installed. */
function installed(): CpuidOffsets | null {
  try {
    return cpuidDecoder();
  } catch (error) {
    if (error instanceof EnvironmentError) {
      process.stderr.write(`SKIPPED: instruction boundaries: ${error.message}\n`);
      return null;
    }
    throw error;
  }
}
const decoder = installed();

/** Takes every pair of bytes for an instruction. */
const pairs: CpuidOffsets = (code) => Array.from({ length: code.length }, (_, i) => i);

const CPUID = [0x0f, 0xa2];
const RET = 0xc3;
/** mov eax, imm32 with the two bytes in the constant. */
const IN_CONSTANT = [0xb8, 0x90, 0x0f, 0xa2, 0x90];

const BASE = 0x40_0000;
const TEXT = BASE + 0x200;
const FRAME_HEADER = 0x800;
const FRAMES = 0x900;
const SYMBOLS = 0xc00;
const SECTIONS = 0xe00;
const FILE_SIZE = 0x1000;

interface Program {
  readonly code: readonly number[];
  /** Offset and length in the code of each function the unwind table tells; null for no table. */
  readonly unwind?: readonly (readonly [at: number, length: number])[] | null;
  readonly symbols?: readonly (readonly [at: number, length: number])[];
  /** Encoding of code pointers: relative and four bytes, or absolute and eight. */
  readonly encoding?: 0x1b | 0x00;
}

/** An executable of one segment with everything in it. */
function elf({ code, unwind = null, symbols = [], encoding = 0x1b }: Program): Uint8Array {
  const file = new Uint8Array(FILE_SIZE);
  file.set([0x7f, ...utf8('ELF'), 2, 1, 1]);
  writeU16(file, 16, 3);
  writeU16(file, 18, 62);
  writeU64(file, 24, BigInt(TEXT));
  writeU64(file, 32, 64n);
  writeU16(file, 54, 56);
  writeU16(file, 56, unwind === null ? 1 : 2);
  const header = (row: number, type: number, offset: number, size: number): void => {
    const at = 64 + 56 * row;
    writeU32(file, at, type);
    writeU32(file, at + 4, 5);
    writeU64(file, at + 8, BigInt(offset));
    writeU64(file, at + 16, BigInt(BASE + offset));
    writeU64(file, at + 32, BigInt(size));
  };
  header(0, 1, 0, FILE_SIZE);
  file.set(code, 0x200);
  if (unwind !== null) {
    header(1, 0x6474_e550, FRAME_HEADER, 12 + 8 * unwind.length);
    file.set([1, 0x1b, 0x03, 0x3b], FRAME_HEADER);
    writeU32(file, FRAME_HEADER + 8, unwind.length);
    // A common entry with the augmentation zPLR.
    file.set(
      [...[28, 0, 0, 0, 0, 0, 0, 0, 1], ...utf8('zPLR\0'), 1, 0x78, 16, 7, 0x9b, 1, 2, 3, 4, 0x1b, encoding],
      FRAMES,
    );
    unwind.forEach(([at, length], i) => {
      const frame = FRAMES + 32 + 32 * i;
      writeU32(file, FRAME_HEADER + 12 + 8 * i, 0x200 + at - FRAME_HEADER);
      writeU32(file, FRAME_HEADER + 16 + 8 * i, frame - FRAME_HEADER);
      writeU32(file, frame, 28);
      writeU32(file, frame + 4, frame + 4 - FRAMES);
      if (encoding === 0x1b) {
        writeU32(file, frame + 12, length);
      } else {
        writeU64(file, frame + 16, BigInt(length));
      }
    });
  }
  if (symbols.length > 0) {
    writeU64(file, 40, BigInt(SECTIONS));
    writeU16(file, 58, 64);
    writeU16(file, 60, 1);
    writeU32(file, SECTIONS + 4, 2);
    writeU64(file, SECTIONS + 24, BigInt(SYMBOLS));
    writeU64(file, SECTIONS + 32, BigInt(24 * symbols.length));
    symbols.forEach(([at, length], i) => {
      const row = SYMBOLS + 24 * i;
      file[row + 4] = 2;
      writeU16(file, row + 6, 1);
      writeU64(file, row + 8, BigInt(TEXT + at));
      writeU64(file, row + 16, BigInt(length));
    });
  }
  return file;
}

const sourceOf = (file: Uint8Array): ByteSource => ({
  read: async (at, length) => file.slice(at, at + length),
});
const sitesIn = async (program: Program, offsets = decoder!) => {
  const told = await cpuidSites(sourceOf(elf(program)), offsets);
  return { sites: told!.sites.map((site) => site - TEXT), untold: told!.untold };
};

describe.skipIf(decoder === null)('the CPUID instructions of a program', () => {
  it('are those where an instruction begins, not the same bytes in a constant', async () => {
    const code = [...IN_CONSTANT, ...CPUID, ...IN_CONSTANT, RET];
    expect(await sitesIn({ code, unwind: [[0, code.length]] })).toEqual({ sites: [5], untold: null });
  });

  it('are found in several functions, and not in what lies between them', async () => {
    // Between the two a table whose first byte would swallow what comes next.
    const code = [...CPUID, RET, 0xb8, ...CPUID, 0x53, ...CPUID, ...CPUID, RET];
    const unwind = [
      [0, 3],
      [6, 6],
    ] as const;
    expect(await sitesIn({ code, unwind })).toEqual({ sites: [0, 7, 9], untold: null });
  });

  it.each([0x1b, 0x00] as const)('are found with code pointers encoded as %i', async (encoding) => {
    const code = [...IN_CONSTANT, ...CPUID, RET];
    expect((await sitesIn({ code, encoding, unwind: [[0, code.length]] })).sites).toEqual([5]);
  });

  it('are found by symbols where no unwind table tells of the function', async () => {
    const code = [...CPUID, RET, ...IN_CONSTANT, ...CPUID, RET];
    const symbols = [[3, 8]] as const;
    expect((await sitesIn({ code, symbols })).sites).toEqual([8]);
    expect((await sitesIn({ code, symbols, unwind: [[0, 3]] })).sites).toEqual([0, 8]);
  });

  it('are left alone behind bytes that are no instruction, and with a prefix', async () => {
    // 06 was push es, which 64-bit code does not have.
    const code = [0x06, ...CPUID, RET, 0x48, ...CPUID, RET];
    const unwind = [
      [0, 4],
      [4, 4],
    ] as const;
    expect((await sitesIn({ code, unwind })).sites).toEqual([]);
  });

  it('cannot be told without any table of functions, which matters only where the bytes occur', async () => {
    const untold = 'it has no table of its functions';
    expect(await sitesIn({ code: [...CPUID, RET] })).toEqual({ sites: [], untold });
    expect(await sitesIn({ code: [RET] })).toEqual({ sites: [], untold: null });
  });

  it('are not looked for in what is no program of this processor', async () => {
    expect(await cpuidSites(sourceOf(utf8('#!/bin/sh\n')), decoder!)).toBeNull();
    const other = elf({ code: [...CPUID, RET], unwind: [[0, 3]] });
    other[18] = 183;
    expect(await cpuidSites(sourceOf(other), decoder!)).toBeNull();
  });
});

describe('a hostile program file', () => {
  const code = [...CPUID, ...IN_CONSTANT, RET];
  const good = elf({ code, unwind: [[0, code.length]], symbols: [[0, code.length]] });
  /** Bytes that say something: headers, tables, code. */
  const telling = [...good.keys()].filter((at) => good[at] !== 0);

  it('never makes the search fail, whatever its numbers say', async () => {
    const change = fc.tuple(
      fc.oneof(fc.constantFrom(...telling), fc.nat(SECTIONS + 64)),
      fc.integer({ min: 0, max: 255 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), async (changes) => {
        const file = good.slice();
        for (const [at, value] of changes) {
          file[at] = value;
        }
        const told = await cpuidSites(sourceOf(file), pairs);
        for (const site of told?.sites ?? []) {
          expect(Number.isSafeInteger(site)).toBe(true);
        }
      }),
    );
  });

  it('may end anywhere', async () => {
    for (let length = 0; length < good.length; length += 7) {
      await cpuidSites(sourceOf(good.slice(0, length)), pairs);
    }
  });

  it('cannot ask for more than there is to read', async () => {
    const file = good.slice();
    writeU64(file, 64 + 32, 1n << 40n);
    expect(await cpuidSites(sourceOf(file), pairs)).toMatchObject({ sites: [], untold: 'it is too large' });
  });
});
