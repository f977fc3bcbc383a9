// SPDX-License-Identifier: Apache-2.0
/** Code tables, protocol words and in-place accessors against the values the specifications print. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  cpuidFms,
  decodeTcb,
  EVENTINJ_GP,
  EventInj,
  encodeTcb,
  errnoName,
  formatTcb,
  fromCpuidFms,
  GHCB_HV_FT_SUPPORTED,
  GHCB_MSR_CPUID_RESP,
  GHCB_MSR_GFN_NONE,
  GHCB_MSR_HV_FT_REQ,
  GHCB_MSR_PSC_RESP_GENERIC,
  GHCB_VALID_BITMAP_OFFSET,
  GhcbCpuidReg,
  GhcbExit,
  type GhcbField,
  GhcbMsrPscReq,
  GhcbMsrTermReq,
  GhcbOffset,
  ghcbClearValid,
  ghcbExitName,
  ghcbFieldIsValid,
  ghcbGet,
  ghcbMarkValid,
  ghcbMsrApResetHoldResp,
  ghcbMsrCode,
  ghcbMsrCpuidReq,
  ghcbMsrCpuidResp,
  ghcbMsrHvFtReq,
  ghcbMsrHvFtResp,
  ghcbMsrPrefGpaResp,
  ghcbMsrPscReq,
  ghcbMsrPscResp,
  ghcbMsrRegGpaReq,
  ghcbMsrRegGpaResp,
  ghcbMsrSevInfoResp,
  ghcbMsrTermReq,
  ghcbPut,
  kvmExitName,
  kvmIoctlName,
  kvmSevCmdName,
  PscEntry,
  parseTcbText,
  productOfCpuid,
  pscCurEntry,
  pscEndEntry,
  pscEntryAt,
  pscEntryCurPage,
  pscEntryGfn,
  pscEntryOperation,
  pscEntryPagesize,
  pscSetCurEntry,
  pscSetEntryCurPage,
  pscWriteEntry,
  pscWriteHeader,
  SEV_RET_NO_FW_CALL,
  SEV_RET_TABLE,
  SnpGuestVmmErr,
  sevCmdName,
  sevRetName,
  snpGuestErr,
  snpGuestFwErr,
  snpGuestVmmErr,
  type TcbParts,
  tcbAtMost,
  tcbReservedIsZero,
  terminationName,
  VMGEXIT_PSC_MAX_ENTRY,
} from '../../src/abi/index.ts';
import { readU64 } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';

describe('GHCB valid bitmap', () => {
  /** [GHCB] "GHCB Layout", column of the valid bits. */
  const BITS: Readonly<Record<GhcbField, number>> = {
    cpl: 25,
    xss: 40,
    dr7: 44,
    rip: 47,
    rsp: 59,
    rax: 63,
    rcx: 97,
    rdx: 98,
    rbx: 99,
    rbp: 101,
    rsi: 102,
    rdi: 103,
    r8: 104,
    r9: 105,
    r10: 106,
    r11: 107,
    r12: 108,
    r13: 109,
    r14: 110,
    r15: 111,
    sw_exit_code: 114,
    sw_exit_info_1: 115,
    sw_exit_info_2: 116,
    sw_scratch: 117,
    xcr0: 125,
  };

  it.each(Object.entries(BITS) as [GhcbField, number][])('has %s at bit %i and no other', (field, bit) => {
    const bitmap = new Uint8Array(16);
    ghcbMarkValid(bitmap, field);
    expect(readU64(bitmap, 0) | (readU64(bitmap, 8) << 64n)).toBe(1n << BigInt(bit));
    for (const other of Object.keys(GhcbOffset) as GhcbField[]) {
      expect(ghcbFieldIsValid(bitmap, other)).toBe(other === field);
    }
    ghcbClearValid(bitmap);
    expect(bitmap.every((byte) => byte === 0)).toBe(true);
  });

  it('is set by a write in place, and only its 16 bytes are cleared', () => {
    const page = new Uint8Array(4096);
    ghcbPut(page, 'rbx', 0x1122334455667788n);
    expect(ghcbGet(page, 'rbx')).toBe(0x1122334455667788n);
    expect(page[0x318]).toBe(0x88);
    expect(ghcbFieldIsValid(page, 'rbx', GHCB_VALID_BITMAP_OFFSET)).toBe(true);
    expect(ghcbFieldIsValid(page, 'rax', GHCB_VALID_BITMAP_OFFSET)).toBe(false);
    page[0x3ef] = page[0x400] = 0xee;
    ghcbClearValid(page, GHCB_VALID_BITMAP_OFFSET);
    expect(ghcbFieldIsValid(page, 'rbx', GHCB_VALID_BITMAP_OFFSET)).toBe(false);
    expect([page[0x3ef], page[0x400], ghcbGet(page, 'rbx')]).toEqual([0xee, 0xee, 0x1122334455667788n]);
  });
});

describe('SW_EXITINFO2 of a guest request', () => {
  it.each([
    [SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN, 0, 0x1_0000_0000n],
    [SnpGuestVmmErr.SNP_GUEST_VMM_ERR_BUSY, 0, 0x2_0000_0000n],
    [SnpGuestVmmErr.SNP_GUEST_VMM_ERR_GENERIC, 0, 0xffffffff_0000_0000n],
    [SnpGuestVmmErr.SNP_GUEST_VMM_ERR_NONE, 0x16, 0x16n],
    [0, SEV_RET_NO_FW_CALL, 0xffffffffn],
  ])('joins VMM error %i and firmware status %i to %i', (vmm, fw, word) => {
    expect(snpGuestErr(vmm, fw)).toBe(word);
    expect([snpGuestVmmErr(word), snpGuestFwErr(word)]).toEqual([vmm, fw]);
  });

  it('of a failed MSR access is a #GP without an error code', () => {
    expect(EventInj.fromWord(EVENTINJ_GP)).toEqual({
      vector: 13,
      type: 3,
      error_code_valid: 0,
      valid: 1,
      error_code: 0,
    });
  });
});

describe('GHCB MSR protocol', () => {
  it('has the values KVM answers with', () => {
    expect(ghcbMsrSevInfoResp(2, 1, 51)).toBe(0x0002000133000001n);
    expect(ghcbMsrSevInfoResp(1, 1, 51)).toBe(0x0001000133000001n);
    expect(ghcbMsrPrefGpaResp(GHCB_MSR_GFN_NONE)).toBe(0xfffffffffffff011n);
    expect(ghcbMsrHvFtResp(GHCB_HV_FT_SUPPORTED)).toBe(0x3081n);
    expect(ghcbMsrPscResp(0)).toBe(0x15n);
    expect(ghcbMsrPscResp(GHCB_MSR_PSC_RESP_GENERIC)).toBe(0x8000000000000015n);
    expect(ghcbMsrRegGpaReq(0x12345)).toBe(0x12345012n);
    expect(ghcbMsrRegGpaResp(0x12345)).toBe(0x12345013n);
    expect(ghcbMsrApResetHoldResp(1)).toBe(0x1007n);
    expect(ghcbMsrCode(ghcbMsrHvFtReq())).toBe(GHCB_MSR_HV_FT_REQ);
  });

  it('keeps bits 31:12 of a CPUID request in its answer', () => {
    const request = ghcbMsrCpuidReq(0x8000001f, GhcbCpuidReg.GHCB_CPUID_REQ_EBX) | 0x5000n;
    const response = ghcbMsrCpuidResp(request, 0xdeadbeef);
    expect(request).toBe(0x8000001f40005004n);
    expect(response).toBe(0xdeadbeef40005005n);
    expect(ghcbMsrCode(response)).toBe(GHCB_MSR_CPUID_RESP);
  });

  it('carries a GFN of 40 bits and the operation in a page state change', () => {
    expect(ghcbMsrPscReq(0xffffffffff, 2)).toBe(0x002ffffffffff014n);
    expect(GhcbMsrPscReq.fromWord(0x0010000000abc014n)).toEqual({ code: 0x14, gfn: 0xabc, operation: 1 });
  });

  it.each([
    [0, 0, 0x100n, '0:0 GHCB_SEV_ES_GEN_REQ'],
    [0, 1, 0x10100n, '0:1 GHCB_SEV_ES_PROT_UNSUPPORTED'],
    [0, 2, 0x20100n, '0:2 GHCB_SNP_UNSUPPORTED'],
    [1, 0, 0x1100n, '1:0 GHCB_TERM_REGISTER'],
    [1, 1, 0x11100n, '1:1 GHCB_TERM_PSC'],
    [1, 2, 0x21100n, '1:2 GHCB_TERM_PVALIDATE'],
    [1, 99, 0x631100n, '1:99'],
    [7, 3, 0x37100n, '7:3'],
  ])('terminates with set %i, code %i', (set, code, word, name) => {
    expect(ghcbMsrTermReq(set, code)).toBe(word);
    expect(GhcbMsrTermReq.fromWord(word)).toMatchObject({ reason_set: set, reason_code: code });
    expect(terminationName(set, code)).toBe(name);
  });
});

describe('page state change buffer', () => {
  const entry = fc.record({
    cur_page: fc.nat({ max: 0xfff }),
    gfn: fc.nat({ max: 2 ** 40 - 1 }),
    operation: fc.nat({ max: 15 }),
    pagesize: fc.constantFrom(0 as const, 1 as const),
  });

  it('is read and written in place exactly as PscEntry declares it', () => {
    fc.assert(
      fc.property(entry, fc.nat({ max: 8 }), (value, at) => {
        const buffer = new Uint8Array(24);
        pscWriteEntry(buffer, at, value.gfn, value.operation, value.pagesize);
        expect(PscEntry.read(buffer, at)).toEqual({ ...value, cur_page: 0 });
        pscSetEntryCurPage(buffer, at, value.cur_page);
        expect(PscEntry.read(buffer, at)).toEqual(value);
        expect(pscEntryCurPage(buffer, at)).toBe(value.cur_page);
        expect(pscEntryGfn(buffer, at)).toBe(value.gfn);
        expect(pscEntryOperation(buffer, at)).toBe(value.operation);
        expect(pscEntryPagesize(buffer, at)).toBe(value.pagesize);
        expect(buffer.every((byte, i) => byte === 0 || (i >= at && i < at + 8))).toBe(true);
      }),
    );
  });

  it('has a header of two indices and room for 253 entries in the shared buffer', () => {
    const buffer = new Uint8Array(16).fill(0xff);
    pscWriteHeader(buffer, 0, 3, 252);
    expect([pscCurEntry(buffer, 0), pscEndEntry(buffer, 0)]).toEqual([3, 252]);
    pscSetCurEntry(buffer, 0, 4);
    expect([...buffer.subarray(0, 9)]).toEqual([4, 0, 252, 0, 0, 0, 0, 0, 0xff]);
    expect(pscEntryAt(0x800, VMGEXIT_PSC_MAX_ENTRY)).toBe(0xff0);
  });
});

describe('CPUID Fn0000_0001_EAX', () => {
  it.each([
    [0x19, 0x01, 1, 0x00a00f11, 'Milan'],
    [0x19, 0x11, 1, 0x00a10f11, 'Genoa'],
    [0x19, 0xa0, 2, 0x00aa0f02, 'Genoa'],
    [0x1a, 0x02, 1, 0x00b00f21, 'Turin'],
    [0x1a, 0x11, 0, 0x00b10f10, 'Turin'],
    [0x19, 0xaf, 0, 0x00aa0ff0, 'Genoa'],
    [0x17, 0x31, 0, 0x00830f10, null],
    [0x06, 0x0f, 2, 0x000006f2, null],
  ])('of family %i model %i stepping %i', (family, model, stepping, fms, product) => {
    expect(cpuidFms(family, model, stepping)).toBe(fms);
    expect(fromCpuidFms(fms)).toEqual({ family, model, stepping });
    expect(productOfCpuid(family, model)).toBe(product);
  });

  it('round-trips every family, model and stepping', () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 0x10e }),
        fc.nat({ max: 255 }),
        fc.nat({ max: 15 }),
        (family, model, stepping) => {
          expect(fromCpuidFms(cpuidFms(family, model, stepping))).toEqual({ family, model, stepping });
        },
      ),
    );
  });
});

describe('TCB_VERSION', () => {
  const parts: TcbParts = { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 5 };

  it('puts components where the product line has them', () => {
    expect(encodeTcb(parts, 'Milan')).toBe(0x0504000000000302n);
    expect(encodeTcb(parts, 'Genoa')).toBe(0x0504000000000302n);
    expect(encodeTcb(parts, 'Turin')).toBe(0x0500000004030201n);
  });

  it('ignores reserved bytes when it reads and reports them when asked', () => {
    expect(decodeTcb(0x0504ffffffff0302n, 'Milan')).toEqual({ ...parts, fmc: 0 });
    expect(tcbReservedIsZero(0x0504ffffffff0302n, 'Milan')).toBe(false);
    expect(tcbReservedIsZero(0x0504000000000302n, 'Milan')).toBe(true);
    expect(tcbReservedIsZero(0x0504000000000302n, 'Turin')).toBe(false);
  });

  it('compares each component, so that some are incomparable', () => {
    const more = { ...parts, microcode: 6, snp: 3 };
    expect(tcbAtMost(parts, parts, 'Milan')).toBe(true);
    expect(tcbAtMost(parts, more, 'Milan')).toBe(false);
    expect(tcbAtMost(more, parts, 'Milan')).toBe(false);
    expect(tcbAtMost({ ...parts, fmc: 9 }, parts, 'Genoa')).toBe(true);
    expect(tcbAtMost({ ...parts, fmc: 9 }, parts, 'Turin')).toBe(false);
  });

  it('is read from and written to text', () => {
    expect(parseTcbText('3,0,23,213', 'Milan')).toEqual({
      fmc: 0,
      boot_loader: 3,
      tee: 0,
      snp: 23,
      microcode: 213,
    });
    expect(formatTcb(parseTcbText('1, 2,3,4,5', 'Turin'), 'Turin')).toBe('1,2,3,4,5');
    for (const [text, product] of [
      ['3,0,23', 'Milan'],
      ['3,0,23,213,1', 'Milan'],
      ['3,0,23,213', 'Turin'],
      ['3,0,23,256', 'Milan'],
      ['3,0,23,-1', 'Milan'],
      ['3,0,,1', 'Milan'],
      ['', 'Milan'],
    ] as const) {
      expect(() => parseTcbText(text, product)).toThrow(InputError);
    }
  });
});

describe('names', () => {
  it('of statuses, errors, commands and exits are found by number', () => {
    expect(sevRetName(0x16)).toBe('SEV_RET_INVALID_PARAM');
    expect(sevRetName(SEV_RET_NO_FW_CALL)).toBe('SEV_RET_NO_FW_CALL');
    expect(sevRetName(0x1e)).toBe('SEV_RET 0x1e');
    expect([errnoName(5), errnoName(-22), errnoName(200)]).toEqual(['EIO', 'EINVAL', 'errno 200']);
    expect([sevCmdName(0xa1), sevCmdName(0xcc)]).toEqual(['SEV_CMD_SNP_LAUNCH_UPDATE', 'SEV_CMD 0xcc']);
    expect([ghcbExitName(0x80000012n), ghcbExitName(0x1234)]).toEqual([
      'SVM_VMGEXIT_EXT_GUEST_REQUEST',
      'exit 0x1234',
    ]);
    // A hostile guest chooses all 64 bits; a large value must not be taken for a known one.
    expect(ghcbExitName(BigInt(GhcbExit.SVM_VMGEXIT_PSC) + (1n << 60n))).toBe('exit 0x1000000080000010');
    expect([kvmExitName(42), kvmExitName(77)]).toEqual(['KVM_EXIT_SNP_REQ_CERTS', 'exit reason 77']);
    expect([kvmIoctlName(0xae80), kvmIoctlName(0xc008aeba | 0)]).toEqual([
      'KVM_RUN',
      'KVM_MEMORY_ENCRYPT_OP',
    ]);
    expect([kvmSevCmdName(103), kvmSevCmdName(50)]).toEqual([
      'KVM_SEV_SNP_ENABLE_REQ_CERTS',
      'KVM_SEV command 50',
    ]);
  });

  it('of the firmware statuses cover 0x00 to 0x27 without 0x1e', () => {
    const all = Array.from({ length: 0x28 }, (_, i) => i).filter((i) => i !== 0x1e);
    expect(SEV_RET_TABLE.map((row) => row.value)).toEqual(all);
    expect(SEV_RET_TABLE.every((row) => row.meaning.endsWith('.'))).toBe(true);
  });
});
