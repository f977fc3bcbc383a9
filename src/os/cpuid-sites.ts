// SPDX-License-Identifier: Apache-2.0
/**
 * Where in a program its CPUID instructions are.
 *
 * The two bytes 0F A2 are CPUID only where an instruction begins: inside a constant or a table they are
 * something else. A candidate counts when the instructions of the function it lies in, read one after the
 * other from the function's first, arrive exactly at it.
 */
import {
  type ByteSource,
  type CodeRange,
  type Executable,
  type FindFunction,
  readExecutable,
  readLoaded,
  symbolFunctions,
  unwindFunctions,
} from './elf.ts';

/** The offsets of the CPUID instructions in code that begins with an instruction, as far as it can be read. */
export type CpuidOffsets = (code: Uint8Array) => readonly number[];

export interface CpuidSites {
  readonly entry: number;
  /** Addresses before the program is moved to where it is loaded. */
  readonly sites: readonly number[];
  /** Why there may be others; null when these are all. */
  readonly untold: string | null;
}

export const CPUID_SIZE = 2;

const CHUNK_BYTES = 4 << 20;
const MAX_CODE_BYTES = 1 << 30;
const MAX_CANDIDATES = 1 << 16;
/** Of one function; those that compilers make are shorter by far. */
const MAX_FUNCTION_BYTES = 1 << 20;
/** Of all functions with a candidate in them. */
const MAX_DECODED_BYTES = 64 << 20;

/** Returns  null for a file that is no x86-64 executable */
export async function cpuidSites(source: ByteSource, offsets: CpuidOffsets): Promise<CpuidSites | null> {
  const executable = await readExecutable(source);
  if (executable === null) {
    return null;
  }
  const candidates = await findCandidates(source, executable);
  if (candidates === null) {
    return { entry: executable.entry, sites: [], untold: 'it is too large' };
  }
  const functions = await functionsWith(source, executable, candidates);
  if (functions === null) {
    return { entry: executable.entry, sites: [], untold: 'it has no table of its functions' };
  }
  const wanted = new Set(candidates);
  const sites: number[] = [];
  let budget = MAX_DECODED_BYTES;
  for (const { from, end } of functions) {
    budget -= end - from;
    if (budget < 0) {
      return { entry: executable.entry, sites, untold: 'it is too large' };
    }
    const code = await readLoaded(source, executable, from, end - from);
    for (const offset of code === null ? [] : offsets(code)) {
      if (wanted.has(from + offset)) {
        sites.push(from + offset);
      }
    }
  }
  return { entry: executable.entry, sites, untold: null };
}

/** Addresses of the two bytes in code; null when there is more than a program has. */
async function findCandidates(
  source: ByteSource,
  { segments }: Executable,
): Promise<readonly number[] | null> {
  const found: number[] = [];
  const code = segments.filter(({ executable }) => executable);
  if (code.reduce((sum, { size }) => sum + size, 0) > MAX_CODE_BYTES) {
    return null;
  }
  for (const { offset, address, size } of code) {
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      // One byte more, for a pair that lies across the boundary.
      const chunk = await source.read(offset + at, Math.min(CHUNK_BYTES + 1, size - at));
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
      for (let hit = bytes.indexOf('0fa2', 0, 'hex'); hit >= 0; hit = bytes.indexOf('0fa2', hit + 1, 'hex')) {
        found.push(address + at + hit);
      }
      if (found.length > MAX_CANDIDATES) {
        return null;
      }
      if (chunk.length < Math.min(CHUNK_BYTES, size - at)) {
        break;
      }
    }
  }
  return found;
}

/**
 * The functions that candidates lie in, each cut off after its last one.
 *
 * Returns  null when there are candidates and nothing that says where functions are
 */
async function functionsWith(
  source: ByteSource,
  executable: Executable,
  candidates: readonly number[],
): Promise<readonly CodeRange[] | null> {
  if (candidates.length === 0) {
    return [];
  }
  const unwind = await unwindFunctions(source, executable);
  let symbols: FindFunction | null | undefined;
  const ranges = new Map<number, CodeRange>();
  for (const address of candidates) {
    let range = (await unwind?.(address)) ?? null;
    if (range === null) {
      // Assembly and Go have symbols at best.
      symbols = symbols === undefined ? await symbolFunctions(source, executable) : symbols;
      range = (await symbols?.(address)) ?? null;
    }
    const end = address + CPUID_SIZE;
    if (range !== null && end <= range.end && end - range.from <= MAX_FUNCTION_BYTES) {
      ranges.set(range.from, { from: range.from, end });
    }
  }
  return unwind === null && symbols == null ? null : [...ranges.values()];
}
