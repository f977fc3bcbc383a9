// SPDX-License-Identifier: Apache-2.0
/** [DEVICES] "/dev/sev (host)": the administrator's commands, in the driver's order of checks. */
import { describe, expect, it } from 'vitest';
import { type Chain, chainOf, isSignedBy, Owner } from '../../test/firmware/sev-owner.ts';
import {
  SEV_ISSUE_CMD,
  SevIssueCmd,
  SevUserCmd,
  SevUserDataGetId2,
  SevUserDataPdhCertExport,
  SevUserDataPekCertImport,
  SevUserDataPekCsr,
  SevUserDataSnpVlekLoad,
  SevUserDataStatus,
} from '../abi/dev-sev.ts';
import { Errno } from '../abi/errno.ts';
import {
  SevCmd,
  SevDataInit,
  SevDataSnpConfig,
  SevUserDataSnpStatus,
  sevCmdName,
} from '../abi/snp-commands.ts';
import { asid, uaddr } from '../lib/addresses.ts';
import { equalBytes } from '../lib/bytes.ts';
import { NOTHING, TestHost, type TestUser } from './testing.ts';

const { EINVAL, EPERM, EFAULT, EIO, ENODEV, EBUSY, ETIMEDOUT, ENOMEM } = Errno;
const UNTOUCHED = 0x5eed;
const NOWHERE = 0x1000n;

interface Answer {
  readonly ret: number;
  /** Null: as the caller left it. */
  readonly error: number | null;
}

/** One SEV_ISSUE_CMD whose data is `data`, or at an address. */
function issue(
  user: TestUser,
  cmd: number,
  data: Uint8Array | bigint = 0n,
  fd = user.sev,
): Answer & { data(size: number): Uint8Array } {
  const at = typeof data === 'bigint' ? data : user.put(data, 0x800);
  const ret = user.process.ioctl(
    fd,
    SEV_ISSUE_CMD,
    user.put(SevIssueCmd.encode({ cmd, data: at, error: UNTOUCHED }), 0x400),
  );
  const error = SevIssueCmd.get(user.take(SevIssueCmd.size, 0x400), 'error');
  return { ret, error: error === UNTOUCHED ? null : error, data: (size) => user.take(size, 0x800) };
}

const user = (options = {}): TestUser => new TestHost(NOTHING, options).user();
const readOnly = (who: TestUser): number => who.process.openDevSev({ write: false });

describe('SEV_ISSUE_CMD', () => {
  it('without a secure processor: ENODEV before anything else', () => {
    const who = user({ psp: null });
    expect(who.process.ioctl(who.sev, 0x1234, 0n)).toBe(-ENODEV);
  });

  it('another ioctl: EINVAL; an unreadable argument: EFAULT', () => {
    const who = user();
    expect(who.process.ioctl(who.sev, 0xc0105301, 0n)).toBe(-EINVAL);
    expect(who.process.ioctl(who.sev, SEV_ISSUE_CMD, NOWHERE)).toBe(-EFAULT);
  });

  it.each([13, 14, 0xffffffff])('command %i: EINVAL, nothing copied back', (cmd) => {
    expect(issue(user(), cmd)).toMatchObject({ ret: -EINVAL, error: null });
  });

  it('a secure processor that does not answer: ETIMEDOUT with error 0, then EBUSY', () => {
    const who = user();
    who.host.psp.intercept = () => 'timeout';
    expect(issue(who, SevUserCmd.SNP_COMMIT)).toMatchObject({ ret: -ETIMEDOUT, error: 0 });
    who.host.psp.intercept = () => null;
    expect(issue(who, SevUserCmd.SNP_COMMIT)).toMatchObject({ ret: -EBUSY, error: null });
  });

  const NEEDS_WRITE = [
    'SEV_FACTORY_RESET',
    'SEV_PEK_GEN',
    'SEV_PEK_CSR',
    'SEV_PDH_GEN',
    'SEV_PEK_CERT_IMPORT',
  ] as const;

  it.each(NEEDS_WRITE)('%s without write access: EPERM', (name) => {
    const who = user();
    expect(issue(who, SevUserCmd[name], 1n, readOnly(who))).toMatchObject({ ret: -EPERM, error: null });
  });
});

describe('status', () => {
  it('SNP_PLATFORM_STATUS for a reader, in every state of the platform', () => {
    const who = user();
    const { ret, error, data } = issue(
      who,
      SevUserCmd.SNP_PLATFORM_STATUS,
      new Uint8Array(32),
      readOnly(who),
    );
    expect([ret, error]).toEqual([0, 0]);
    const status = SevUserDataSnpStatus.decode(data(32));
    expect(status).toMatchObject({ state: 1, api_major: 1, rmp: { is_rmp_init: 1 }, guest_count: 0 });
    const early = user({ initOnProbe: false });
    const before = issue(early, SevUserCmd.SNP_PLATFORM_STATUS, new Uint8Array(32));
    expect(SevUserDataSnpStatus.decode(before.data(32)).state).toBe(0);
  });

  it('no data: EINVAL; data nowhere: EFAULT after the command', () => {
    expect(issue(user(), SevUserCmd.SNP_PLATFORM_STATUS)).toMatchObject({ ret: -EINVAL, error: null });
    expect(issue(user(), SevUserCmd.SNP_PLATFORM_STATUS, NOWHERE)).toMatchObject({ ret: -EFAULT, error: 0 });
  });

  it('SEV_PLATFORM_STATUS: legacy SEV is up, SEV-ES with it', () => {
    const { ret, data } = issue(user(), SevUserCmd.SEV_PLATFORM_STATUS, new Uint8Array(12));
    expect(ret).toBe(0);
    expect(SevUserDataStatus.decode(data(12))).toMatchObject({ state: 1, flags: 0x100, guest_count: 0 });
    expect(issue(user(), SevUserCmd.SEV_PLATFORM_STATUS, NOWHERE).ret).toBe(-EFAULT);
  });
});

describe('GET_ID and GET_ID2', () => {
  it('GET_ID2 as a query: EIO, INVALID_LEN and the length', () => {
    const { ret, error, data } = issue(user(), SevUserCmd.SEV_GET_ID2, SevUserDataGetId2.encode({}));
    expect([ret, error]).toEqual([-EIO, 4]);
    expect(SevUserDataGetId2.decode(data(12)).length).toBe(64);
  });

  it('GET_ID2 into a buffer, and the same id from GET_ID', () => {
    const who = user();
    const at = who.put(new Uint8Array(64), 0xc00);
    const { ret, error, data } = issue(
      who,
      SevUserCmd.SEV_GET_ID2,
      SevUserDataGetId2.encode({ address: at, length: 64 }),
    );
    expect([ret, error]).toEqual([0, 0]);
    expect(SevUserDataGetId2.decode(data(12)).length).toBe(64);
    const id = who.take(64, 0xc00);
    expect(id.some((byte) => byte !== 0)).toBe(true);
    const both = issue(who, SevUserCmd.SEV_GET_ID, new Uint8Array(128)).data(128);
    expect(both).toEqual(Uint8Array.from([...id, ...new Uint8Array(64)]));
  });

  it.each([
    ['too small a buffer', { address: 0xc00n, length: 8 }, -EIO],
    ['more than the kernel allocates', { address: 0xc00n, length: 0xffffffff }, -ENOMEM],
    ['an unwritable buffer', { address: 1n, length: 64 }, -EFAULT],
  ])('GET_ID2 with %s', (_, { address, length }, expected) => {
    const who = user();
    const at = address === 1n ? NOWHERE : who.scratch + address;
    const { ret } = issue(who, SevUserCmd.SEV_GET_ID2, SevUserDataGetId2.encode({ address: at, length }));
    expect(ret).toBe(expected);
  });

  it('GET_ID2 with an unreadable structure: EFAULT; GET_ID to nowhere: EFAULT', () => {
    expect(issue(user(), SevUserCmd.SEV_GET_ID2, NOWHERE).ret).toBe(-EFAULT);
    expect(issue(user(), SevUserCmd.SEV_GET_ID, NOWHERE).ret).toBe(-EFAULT);
  });
});

describe('SNP_COMMIT, SNP_SET_CONFIG and SNP_VLEK_LOAD', () => {
  it('SNP_COMMIT asks neither for write access nor for data', () => {
    const who = user();
    expect(issue(who, SevUserCmd.SNP_COMMIT, NOWHERE, readOnly(who))).toMatchObject({ ret: 0, error: 0 });
  });

  for (const name of ['SNP_SET_CONFIG', 'SNP_VLEK_LOAD'] as const) {
    it(`${name}: no data EINVAL, not writable EPERM, not initialised ENODEV, unreadable EFAULT, in this order`, () => {
      const early = user({ initOnProbe: false });
      const cmd = SevUserCmd[name];
      expect(issue(early, cmd, 0n, readOnly(early)).ret).toBe(-EINVAL);
      expect(issue(early, cmd, NOWHERE, readOnly(early)).ret).toBe(-EPERM);
      expect(issue(early, cmd, NOWHERE).ret).toBe(-ENODEV);
      expect(issue(user(), cmd, NOWHERE)).toMatchObject({ ret: -EFAULT, error: null });
    });
  }

  it('SNP_SET_CONFIG with zeros resets; a TCB above the committed one: EIO, INVALID_PARAM', () => {
    const who = user();
    expect(issue(who, SevUserCmd.SNP_SET_CONFIG, SevDataSnpConfig.encode({}))).toMatchObject({
      ret: 0,
      error: 0,
    });
    const high = SevDataSnpConfig.encode({ reported_tcb: 0xffn });
    expect(issue(who, SevUserCmd.SNP_SET_CONFIG, high)).toMatchObject({ ret: -EIO, error: 0x16 });
    const masked = SevDataSnpConfig.encode({ flags: { mask_chip_id: 1, mask_chip_key: 0 } });
    expect(issue(who, SevUserCmd.SNP_SET_CONFIG, masked).ret).toBe(0);
    const status = issue(who, SevUserCmd.SNP_PLATFORM_STATUS, new Uint8Array(32)).data(32);
    expect(SevUserDataSnpStatus.decode(status).features.mask_chip_id).toBe(1);
  });

  it.each([
    ['another length', { len: 15, vlek_wrapped_address: 1n }, -EINVAL],
    ['another version', { len: 16, vlek_wrapped_version: 1, vlek_wrapped_address: 1n }, -EINVAL],
    ['no address', { len: 16 }, -EINVAL],
    ['an unreadable blob', { len: 16, vlek_wrapped_address: NOWHERE }, -EFAULT],
  ])('SNP_VLEK_LOAD with %s', (_, fields, expected) => {
    const answer = issue(user(), SevUserCmd.SNP_VLEK_LOAD, SevUserDataSnpVlekLoad.encode(fields));
    expect(answer).toMatchObject({ ret: expected, error: null });
  });

  it('SNP_VLEK_LOAD of something else: EIO with the firmware’s status', () => {
    const who = user();
    const at = who.put(new Uint8Array(432), 0xc00);
    const request = SevUserDataSnpVlekLoad.encode({ len: 16, vlek_wrapped_address: at });
    const { ret, error } = issue(who, SevUserCmd.SNP_VLEK_LOAD, request);
    expect(ret).toBe(-EIO);
    expect(error).toBeGreaterThan(0);
  });
});

describe('legacy certificates', () => {
  const { SEV_PEK_CSR, SEV_PDH_CERT_EXPORT, SEV_PEK_CERT_IMPORT } = SevUserCmd;
  const INVALID_LEN = 4;
  const ALREADY_OWNED = 5;
  const CERT = 2084;
  const CHAIN = 3 * CERT;
  const BLOB_MAX = 0x4000;

  /** Memory of the caller's own, filled with 0xee so that what is written shows. */
  const room = (who: TestUser, size: number): bigint => {
    const at = who.process.mmap(size);
    who.process.write(at, new Uint8Array(size).fill(0xee));
    return at;
  };
  const inMemory = (who: TestUser, bytes: Uint8Array): bigint => {
    const at = who.process.mmap(bytes.length);
    who.process.write(at, bytes);
    return at;
  };
  const read = (who: TestUser, at: bigint, length: number): Uint8Array =>
    who.process.read(uaddr(at), length)!;

  const askCsr = (who: TestUser, address: bigint, length: number, fd = who.sev) => {
    const answer = issue(who, SEV_PEK_CSR, SevUserDataPekCsr.encode({ address, length }), fd);
    return { ...answer, length: SevUserDataPekCsr.decode(answer.data(12)).length };
  };
  const askExport = (who: TestUser, fields: Partial<SevUserDataPdhCertExport>, fd = who.sev) => {
    const answer = issue(who, SEV_PDH_CERT_EXPORT, SevUserDataPdhCertExport.encode(fields), fd);
    const { pdh_cert_len, cert_chain_len } = SevUserDataPdhCertExport.decode(answer.data(24));
    return { ...answer, lengths: [pdh_cert_len, cert_chain_len] };
  };
  const chain = (who: TestUser): Chain => {
    const [pdhAt, chainAt] = [room(who, CERT), room(who, CHAIN)];
    const { ret } = askExport(who, {
      ...{ pdh_cert_address: pdhAt, pdh_cert_len: CERT },
      ...{ cert_chain_address: chainAt, cert_chain_len: CHAIN },
    });
    expect(ret).toBe(0);
    return chainOf(read(who, pdhAt, CERT), read(who, chainAt, CHAIN));
  };
  const csr = (who: TestUser): Uint8Array => {
    const at = room(who, CERT);
    expect(askCsr(who, at, CERT).ret).toBe(0);
    return read(who, at, CERT);
  };
  const importCerts = (who: TestUser, pek: Uint8Array, oca: Uint8Array): Answer =>
    issue(
      who,
      SEV_PEK_CERT_IMPORT,
      SevUserDataPekCertImport.encode({
        ...{ pek_cert_address: inMemory(who, pek), pek_cert_len: pek.length },
        ...{ oca_cert_address: inMemory(who, oca), oca_cert_len: oca.length },
      }),
    );
  const stateOf = (who: TestUser): SevUserDataStatus =>
    SevUserDataStatus.decode(issue(who, SevUserCmd.SEV_PLATFORM_STATUS, new Uint8Array(12)).data(12));
  const down = (): TestUser => user({ initOnProbe: false });
  /** Firmware commands of one call, without those that give pages back. */
  const commandsOf = (who: TestUser, run: () => void): string[] => {
    who.host.psp.commands.length = 0;
    run();
    return who.host.psp.commands
      .filter((id) => id !== SevCmd.SEV_CMD_SNP_PAGE_RECLAIM)
      .map((id) => sevCmdName(id).replace('SEV_CMD_', ''));
  };

  it.each([true, false])('an owner takes the platform, SNP up: %s', (initOnProbe) => {
    const who = user({ initOnProbe });
    const owner = new Owner();
    const before = chain(who);
    expect(isSignedBy(before.pek, before.oca)).toBe(true);
    expect(importCerts(who, owner.sign(csr(who)), owner.certificate)).toMatchObject({ ret: 0, error: 0 });
    const after = chain(who);
    expect(after.oca).toEqual(owner.certificate);
    expect(isSignedBy(after.pek, after.oca) && isSignedBy(after.pek, after.cek)).toBe(true);
    expect(isSignedBy(after.pdh, after.pek)).toBe(true);
    expect(stateOf(who)).toMatchObject({ flags: initOnProbe ? 0x101 : 1, state: Number(initOnProbe) });
    expect(importCerts(who, owner.sign(csr(who)), owner.certificate)).toMatchObject({
      ret: -EIO,
      error: ALREADY_OWNED,
    });
  });

  it.each([
    ['SEV_PEK_GEN', ['pdh', 'pek', 'oca']],
    ['SEV_PDH_GEN', ['pdh']],
    ['SEV_FACTORY_RESET', ['pdh', 'pek', 'oca']],
  ] as const)('%s makes another %j, and leaves the CEK', (name, expected) => {
    const who = user();
    const before = chain(who);
    expect(issue(who, SevUserCmd[name])).toMatchObject({ ret: 0, error: 0 });
    const after = chain(who);
    const names = ['pdh', 'pek', 'oca', 'cek'] as const;
    expect(names.filter((key) => !equalBytes(before[key], after[key]))).toEqual(expected);
  });

  describe('legacy SEV that is down', () => {
    const none = new Uint8Array(CERT);
    const calls: Readonly<Record<string, (who: TestUser) => void>> = {
      PEK_GEN: (who) => expect(issue(who, SevUserCmd.SEV_PEK_GEN).ret).toBe(0),
      PDH_GEN: (who) => expect(issue(who, SevUserCmd.SEV_PDH_GEN).ret).toBe(0),
      PEK_CSR: (who) => expect(csr(who)).toHaveLength(CERT),
      PDH_CERT_EXPORT: (who) => expect(chain(who).pdh).toHaveLength(CERT),
      PEK_CERT_IMPORT: (who) => expect(importCerts(who, none, none)).toMatchObject({ ret: -EIO, error: 6 }),
    };

    it.each(Object.entries(calls))('is brought up for the length of %s, SNP is not', (name, call) => {
      const who = down();
      expect(commandsOf(who, () => call(who))).toEqual(['INIT', name, 'SHUTDOWN']);
      expect(stateOf(who).state).toBe(0);
    });

    it.each(Object.entries(calls))('after a reset is brought up for %s, and SNP stays up', (name, call) => {
      const who = user();
      issue(who, SevUserCmd.SEV_FACTORY_RESET);
      expect(commandsOf(who, () => call(who))).toEqual(['INIT', name, 'SHUTDOWN']);
      const snp = issue(who, SevUserCmd.SNP_PLATFORM_STATUS, new Uint8Array(32)).data(32);
      expect(SevUserDataSnpStatus.decode(snp).state).toBe(1);
      expect(issue(who, SevUserCmd.SNP_COMMIT).ret).toBe(0);
    });

    it('gives the memory of SEV-ES back each time', () => {
      const who = user();
      issue(who, SevUserCmd.SEV_FACTORY_RESET);
      const regions = new Set<bigint>();
      who.host.psp.intercept = (id, bufferAt) => {
        if (id === SevCmd.SEV_CMD_INIT) {
          const command = who.host.hw.memory.read(bufferAt, SevDataInit.size, asid(0));
          regions.add(SevDataInit.get(command, 'tmr_address'));
        }
        return null;
      };
      for (let i = 0; i < 3; i++) {
        expect(issue(who, SevUserCmd.SEV_PDH_GEN).ret).toBe(0);
      }
      expect(regions.size).toBe(1);
      expect(stateOf(who)).toMatchObject({ state: 0, flags: 0 });
    });

    it('that does not come up: EIO with the status of INIT, and nothing more is asked', () => {
      const who = down();
      who.host.psp.intercept = (id) => (id === SevCmd.SEV_CMD_INIT ? 0x18 : null);
      const at = room(who, CERT);
      const asked = commandsOf(who, () => {
        expect(askCsr(who, at, CERT)).toMatchObject({ ret: -EIO, error: 0x18, length: CERT });
      });
      expect(asked).toEqual(['INIT']);
      expect(read(who, at, CERT)).toEqual(new Uint8Array(CERT).fill(0xee));
    });
  });

  describe('SEV_PEK_CSR', () => {
    it.each([
      ['address 0', (): bigint => 0n, CERT],
      ['length 0', room, 0],
      ['address 0, a length no blob has', (): bigint => 0n, BLOB_MAX + 1],
      ['a buffer that is too small', room, CERT - 1],
    ] as const)('with %s: EIO, INVALID_LEN and the length', (_, at, length) => {
      const who = user();
      expect(askCsr(who, at(who, BLOB_MAX), length)).toMatchObject({
        ...{ ret: -EIO, error: INVALID_LEN, length: CERT },
      });
    });

    it('fills as much of a larger buffer as there is', () => {
      const who = user();
      const at = room(who, BLOB_MAX);
      expect(askCsr(who, at, BLOB_MAX)).toMatchObject({ ret: 0, error: 0, length: CERT });
      const bytes = read(who, at, CERT + 1);
      expect(bytes.subarray(0, 4)).toEqual(Uint8Array.of(1, 0, 0, 0));
      expect(bytes[CERT]).toBe(0xee);
    });

    it('more than a blob has: EFAULT before the firmware; a buffer or structure that faults: EFAULT', () => {
      const who = user();
      const asked = commandsOf(who, () => {
        expect(askCsr(who, room(who, BLOB_MAX), BLOB_MAX + 1)).toMatchObject({ ret: -EFAULT, error: null });
        expect(issue(who, SEV_PEK_CSR, NOWHERE)).toMatchObject({ ret: -EFAULT, error: null });
      });
      expect(asked).toEqual([]);
      expect(askCsr(who, NOWHERE, CERT)).toMatchObject({ ret: -EFAULT, error: 0, length: CERT });
    });
  });

  describe('SEV_PDH_CERT_EXPORT', () => {
    const fields = (who: TestUser): SevUserDataPdhCertExport => ({
      ...{ pdh_cert_address: room(who, BLOB_MAX), pdh_cert_len: BLOB_MAX },
      ...{ cert_chain_address: room(who, BLOB_MAX), cert_chain_len: BLOB_MAX },
    });

    it.each([
      ['no PDH address', { pdh_cert_address: 0n }],
      ['no PDH length', { pdh_cert_len: 0 }],
      ['no chain address', { cert_chain_address: 0n }],
      ['no chain length', { cert_chain_len: 0 }],
      ['no PDH address, and lengths no blob has', { pdh_cert_address: 0n, cert_chain_len: BLOB_MAX + 1 }],
      ['a PDH buffer that is too small', { pdh_cert_len: CERT - 1 }],
      ['a chain buffer that is too small', { cert_chain_len: CHAIN - 1 }],
    ])('with %s: EIO, INVALID_LEN and both lengths', (_, change) => {
      const who = user();
      expect(askExport(who, { ...fields(who), ...change })).toMatchObject({
        ...{ ret: -EIO, error: INVALID_LEN, lengths: [CERT, CHAIN] },
      });
    });

    it('fills as much of larger buffers as there is', () => {
      const who = user();
      const request = fields(who);
      expect(askExport(who, request)).toMatchObject({ ret: 0, error: 0, lengths: [CERT, CHAIN] });
      expect(read(who, request.pdh_cert_address + BigInt(CERT), 1)[0]).toBe(0xee);
      expect(read(who, request.cert_chain_address + BigInt(CHAIN), 1)[0]).toBe(0xee);
      expect(read(who, request.cert_chain_address + BigInt(CHAIN - CERT), 4)[0]).toBe(1);
    });

    it.each([
      ['a longer PDH', { pdh_cert_len: BLOB_MAX + 1 }, null],
      ['a longer chain', { cert_chain_len: BLOB_MAX + 1 }, null],
      ['a PDH that faults', { pdh_cert_address: NOWHERE }, 0],
      ['a chain that faults', { cert_chain_address: NOWHERE }, 0],
    ] as const)('with %s: EFAULT', (_, change, error) => {
      const who = user();
      expect(askExport(who, { ...fields(who), ...change })).toMatchObject({ ret: -EFAULT, error });
    });

    it('needs write access only while legacy SEV is down, after it has looked at its arguments', () => {
      const up = user();
      expect(askExport(up, fields(up), readOnly(up))).toMatchObject({ ret: 0, error: 0 });
      const who = down();
      expect(askExport(who, fields(who), readOnly(who))).toMatchObject({ ret: -EPERM, error: null });
      expect(issue(who, SEV_PDH_CERT_EXPORT, NOWHERE, readOnly(who)).ret).toBe(-EFAULT);
      const long = { ...fields(who), pdh_cert_len: BLOB_MAX + 1 };
      expect(askExport(who, long, readOnly(who)).ret).toBe(-EFAULT);
    });
  });

  describe('SEV_PEK_CERT_IMPORT', () => {
    const valid = (who: TestUser): SevUserDataPekCertImport => ({
      ...{ pek_cert_address: inMemory(who, new Uint8Array(CERT)), pek_cert_len: CERT },
      ...{ oca_cert_address: inMemory(who, new Uint8Array(CERT)), oca_cert_len: CERT },
    });

    it.each([
      ['no PEK', { pek_cert_address: 0n }, -EINVAL],
      ['a PEK of no length', { pek_cert_len: 0 }, -EINVAL],
      ['a longer PEK', { pek_cert_len: BLOB_MAX + 1 }, -EINVAL],
      ['a PEK that faults', { pek_cert_address: NOWHERE }, -EFAULT],
      ['no OCA', { oca_cert_address: 0n }, -EINVAL],
      ['an OCA of no length', { oca_cert_len: 0 }, -EINVAL],
      ['a longer OCA', { oca_cert_len: BLOB_MAX + 1 }, -EINVAL],
      ['an OCA that faults', { oca_cert_address: NOWHERE }, -EFAULT],
      ['a PEK that faults and no OCA', { pek_cert_address: NOWHERE, oca_cert_address: 0n }, -EFAULT],
    ] as const)('of %s is refused before the firmware', (_, change, expected) => {
      const who = user();
      const request = SevUserDataPekCertImport.encode({ ...valid(who), ...change });
      const asked = commandsOf(who, () => {
        expect(issue(who, SEV_PEK_CERT_IMPORT, request)).toMatchObject({ ret: expected, error: null });
      });
      expect(asked).toEqual([]);
    });

    it('of something else: EIO with the firmware’s status', () => {
      const who = user();
      expect(importCerts(who, new Uint8Array(CERT), new Uint8Array(CERT))).toMatchObject({
        ret: -EIO,
        error: 6,
      });
      expect(importCerts(who, new Uint8Array(1), new Uint8Array(BLOB_MAX))).toMatchObject({
        ret: -EIO,
        error: 4,
      });
      const [owner, other] = [new Owner(), new Owner(2)];
      expect(importCerts(who, other.sign(csr(who)), owner.certificate)).toMatchObject({
        ret: -EIO,
        error: 0xa,
      });
      expect(stateOf(who).flags & 1).toBe(0);
    });
  });

  it('SEV_FACTORY_RESET shuts legacy SEV down first', () => {
    const who = user();
    const asked = commandsOf(who, () => expect(issue(who, SevUserCmd.SEV_FACTORY_RESET).ret).toBe(0));
    expect(asked).toEqual(['PLATFORM_STATUS', 'SHUTDOWN', 'FACTORY_RESET']);
    const again = commandsOf(who, () => expect(issue(who, SevUserCmd.SEV_FACTORY_RESET).ret).toBe(0));
    expect(again).toEqual(['PLATFORM_STATUS', 'FACTORY_RESET']);
  });

  it('SEV_FACTORY_RESET of a platform with legacy guests: EBUSY', () => {
    const who = user();
    who.host.psp.intercept = (id, bufferAt) => {
      if (id !== SevCmd.SEV_CMD_PLATFORM_STATUS) {
        return null;
      }
      who.host.hw.memory.write(bufferAt, SevUserDataStatus.encode({ state: 2 }), asid(0));
      return 0;
    };
    expect(issue(who, SevUserCmd.SEV_FACTORY_RESET)).toMatchObject({ ret: -EBUSY, error: 0 });
  });
});
