// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { Msr, SevStatusMsr, SyscfgMsr } from '../../abi/msrs.ts';
import { concat, readU64 } from '../../lib/bytes.ts';
import { TestFile } from '../testing.ts';
import { guestMsrs, hostMsrs, type Msrs, readMsr } from './device.ts';
import { msrFile, msrPlaces } from './files.ts';

const value = (msrs: Msrs, msr: number): bigint => readU64(readMsr(msrs, msr, 8) as Uint8Array, 0);

describe('registers', () => {
  it('SEV_STATUS has SEV, SEV-ES and the features of the VMSA two bits further up', () => {
    const status = SevStatusMsr.fromWord(value(guestMsrs(0x21n), Msr.MSR_AMD64_SEV));
    expect(status).toMatchObject({ sev: 1, sev_es: 1, sev_snp: 1, vtom: 0, debug_swap: 1 });
  });

  it('SYSCFG has SME and SNP, RMP base and end are a range within memory that holds 16 bytes a page', () => {
    for (const memory of [1n << 34n, 1n << 42n, 0x12_3456_7000n]) {
      const msrs = hostMsrs(memory);
      expect(SyscfgMsr.fromWord(value(msrs, Msr.MSR_AMD64_SYSCFG))).toMatchObject({ sme_en: 1, snp_en: 1 });
      const base = value(msrs, Msr.MSR_AMD64_RMP_BASE);
      const end = value(msrs, Msr.MSR_AMD64_RMP_END);
      expect(base % 0x10_0000n).toBe(0n);
      expect(end - base + 1n).toBe(0x4000n + memory / 256n);
      expect(end < memory).toBe(true);
    }
  });
});

describe('the file', () => {
  const msrs = new Map([[0x10, 0x1122_3344_5566_7788n]]);
  const bytes = Uint8Array.of(0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11);

  it('gives eight bytes for each eight that are read, of the register at the offset', () => {
    expect(readMsr(msrs, 0x10, 8)).toEqual(bytes);
    expect(readMsr(msrs, 0x10, 16)).toEqual(concat(bytes, bytes));
    expect(readMsr(msrs, 2 ** 32 + 0x10, 8)).toEqual(bytes);
    expect(readMsr(msrs, 0x11, 0)).toEqual(new Uint8Array(0));
  });

  it('answers EINVAL for a size that is no multiple of 8 and EIO for a register that does not exist', () => {
    expect(readMsr(msrs, 0x10, 7)).toEqual({ errno: Errno.EINVAL });
    expect(readMsr(msrs, 0x11, 8)).toEqual({ errno: Errno.EIO });
  });

  it('refuses to be written', async () => {
    const file = (await TestFile.open(msrFile(msrs), 2)) as TestFile;
    expect(await file.write(bytes)).toBe(-Errno.EPERM);
  });

  it('shows the registers of host and guest in one place', async () => {
    const node = msrPlaces(guestMsrs(1n), hostMsrs(1n << 40n))['/dev/cpu/0/msr'];
    const file = (await TestFile.open(node as never, 0)) as TestFile;
    for (const msr of [Msr.MSR_AMD64_SEV, Msr.MSR_AMD64_SYSCFG, Msr.MSR_AMD64_RMP_BASE]) {
      expect(await file.handle.read!(msr, 8, { uid: 0, gid: 0, pid: 1 })).toHaveLength(8);
    }
  });
});
