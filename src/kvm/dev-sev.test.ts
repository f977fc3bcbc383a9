// SPDX-License-Identifier: Apache-2.0
/** [DEVICES] "/dev/sev (host)": the administrator's commands, in the driver's order of checks. */
import { describe, expect, it } from 'vitest';
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
import { SevCmd, SevDataSnpConfig, SevUserDataSnpStatus } from '../abi/snp-commands.ts';
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
  const UNSUPPORTED = 0x15;

  it.each(['SEV_PEK_GEN', 'SEV_PDH_GEN'] as const)('%s reaches the firmware, which has none', (name) => {
    expect(issue(user(), SevUserCmd[name])).toMatchObject({ ret: -EIO, error: UNSUPPORTED });
  });

  it('bring legacy SEV up for their duration where it is down', () => {
    const who = user({ initOnProbe: false });
    expect(issue(who, SevUserCmd.SEV_PEK_GEN).error).toBe(UNSUPPORTED);
    const { commands } = who.host.psp;
    const around = commands.filter(
      (id) => id === SevCmd.SEV_CMD_INIT || id === SevCmd.SEV_CMD_SHUTDOWN || id === SevCmd.SEV_CMD_PEK_GEN,
    );
    expect(around).toEqual([SevCmd.SEV_CMD_INIT, SevCmd.SEV_CMD_PEK_GEN, SevCmd.SEV_CMD_SHUTDOWN]);
  });

  it.each([
    ['SEV_PEK_CSR too long', 'SEV_PEK_CSR', SevUserDataPekCsr.encode({ length: 0x4001 }), -EFAULT],
    ['SEV_PEK_CSR', 'SEV_PEK_CSR', SevUserDataPekCsr.encode({}), -EIO],
    [
      'SEV_PDH_CERT_EXPORT too long',
      'SEV_PDH_CERT_EXPORT',
      SevUserDataPdhCertExport.encode({ cert_chain_len: 0x4001 }),
      -EFAULT,
    ],
    ['SEV_PDH_CERT_EXPORT', 'SEV_PDH_CERT_EXPORT', SevUserDataPdhCertExport.encode({}), -EIO],
    ['SEV_PEK_CERT_IMPORT of nothing', 'SEV_PEK_CERT_IMPORT', SevUserDataPekCertImport.encode({}), -EINVAL],
    [
      'SEV_PEK_CERT_IMPORT too long',
      'SEV_PEK_CERT_IMPORT',
      SevUserDataPekCertImport.encode({ pek_cert_address: 1n, pek_cert_len: 0x4001 }),
      -EINVAL,
    ],
    [
      'SEV_PEK_CERT_IMPORT unreadable',
      'SEV_PEK_CERT_IMPORT',
      SevUserDataPekCertImport.encode({ pek_cert_address: NOWHERE, pek_cert_len: 8 }),
      -EFAULT,
    ],
  ] as const)('%s', (_, name, data, expected) => {
    expect(issue(user(), SevUserCmd[name], data).ret).toBe(expected);
  });

  it('SEV_PDH_CERT_EXPORT needs write access only while legacy SEV is down', () => {
    const up = user();
    const request = SevUserDataPdhCertExport.encode({});
    expect(issue(up, SevUserCmd.SEV_PDH_CERT_EXPORT, request, readOnly(up)).ret).toBe(-EIO);
    const down = user({ initOnProbe: false });
    expect(issue(down, SevUserCmd.SEV_PDH_CERT_EXPORT, request, readOnly(down)).ret).toBe(-EPERM);
  });

  it('SEV_FACTORY_RESET shuts legacy SEV down first', () => {
    const who = user();
    expect(issue(who, SevUserCmd.SEV_FACTORY_RESET).ret).toBe(0);
    const { commands } = who.host.psp;
    expect(commands.slice(-2)).toEqual([SevCmd.SEV_CMD_SHUTDOWN, SevCmd.SEV_CMD_FACTORY_RESET]);
  });
});
