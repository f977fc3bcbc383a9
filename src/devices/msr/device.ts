// SPDX-License-Identifier: Apache-2.0
/**
 * The msr driver: registers of one CPU, eight bytes each, read at the offset that is their number.
 *
 * Source   [DEVICES] "Other things the clients touch"; [LINUX] arch/x86/kernel/msr.c
 */
import { Errno } from '../../abi/errno.ts';
import { Msr, SyscfgMsr } from '../../abi/msrs.ts';
import { writeU64 } from '../../lib/bytes.ts';
import { type Refusal, refuse } from '../fuse/filesystem.ts';

/** Registers that exist, by number. */
export type Msrs = ReadonlyMap<number, bigint>;

/**
 * read(2) at an offset.
 *
 * Returns  the register as often as it fits; EINVAL for a size that is no multiple of 8; EIO, the general
 *          protection fault of RDMSR, for a register that does not exist
 */
export function readMsr(msrs: Msrs, offset: number, size: number): Uint8Array | Refusal {
  if (size % 8 !== 0) {
    return refuse(Errno.EINVAL);
  }
  const bytes = new Uint8Array(size);
  // ECX has 32 bits; the driver does not look at the rest of the offset either.
  const value = msrs.get(offset % 2 ** 32);
  if (value === undefined && size > 0) {
    return refuse(Errno.EIO);
  }
  for (let at = 0; at < size; at += 8) {
    writeU64(bytes, at, value!);
  }
  return bytes;
}

/** SEV_STATUS of a guest with these VMSA `sev_features`, of which bit 0 is SNP. */
export function guestMsrs(sevFeatures: bigint): Msrs {
  const sevAndEs = 0b11n;
  return new Map([[Msr.MSR_AMD64_SEV, (sevFeatures << 2n) | sevAndEs]]);
}

/** The RMP keeps 16 KiB for the processor, then 16 bytes for each 4 KiB page. */
const RMP_BOOKKEEPING_BYTES = 0x4000n;
const RMP_ALIGN = 1n << 20n;

/**
 * What a host shows whose firmware has set SNP up.
 *
 * Units    memoryBytes: physical memory, at the end of which the RMP lies
 * Differs  the model keeps its RMP outside physical memory: the range only looks like one
 */
export function hostMsrs(memoryBytes: bigint): Msrs {
  const size = RMP_BOOKKEEPING_BYTES + memoryBytes / 256n;
  const base = ((memoryBytes - size) / RMP_ALIGN) * RMP_ALIGN;
  return new Map([
    [Msr.MSR_AMD64_SYSCFG, SyscfgMsr.toWord({ mfdm: 1, sme_en: 1, snp_en: 1, snp_vmpl_en: 1 })],
    [Msr.MSR_AMD64_RMP_BASE, base],
    [Msr.MSR_AMD64_RMP_END, base + size - 1n],
  ]);
}
