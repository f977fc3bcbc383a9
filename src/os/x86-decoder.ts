// SPDX-License-Identifier: Apache-2.0
/** Instruction boundaries by iced-x86: an optional dependency, loaded when somebody asks for CPUID. */
import { createRequire } from 'node:module';
import { EnvironmentError } from '../lib/errors.ts';
import { CPUID_SIZE, type CpuidOffsets } from './cpuid-sites.ts';

/**
 * Reads instructions from the first byte on, up to one that is none.
 *
 * Errors   CPUID_UNAVAILABLE without the library
 */
export function cpuidDecoder(): CpuidOffsets {
  const { Code, Decoder, DecoderOptions, Instruction } = loadIced();
  const instruction = new Instruction();
  return (code) => {
    const decoder = new Decoder(64, code, DecoderOptions.None);
    try {
      const found: number[] = [];
      while (decoder.canDecode) {
        const at = decoder.position;
        decoder.decodeOut(instruction);
        if (instruction.code === Code.INVALID) {
          break;
        }
        // With a prefix it would not begin where its two bytes do; no compiler writes one.
        if (instruction.code === Code.Cpuid && decoder.position - at === CPUID_SIZE) {
          found.push(at);
        }
      }
      return found;
    } finally {
      decoder.free();
    }
  };
}

function loadIced(): typeof import('iced-x86') {
  try {
    return createRequire(import.meta.url)('iced-x86') as typeof import('iced-x86');
  } catch (cause) {
    throw new EnvironmentError('CPUID_UNAVAILABLE', 'iced-x86 cannot be loaded', { cause });
  }
}
