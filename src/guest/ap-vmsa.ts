// SPDX-License-Identifier: Apache-2.0
/** The save area Linux builds for an application processor: the INIT state of the APM, started like a SIPI. */
import { Vmsa, type VmsaSegment } from '../abi/vmsa.ts';
import type { DecodedOf } from '../lib/struct.ts';

/** Where application processors start: the real-mode trampoline, page aligned and below 640 KiB. */
export const TRAMPOLINE_START_IP = 0x9_8000;

const segment = (attrib: number): DecodedOf<typeof VmsaSegment> => ({
  selector: 0,
  attrib,
  limit: 0xffff,
  base: 0n,
});

/**
 * A VMSA page for SNP AP creation.
 *
 * Shape    cr4 of the caller; only MCE of it is kept
 * Source   [LINUX] arch/x86/coco/sev/core.c wakeup_cpu_via_vmgexit; asm/svm.h AP_INIT_*
 */
export function apVmsa(startIp: number, cr4: bigint, vmpl: number, sevFeatures: bigint): Uint8Array {
  const data = segment(0x92);
  const vector = startIp >>> 12;
  return Vmsa.encode({
    es: data,
    cs: { selector: (vector << 8) & 0xffff, attrib: 0x9a, limit: 0xffff, base: BigInt(vector << 12) },
    ss: data,
    ds: data,
    fs: data,
    gs: data,
    gdtr: segment(0),
    ldtr: segment(0x82),
    idtr: segment(0),
    tr: segment(0x83),
    vmpl,
    efer: 0x1000n,
    cr4: cr4 & 0x40n,
    cr0: 0x6000_0010n,
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: BigInt(startIp & 0xfff),
    g_pat: 0x0007_0406_0007_0406n,
    xcr0: 1n,
    mxcsr: 0x1f80,
    x87_ftw: 0x5555,
    x87_fcw: 0x0040,
    sev_features: sevFeatures,
  });
}

/** Linear address at which a save area starts executing. */
export function entryPoint(vmsa: Uint8Array): number {
  return Number(Vmsa.get(vmsa, 'cs').base + Vmsa.get(vmsa, 'rip'));
}
