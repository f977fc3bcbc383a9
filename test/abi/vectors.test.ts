// SPDX-License-Identifier: Apache-2.0
/**
 * The declarations against bytes that other people made: genuine reports and certificate tables beside the
 * repository, and published values of the specifications.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  AttestationReportV3,
  CERT_GUIDS,
  CERT_TABLE_ENTRY_SIZE,
  CertTableEntry,
  decodeTcb,
  GUEST_MESSAGE_HEADER_SIZE,
  GuestFieldSelectV1,
  GuestMessageHeader,
  GuestPolicy,
  guestMessageAad,
  guestMessageNonce,
  guidBytes,
  guidText,
  KeyInfo,
  MsgKeyReqV1,
  MsgReportReq,
  PageInfo,
  PageType,
  productOfCpuid,
  REPORT_SIZE,
  reportLayout,
  reportVersionRefusal,
  SevCurve,
  SevPublicKey,
  SnpMsg,
  VCEK_GUID,
  Vmsa,
  ZERO_GUID,
} from '../../src/abi/index.ts';
import { concat, fromHex, isZero, readU32, toHex } from '../../src/lib/bytes.ts';

const sha = (name: 'sha256' | 'sha384', data: Uint8Array): string =>
  createHash(name).update(data).digest('hex');

const folder = fileURLToPath(new URL('../../../shared/vectors', import.meta.url));
const absent = !existsSync(folder);
if (absent) {
  console.warn(`SKIPPED: genuine reports and tables are not decoded: ${folder} is absent`);
}

const files = (pattern: RegExp): string[] =>
  absent
    ? []
    : readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .flatMap((entry) => readdirSync(join(folder, entry.name)).map((file) => join(entry.name, file)))
        .filter((file) => pattern.test(file));

describe.skipIf(absent)(`genuine bytes${absent ? ' (skipped: ../shared/vectors is absent)' : ''}`, () => {
  const reports = files(/\/report-v\d-.*\.bin$/);

  it('are there in number', () => {
    expect(reports.length).toBeGreaterThan(40);
  });

  it.each(reports)('%s decodes and encodes byte for byte', (file) => {
    const raw = new Uint8Array(readFileSync(join(folder, file)));
    const [, version, product] = /report-v(\d)-(\w+)-/.exec(file)!;
    expect(raw.length).toBe(REPORT_SIZE);
    expect(readU32(raw, 0)).toBe(Number(version));
    const form = reportLayout(Number(version))!;
    const report = form.decode(raw);
    expect(toHex(form.encode(report as never))).toBe(toHex(raw));
    expect(report.signature_algo).toBe(1);
    if (report.version >= 3) {
      const { cpuid_fam_id, cpuid_mod_id } = AttestationReportV3.decodeLoose(raw);
      expect(productOfCpuid(cpuid_fam_id, cpuid_mod_id)?.toLowerCase()).toBe(product);
    }
  });

  it.each(files(/certtable-.*\.bin$/))('%s starts with entries of known GUIDs', (file) => {
    const raw = new Uint8Array(readFileSync(join(folder, file)));
    const names: string[] = [];
    for (let at = 0; ; at += CERT_TABLE_ENTRY_SIZE) {
      const entry = CertTableEntry.decode(raw.subarray(at, at + CERT_TABLE_ENTRY_SIZE));
      if (guidText(entry.guid) === ZERO_GUID) {
        break;
      }
      names.push(CERT_GUIDS[guidText(entry.guid)] ?? 'unknown');
      expect(entry.offset + entry.length).toBeLessThanOrEqual(raw.length);
    }
    expect(names.length).toBeGreaterThan(0);
    expect(names).not.toContain('unknown');
  });
});

describe('report versions', () => {
  it('2 to 5 have a layout, 6 is refused by name and others as unknown', () => {
    expect([2, 3, 4, 5].map((version) => reportVersionRefusal(version))).toEqual([null, null, null, null]);
    expect(reportLayout(6)).toBe(null);
    expect(reportVersionRefusal(6)).toContain('version 6 (ABI 1.59');
    expect([0, 1, 7, 0xffffffff].map((version) => reportLayout(version))).toEqual([null, null, null, null]);
    expect(reportVersionRefusal(7)).toBe('report version 7 is unknown');
  });

  it('6 would find room for its extended TCBs in version 5', () => {
    expect(reportLayout(5).gaps.some(([from, to]) => from <= 0x220 && to >= 0x280)).toBe(true);
  });
});

describe('KEY_INFO and the guest policy', () => {
  it('of a VLEK report is 4', () => {
    expect(KeyInfo.fromWord(4n)).toEqual({ author_key_en: 0, mask_chip_key: 0, signing_key: 1 });
  });

  it('0xb0000 is DEBUG and SMT, 0x3001f asks for ABI 0.31', () => {
    expect(GuestPolicy.fromWord(0xb0000n)).toMatchObject({ debug: 1, smt: 1, abi_minor: 0 });
    expect(GuestPolicy.fromWord(0x3001fn)).toMatchObject({ debug: 0, smt: 1, abi_minor: 0x1f });
    expect(GuestPolicy.toWord({ ...GuestPolicy.zero(), smt: 1 })).toBe(0x30000n);
  });
});

describe('TCB words of genuine reports', () => {
  it('are read by the product line’s layout', () => {
    expect(decodeTcb(0xd918000000000004n, 'Milan')).toEqual({
      fmc: 0,
      boot_loader: 4,
      tee: 0,
      snp: 0x18,
      microcode: 0xd9,
    });
    expect(decodeTcb(0x6100000005020301n, 'Turin')).toEqual({
      fmc: 1,
      boot_loader: 3,
      tee: 2,
      snp: 5,
      microcode: 0x61,
    });
  });
});

describe('guest message', () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i);
  const seal = (
    header: Partial<Parameters<typeof GuestMessageHeader.encode>[0]>,
    payload: Uint8Array,
  ): Uint8Array => {
    const head = GuestMessageHeader.encode({
      algo: 1,
      hdr_version: 1,
      hdr_size: GUEST_MESSAGE_HEADER_SIZE,
      msg_version: 1,
      msg_vmpck: 0,
      msg_size: payload.length,
      ...header,
    });
    const cipher = createCipheriv('aes-256-gcm', key, guestMessageNonce(header.msg_seqno ?? 0n));
    cipher.setAAD(guestMessageAad(head));
    const body = concat(new Uint8Array(cipher.update(payload)), new Uint8Array(cipher.final()));
    head.set(cipher.getAuthTag(), 0);
    return concat(head, body);
  };

  it('of a report request has the published AAD, tag, ciphertext and hash', () => {
    const payload = MsgReportReq.encode({ report_data: Uint8Array.from({ length: 64 }, (_, i) => i) });
    const message = seal({ msg_seqno: 1n, msg_type: SnpMsg.SNP_MSG_REPORT_REQ }, payload);
    expect(toHex(guestMessageNonce(1n))).toBe('010000000000000000000000');
    expect(toHex(guestMessageAad(message))).toBe(`01016000050160000000000000000000${'00'.repeat(32)}`);
    expect(toHex(message.subarray(0, 16))).toBe('0f354f26b13f7433d3674d8eebcaf847');
    expect(toHex(message.subarray(0x60, 0x70))).toBe('e22d803ca0aaea00420d0fc830cc86c4');
    expect(toHex(message.subarray(-16))).toBe('b5f3e8b761e80896f353185b4abd740d');
    expect(message.length).toBe(192);
    expect(sha('sha256', message)).toBe('37986d2e2816e933c1e342b05eac83a78b121d632b6090da8dff837967ad24aa');
  });

  it('of a key request has the published tag, ciphertext and hash', () => {
    const payload = MsgKeyReqV1.encode({
      guest_field_select: { ...GuestFieldSelectV1.zero(), measurement: 1 },
    });
    const message = seal({ msg_seqno: 3n, msg_type: SnpMsg.SNP_MSG_KEY_REQ }, payload);
    expect(toHex(message.subarray(0, 16))).toBe('b792d2fb1d8734805ce8820cb4c0f006');
    expect(toHex(message.subarray(0x60))).toBe(
      '908c5899595132d8f0388fa492d606c92fd3c064da9bd2e0cb97494f1e4bd012',
    );
    expect(sha('sha256', message)).toBe('f7f0679e57a0a0704892e2641e360d1994afeac9513404ea2893383b726cd8e6');
  });
});

describe('PAGE_INFO', () => {
  it('chains the six page types to the published launch digests', () => {
    const zeroPage = fromHex(sha('sha384', new Uint8Array(4096)));
    const vmsaPage = fromHex(sha('sha384', new Uint8Array(4096).fill(0xaa)));
    const none = new Uint8Array(48);
    let ld: Uint8Array = new Uint8Array(48);
    const heads = (
      [
        [PageType.NORMAL, 0x0n, zeroPage],
        [PageType.ZERO, 0x1000n, none],
        [PageType.SECRETS, 0x80d000n, none],
        [PageType.CPUID, 0x80e000n, none],
        [PageType.VMSA, 0xfffffffff000n, vmsaPage],
        [PageType.UNMEASURED, 0x2000n, none],
      ] as const
    ).map(([page_type, gpa, contents]) => {
      const info = PageInfo.encode({ digest_cur: ld, contents, length: PageInfo.size, page_type, gpa });
      ld = fromHex(sha('sha384', info));
      return toHex(ld).slice(0, 32);
    });
    expect(heads).toEqual([
      '9d13634b6014bb21cf059b2dc694e7bf',
      '3bb77aec4f0d90c147b6b7884b6bd574',
      '831e6b544986afb579671d4ab582a9d4',
      '111733001f47351b5db048fd96ae1ab5',
      'e6400435052bb8f999e5aac57152a5b6',
      '10af91ff4b643762e3b125dd36888bbf',
    ]);
  });
});

describe('VMSA', () => {
  it('of a QEMU boot processor has the published hash', () => {
    const flat = (attrib: number, more = {}) => ({ selector: 0, attrib, limit: 0xffff, base: 0n, ...more });
    const page = Vmsa.encode({
      es: flat(0x93),
      cs: flat(0x9b, { selector: 0xf000, base: 0xffff0000n }),
      ss: flat(0x93),
      ds: flat(0x93),
      fs: flat(0x93),
      gs: flat(0x93),
      gdtr: flat(0),
      ldtr: flat(0x82),
      idtr: flat(0),
      tr: flat(0x8b),
      efer: 0x1000n,
      cr4: 0x40n,
      cr0: 0x10n,
      dr7: 0x400n,
      dr6: 0xffff0ff0n,
      rflags: 2n,
      rip: 0xfff0n,
      g_pat: 0x0007040600070406n,
      rdx: 0x800f12n,
      sev_features: 1n,
      xcr0: 1n,
      mxcsr: 0x1f80,
      x87_fcw: 0x37f,
    });
    expect(sha('sha384', page)).toBe(
      '77920c4c629ff47e90c0e174fc1ad0eb6fa664f88cd4739488058a8c6cb1a77b3856f55378e9518d0da99452d51c553a',
    );
  });
});

describe('public key', () => {
  it('of the P-384 generator has the published digest', () => {
    const coordinate = (hex: string): Uint8Array => concat(fromHex(hex).reverse(), new Uint8Array(24));
    const key = SevPublicKey.encode({
      curve: SevCurve.P384,
      qx: coordinate(
        'aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7',
      ),
      qy: coordinate(
        '3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f',
      ),
    });
    expect(sha('sha384', key)).toBe(
      '01ce77b697886b46c6e363a9d02bbee2506e4b21ca4b3085f35f20e4cf66ac780e01e38aad53f973cbcea56e59a7b382',
    );
  });
});

describe('certificate table entry', () => {
  it('of a VCEK of 1360 bytes after one entry and the terminator', () => {
    const entry = CertTableEntry.encode({ guid: guidBytes(VCEK_GUID), offset: 0x30, length: 0x550 });
    expect(toHex(entry)).toBe('63da758de6644564adc5f4b93be8accd3000000050050000');
    expect(isZero(guidBytes(ZERO_GUID))).toBe(true);
  });
});
