// SPDX-License-Identifier: Apache-2.0
/** Every row of [DEVICES] "/dev/sev (host)", on the modelled kernel and firmware. */
import { describe, expect, it } from 'vitest';
import { Owner } from '../../../test/firmware/sev-owner.ts';
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
} from '../../abi/dev-sev.ts';
import { Errno } from '../../abi/errno.ts';
import { SevCertificate, SevCertUsage } from '../../abi/sev-certificate.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { SevCmd, SevDataSnpConfig, SevUserDataSnpStatus } from '../../abi/snp-commands.ts';
import { chipWrappingKey, descend, topStick, wrapHashstick } from '../../keys/index.ts';
import { TestHost } from '../../kvm/testing.ts';
import { readU32, toHex } from '../../lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../../os/node-crypto.ts';
import { TestFile, TestMemory } from '../testing.ts';
import { type SevAnswer, SevDevice } from './device.ts';
import { sevFile } from './files.ts';

/** What the caller has in `error` before the call. */
const CALLERS_OWN = 0x1234_5678;
const C = SevUserCmd;
const COMMANDS = Object.entries(SevUserCmd);

class Client {
  readonly host: TestHost;
  readonly memory = new TestMemory();
  readonly device: SevDevice;
  readonly fd: number;

  constructor(write: boolean, host = new TestHost()) {
    this.host = host;
    this.device = new SevDevice({ process: host.kernel.spawn('clients') });
    this.fd = this.device.open(write);
  }

  issue(cmd: number, data: bigint): SevAnswer {
    return this.device.issueCmd(this.fd, this.memory, SevIssueCmd.encode({ cmd, data, error: CALLERS_OWN }));
  }

  /** [ret, error] of a command on these bytes. */
  call(cmd: number, data: Uint8Array | bigint): [number, number | null] {
    const { ret, argument } = this.issue(cmd, data instanceof Uint8Array ? this.memory.map(data) : data);
    return [ret, argument === null ? null : SevIssueCmd.get(argument, 'error')];
  }

  firmwareCommands(run: () => void): string[] {
    this.host.psp.commands.length = 0;
    run();
    const names = new Map<number, string>(Object.entries(SevCmd).map(([name, id]) => [id, name]));
    return this.host.psp.commands.map((id) => names.get(id)!);
  }
}

/** The chip of TestHost. */
function wrappedVlek(): Uint8Array {
  const crypto = nodeCrypto({ deterministic: true });
  const random = seededRandom(3);
  const secret = new Uint8Array(32).fill(7);
  const tcb = { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
  const stick = descend(crypto, topStick(crypto, new Uint8Array(32).fill(9), 'Milan'), tcb)!;
  return wrapHashstick(crypto, random, chipWrappingKey(crypto, secret), stick);
}

const vlekLoad = (fields: Partial<SevUserDataSnpVlekLoad>): Uint8Array =>
  SevUserDataSnpVlekLoad.encode({ len: 16, vlek_wrapped_version: 0, ...fields });

describe('SEV_ISSUE_CMD', () => {
  it('is ENODEV without a secure processor', () => {
    const client = new Client(true, new TestHost(undefined, { psp: null }));
    expect(client.call(C.SEV_PLATFORM_STATUS, new Uint8Array(12))[0]).toBe(-Errno.ENODEV);
    expect(client.device.otherIoctl(client.fd, 0x5301)).toBe(-Errno.ENODEV);
  });

  it('is EINVAL with another ioctl number', () => {
    const client = new Client(true);
    for (const nr of [0xc0105301, 0x5300, 0, 0xffff_ffff]) {
      expect(client.device.otherIoctl(client.fd, nr)).toBe(-Errno.EINVAL);
    }
  });

  it.each([13, 14, 0x7fff_ffff, 0xffff_ffff])(
    'is EINVAL for command %d, and nothing is written back',
    (cmd) => {
      for (const write of [false, true]) {
        expect(new Client(write).issue(cmd, 0n)).toEqual({ ret: -Errno.EINVAL, argument: null });
      }
    },
  );

  it.each(COMMANDS)('writes the structure of %s back whatever the result, `data` unchanged', (_, cmd) => {
    for (const data of [0n, 8n]) {
      const client = new Client(true);
      const { argument } = client.issue(cmd, data);
      expect(SevIssueCmd.decode(argument!)).toMatchObject({ cmd, data });
    }
  });

  it('gives EIO and the status for a refusal of the firmware, 0 and 0 for success', () => {
    const client = new Client(true);
    client.host.psp.intercept = (id) =>
      id === SevCmd.SEV_CMD_SNP_COMMIT ? SevRet.SEV_RET_INVALID_CONFIG : null;
    expect(client.call(C.SNP_COMMIT, 0n)).toEqual([-Errno.EIO, SevRet.SEV_RET_INVALID_CONFIG]);
    client.host.psp.intercept = () => null;
    expect(client.call(C.SNP_COMMIT, 0n)).toEqual([0, 0]);
  });

  it('is ETIMEDOUT with error 0 for a processor that does not answer, and EBUSY ever after', () => {
    const client = new Client(true);
    client.host.psp.intercept = () => 'timeout';
    expect(client.call(C.SNP_COMMIT, 0n)).toEqual([-Errno.ETIMEDOUT, 0]);
    client.host.psp.intercept = () => null;
    for (const cmd of [C.SNP_COMMIT, C.SEV_PLATFORM_STATUS, C.SNP_PLATFORM_STATUS, C.SEV_GET_ID2]) {
      expect(client.call(cmd, new Uint8Array(32))[0]).toBe(-Errno.EBUSY);
    }
  });
});

describe('write permission of the descriptor', () => {
  const needed = new Set<number>([
    C.SEV_FACTORY_RESET,
    C.SEV_PEK_GEN,
    C.SEV_PEK_CSR,
    C.SEV_PDH_GEN,
    C.SEV_PEK_CERT_IMPORT,
    C.SNP_SET_CONFIG,
    C.SNP_VLEK_LOAD,
  ]);

  it.each(COMMANDS)('%s', (_, cmd) => {
    const [ret, error] = new Client(false).call(cmd, new Uint8Array(128));
    if (needed.has(cmd)) {
      expect([ret, error]).toEqual([-Errno.EPERM, CALLERS_OWN]);
    } else {
      expect(ret).not.toBe(-Errno.EPERM);
    }
    expect(new Client(true).call(cmd, new Uint8Array(128))[0]).not.toBe(-Errno.EPERM);
  });

  it('is needed by SEV_PDH_CERT_EXPORT only while the platform is not in INIT', () => {
    const down = new Client(false, new TestHost(undefined, { initOnProbe: false }));
    expect(down.call(C.SEV_PDH_CERT_EXPORT, new Uint8Array(24))[0]).toBe(-Errno.EPERM);
    expect(new Client(false).call(C.SEV_PDH_CERT_EXPORT, new Uint8Array(24))).toEqual([
      -Errno.EIO,
      SevRet.SEV_RET_INVALID_LEN,
    ]);
  });
});

describe('a `data` pointer that faults', () => {
  const rows = COMMANDS.filter(
    ([name]) => !['SEV_FACTORY_RESET', 'SEV_PEK_GEN', 'SEV_PDH_GEN', 'SNP_COMMIT'].includes(name),
  );

  it.each(rows)('%s: EFAULT', (_, cmd) => {
    const client = new Client(true);
    for (const data of [8n, client.memory.map(new Uint8Array(7)), 0xffff_ffff_ffff_fff8n]) {
      expect(client.issue(cmd, data).ret).toBe(-Errno.EFAULT);
    }
  });

  it.each(rows.filter(([name]) => !/CERT_IMPORT|CONFIG|VLEK/.test(name)))(
    '%s: EFAULT where the result cannot be written, after the command ran',
    (_, cmd) => {
      const client = new Client(true);
      const data = client.memory.map(new Uint8Array(128), false);
      const commands = client.firmwareCommands(() => {
        expect(client.issue(cmd, data).ret).toBe(-Errno.EFAULT);
      });
      expect(commands.length).toBeGreaterThan(0);
    },
  );

  it.each(['SEV_FACTORY_RESET', 'SEV_PEK_GEN', 'SEV_PDH_GEN', 'SNP_COMMIT'] as const)(
    '%s does not look at it',
    (name) => {
      const client = new Client(true);
      client.memory.log.length = 0;
      expect(client.issue(C[name], 8n).ret).not.toBe(-Errno.EFAULT);
      expect(client.memory.log).toEqual([]);
    },
  );
});

describe('legacy commands', () => {
  it('SEV_FACTORY_RESET: in INIT it shuts the platform down first', () => {
    const client = new Client(true);
    const commands = client.firmwareCommands(() => {
      expect(client.call(C.SEV_FACTORY_RESET, 0n)).toEqual([0, 0]);
    });
    expect(commands).toEqual(['SEV_CMD_PLATFORM_STATUS', 'SEV_CMD_SHUTDOWN', 'SEV_CMD_FACTORY_RESET']);
  });

  it('SEV_PLATFORM_STATUS: 12 bytes', () => {
    const client = new Client(false);
    const data = client.memory.map(new Uint8Array(16).fill(0xee));
    expect(client.issue(C.SEV_PLATFORM_STATUS, data).ret).toBe(0);
    const bytes = client.memory.at(data);
    expect(SevUserDataStatus.decode(bytes.slice(0, 12))).toMatchObject({ api_major: 1, state: 1 });
    expect(bytes.subarray(12)).toEqual(new Uint8Array(4).fill(0xee));
  });

  const CERT = 2084;
  const csr = (client: Client, address: bigint, length: number): [number, number | null, number] => {
    const data = client.memory.map(SevUserDataPekCsr.encode({ address, length }));
    const result = client.call(C.SEV_PEK_CSR, data);
    expect(SevUserDataPekCsr.get(client.memory.at(data), 'address')).toBe(address);
    return [...result, SevUserDataPekCsr.get(client.memory.at(data), 'length')];
  };

  it('SEV_PEK_CSR: 2084 bytes, a query for anything less, EFAULT for more than 0x4000', () => {
    const client = new Client(true);
    const address = client.memory.map(new Uint8Array(0x4001).fill(0xee));
    expect(csr(client, address, 0x4001)).toEqual([-Errno.EFAULT, CALLERS_OWN, 0x4001]);
    expect(client.memory.at(address)).toEqual(new Uint8Array(0x4001).fill(0xee));
    for (const [at, length] of [
      [0n, 0],
      [0n, CERT],
      [0n, 0x4001],
      [address, 0],
    ] as const) {
      expect(csr(client, at, length)).toEqual([-Errno.EIO, SevRet.SEV_RET_INVALID_LEN, CERT]);
    }
    expect(client.memory.at(address)).toEqual(new Uint8Array(0x4001).fill(0xee));
    expect(csr(client, address, 0x4000)).toEqual([0, 0, CERT]);
    const bytes = client.memory.at(address);
    expect(SevCertificate.decode(bytes.slice(0, CERT))).toMatchObject({ pubkey_usage: SevCertUsage.PEK });
    expect(bytes.subarray(CERT)).toEqual(new Uint8Array(0x4001 - CERT).fill(0xee));
    expect(csr(client, 8n, CERT)).toEqual([-Errno.EFAULT, 0, CERT]);
    expect(csr(client, client.memory.map(new Uint8Array(CERT), false), CERT)[0]).toBe(-Errno.EFAULT);
  });

  const certExport = (client: Client, change: Partial<SevUserDataPdhCertExport>) => {
    const pdh = client.memory.map(new Uint8Array(0x4000).fill(0xee));
    const chain = client.memory.map(new Uint8Array(0x4000).fill(0xee));
    const request = {
      ...{ pdh_cert_address: pdh, pdh_cert_len: 0x4000 },
      ...{ cert_chain_address: chain, cert_chain_len: 0x4000 },
      ...change,
    };
    const data = client.memory.map(SevUserDataPdhCertExport.encode(request));
    const [ret] = client.call(C.SEV_PDH_CERT_EXPORT, data);
    const after = SevUserDataPdhCertExport.decode(client.memory.at(data));
    expect([after.pdh_cert_address, after.cert_chain_address]).toEqual([
      request.pdh_cert_address,
      request.cert_chain_address,
    ]);
    return {
      ret,
      lengths: [after.pdh_cert_len, after.cert_chain_len],
      blobs: [client.memory.at(pdh), client.memory.at(chain)] as const,
    };
  };

  it('SEV_PDH_CERT_EXPORT: PDH, and PEK, OCA and CEK, and nothing behind them', () => {
    const { ret, lengths, blobs } = certExport(new Client(false), {});
    expect([ret, lengths]).toEqual([0, [CERT, 3 * CERT]]);
    const usages = [0, 1, 2].map((i) => SevCertificate.get(blobs[1], 'pubkey_usage', i * CERT));
    expect([SevCertificate.get(blobs[0], 'pubkey_usage'), ...usages]).toEqual([
      SevCertUsage.PDH,
      SevCertUsage.PEK,
      SevCertUsage.OCA,
      SevCertUsage.CEK,
    ]);
    expect(blobs[0].subarray(CERT)).toEqual(new Uint8Array(0x4000 - CERT).fill(0xee));
    expect(blobs[1].subarray(3 * CERT)).toEqual(new Uint8Array(0x4000 - 3 * CERT).fill(0xee));
  });

  it.each([{ pdh_cert_address: 0n }, { pdh_cert_len: 0 }, { cert_chain_address: 0n }, { cert_chain_len: 0 }])(
    'SEV_PDH_CERT_EXPORT with %o asks for both lengths and touches no buffer',
    (change) => {
      const { ret, lengths, blobs } = certExport(new Client(false), change);
      expect([ret, lengths]).toEqual([-Errno.EIO, [CERT, 3 * CERT]]);
      expect(blobs).toEqual([new Uint8Array(0x4000).fill(0xee), new Uint8Array(0x4000).fill(0xee)]);
    },
  );

  it('SEV_PDH_CERT_EXPORT: too small is a query, a length above 0x4000 or a fault EFAULT', () => {
    const client = new Client(true);
    expect(certExport(client, { cert_chain_len: 3 * CERT - 1 })).toMatchObject({
      ...{ ret: -Errno.EIO, lengths: [CERT, 3 * CERT] },
    });
    for (const change of [
      { pdh_cert_len: 0x4001 },
      { cert_chain_len: 0x4001 },
      { pdh_cert_address: 8n },
      { cert_chain_address: 8n },
      { cert_chain_address: client.memory.map(new Uint8Array(0x4000), false) },
    ]) {
      expect(certExport(client, change).ret).toBe(-Errno.EFAULT);
    }
  });

  it('give no client what another one had in its buffers', () => {
    const client = new Client(true);
    const secret = client.memory.map(new Uint8Array(0x4000).fill(0x5e));
    const both = {
      pek_cert_address: secret,
      pek_cert_len: 0x4000,
      oca_cert_address: secret,
      oca_cert_len: 1,
    };
    client.call(C.SEV_PEK_CERT_IMPORT, SevUserDataPekCertImport.encode(both));
    const address = client.memory.map(new Uint8Array(0x4000).fill(0xee));
    // Too small: the driver copies the whole of its own buffer out, which nobody has filled.
    expect(csr(client, address, CERT - 1)[0]).toBe(-Errno.EIO);
    expect(client.memory.at(address).subarray(0, CERT - 1)).toEqual(new Uint8Array(CERT - 1));
  });

  it('an owner takes the platform, and a reset gives it back', () => {
    const client = new Client(true);
    const owner = new Owner();
    const flags = (): number => {
      const data = client.memory.map(new Uint8Array(12));
      client.issue(C.SEV_PLATFORM_STATUS, data);
      return SevUserDataStatus.get(client.memory.at(data), 'flags');
    };
    const take = () => {
      const at = client.memory.map(new Uint8Array(CERT));
      csr(client, at, CERT);
      const request = SevUserDataPekCertImport.encode({
        ...{ pek_cert_address: client.memory.map(owner.sign(client.memory.at(at))), pek_cert_len: CERT },
        ...{ oca_cert_address: client.memory.map(owner.certificate), oca_cert_len: CERT },
      });
      return client.call(C.SEV_PEK_CERT_IMPORT, request);
    };
    expect([take(), flags()]).toEqual([[0, 0], 0x101]);
    expect(take()).toEqual([-Errno.EIO, SevRet.SEV_RET_ALREADY_OWNED]);
    expect([client.call(C.SEV_FACTORY_RESET, 0n), flags()]).toEqual([[0, 0], 0]);
  });

  it('SEV_PEK_CERT_IMPORT: pointer 0, length 0 or length above 0x4000 is EINVAL, a fault EFAULT', () => {
    const client = new Client(true);
    const blob = client.memory.map(new Uint8Array(0x4000));
    const good = {
      ...{ pek_cert_address: blob, pek_cert_len: 2084 },
      ...{ oca_cert_address: blob, oca_cert_len: 0x4000 },
    };
    const call = (change: Partial<SevUserDataPekCertImport>): number =>
      client.call(C.SEV_PEK_CERT_IMPORT, SevUserDataPekCertImport.encode({ ...good, ...change }))[0];
    for (const name of ['pek_cert', 'oca_cert'] as const) {
      expect(call({ [`${name}_address`]: 0n })).toBe(-Errno.EINVAL);
      expect(call({ [`${name}_len`]: 0 })).toBe(-Errno.EINVAL);
      expect(call({ [`${name}_len`]: 0x4001 })).toBe(-Errno.EINVAL);
      expect(call({ [`${name}_address`]: 8n })).toBe(-Errno.EFAULT);
    }
    expect(call({})).toBe(-Errno.EIO);
  });

  it.each(['SEV_PEK_GEN', 'SEV_PDH_GEN'] as const)('%s: another PDH for everybody', (name) => {
    const client = new Client(true);
    const pdh = (): string => toHex(certExport(client, {}).blobs[0].subarray(0, CERT));
    const before = pdh();
    expect(client.call(C[name], 0n)).toEqual([0, 0]);
    const after = pdh();
    expect(after).not.toBe(before);
    expect(pdh()).toBe(after);
  });

  it('SEV_GET_ID: 128 bytes, the first 64 the chip', () => {
    const client = new Client(false);
    const data = client.memory.map(new Uint8Array(128));
    expect(client.issue(C.SEV_GET_ID, data).ret).toBe(0);
    expect(
      client.memory
        .at(data)
        .subarray(0, 64)
        .some((byte) => byte !== 0),
    ).toBe(true);
  });
});

describe('SEV_GET_ID2', () => {
  const get = (address: (client: Client) => bigint, length: number, writable = true) => {
    const client = new Client(false);
    const data = client.memory.map(SevUserDataGetId2.encode({ address: address(client), length }), writable);
    const { ret, argument } = client.issue(C.SEV_GET_ID2, data);
    const returned = SevUserDataGetId2.decode(client.memory.at(data));
    return { client, result: [ret, readU32(argument!, 12), returned.length], returned };
  };
  const room =
    (size: number, writable = true) =>
    (client: Client): bigint =>
      client.memory.map(new Uint8Array(size).fill(0xee), writable);

  it('fills the buffer and says how much of it', () => {
    const { client, result, returned } = get(room(100), 100);
    expect(result).toEqual([0, 0, 64]);
    const bytes = client.memory.at(returned.address);
    expect(bytes.subarray(0, 64).some((byte) => byte !== 0xee)).toBe(true);
    expect(bytes.subarray(64)).toEqual(new Uint8Array(36).fill(0xee));
  });

  it.each([
    ['address 0', () => 0n, 64],
    ['length 0', room(64), 0],
    ['a buffer that is too small', room(63), 63],
  ] as const)('with %s is EIO and INVALID_LEN, and says the length that is needed', (_, address, length) => {
    expect(get(address, length).result).toEqual([-Errno.EIO, SevRet.SEV_RET_INVALID_LEN, 64]);
  });

  it('is ENOMEM for a length no kernel allocates', () => {
    expect(get(room(64), 0xffff_ffff).result[0]).toBe(-Errno.ENOMEM);
  });

  it('is EFAULT where the identifier or the structure cannot be written', () => {
    expect(get(room(64, false), 64).result).toEqual([-Errno.EFAULT, 0, 64]);
    expect(get(room(64), 64, false).result).toEqual([-Errno.EFAULT, 0, 64]);
    expect(get(() => 8n, 64).result[0]).toBe(-Errno.EFAULT);
  });
});

describe('SNP commands', () => {
  it('SNP_PLATFORM_STATUS: EINVAL for data 0, 32 bytes in every state', () => {
    for (const initOnProbe of [false, true]) {
      const client = new Client(false, new TestHost(undefined, { initOnProbe }));
      expect(client.call(C.SNP_PLATFORM_STATUS, 0n)[0]).toBe(-Errno.EINVAL);
      const data = client.memory.map(new Uint8Array(32));
      expect(client.issue(C.SNP_PLATFORM_STATUS, data).ret).toBe(0);
      expect(SevUserDataSnpStatus.decode(client.memory.at(data)).state).toBe(Number(initOnProbe));
    }
  });

  it('SNP_COMMIT: a descriptor without write permission is enough, the pointer is ignored', () => {
    expect(new Client(false).call(C.SNP_COMMIT, 8n)).toEqual([0, 0]);
  });

  it.each([C.SNP_SET_CONFIG, C.SNP_VLEK_LOAD])(
    'command %d checks data 0, write permission, SNP initialised and the pointer, in this order',
    (cmd) => {
      const down = () => new TestHost(undefined, { initOnProbe: false });
      expect(new Client(false, down()).call(cmd, 0n)[0]).toBe(-Errno.EINVAL);
      expect(new Client(false, down()).call(cmd, 8n)[0]).toBe(-Errno.EPERM);
      expect(new Client(true, down()).call(cmd, 8n)[0]).toBe(-Errno.ENODEV);
      expect(new Client(true).call(cmd, 8n)[0]).toBe(-Errno.EFAULT);
    },
  );

  it('SNP_SET_CONFIG: what is set is what SNP_PLATFORM_STATUS shows', () => {
    const client = new Client(true);
    const status = (): SevUserDataSnpStatus => {
      const data = client.memory.map(new Uint8Array(32));
      client.issue(C.SNP_PLATFORM_STATUS, data);
      return SevUserDataSnpStatus.decode(client.memory.at(data));
    };
    const before = status();
    const reported_tcb = before.reported_tcb - 1n;
    const config = SevDataSnpConfig.encode({ reported_tcb, flags: { mask_chip_id: 1, mask_chip_key: 0 } });
    expect(client.call(C.SNP_SET_CONFIG, config)).toEqual([0, 0]);
    expect(status()).toMatchObject({ reported_tcb, features: { mask_chip_id: 1 } });
    expect(client.call(C.SNP_SET_CONFIG, new Uint8Array(64))).toEqual([0, 0]);
    expect(status().features.mask_chip_id).toBe(0);
    config[63] = 1;
    expect(client.call(C.SNP_SET_CONFIG, config)[0]).toBe(-Errno.EIO);
  });

  it('SNP_VLEK_LOAD: len other than 16, version other than 0 or address 0 is EINVAL', () => {
    const client = new Client(true);
    const vlek_wrapped_address = client.memory.map(wrappedVlek());
    for (const wrong of [
      { vlek_wrapped_address, len: 15 },
      { vlek_wrapped_address, vlek_wrapped_version: 1 },
      { vlek_wrapped_address: 0n },
    ]) {
      expect(client.call(C.SNP_VLEK_LOAD, vlekLoad(wrong))).toEqual([-Errno.EINVAL, CALLERS_OWN]);
    }
  });

  it('SNP_VLEK_LOAD: 432 bytes are read, fewer are EFAULT', () => {
    const client = new Client(true);
    const wrapped = wrappedVlek();
    const load = (bytes: Uint8Array): [number, number | null] =>
      client.call(C.SNP_VLEK_LOAD, vlekLoad({ vlek_wrapped_address: client.memory.map(bytes) }));
    expect(load(wrapped.subarray(0, 431))).toEqual([-Errno.EFAULT, CALLERS_OWN]);
    const [ret, error] = load(wrapped);
    // The firmware has judged the stick itself, whose TCB is not the reported one.
    expect([ret, error]).not.toEqual([-Errno.EFAULT, CALLERS_OWN]);
    expect(client.memory.log).toContainEqual(expect.stringMatching(/^read 0x[0-9a-f]+\+432$/));
  });
});

describe('the file', () => {
  it('is of mode 0600, opens any way, and its descriptors command what the access mode allows', async () => {
    const client = new Client(true);
    const node = sevFile(client.device);
    expect(node.mode).toBe(0o600);
    for (const [flags, ret] of [
      [0, -Errno.EPERM],
      [1, 0],
      [2, 0],
    ] as const) {
      const file = (await TestFile.open(node, flags)) as TestFile;
      const data = client.memory.map(new Uint8Array(64));
      const input = SevIssueCmd.encode({ cmd: C.SNP_SET_CONFIG, data });
      expect((await file.ioctl(SEV_ISSUE_CMD, input, client.memory)).result).toBe(ret);
      expect(await file.read(1)).toBe(Errno.EINVAL);
      await file.close();
    }
  });

  it('answers with the structure for commands that exist, without for others', async () => {
    const client = new Client(true);
    const file = (await TestFile.open(sevFile(client.device), 2)) as TestFile;
    const input = (cmd: number) => SevIssueCmd.encode({ cmd, data: 0n, error: CALLERS_OWN });
    const { output } = await file.ioctl(SEV_ISSUE_CMD, input(C.SNP_COMMIT), client.memory);
    expect(SevIssueCmd.get(output!, 'error')).toBe(0);
    expect(await file.ioctl(SEV_ISSUE_CMD, input(13), client.memory)).toEqual({ result: -Errno.EINVAL });
    expect(await file.ioctl(0xc010_5301, input(0), client.memory)).toEqual({ result: -Errno.EINVAL });
  });

  it('closes its descriptor in the modelled process when it is released', async () => {
    const client = new Client(true);
    const node = sevFile(client.device);
    const next = client.device.open(true);
    client.device.close(next);
    for (let i = 0; i < 3; i++) {
      await ((await TestFile.open(node, 2)) as TestFile).close();
    }
    expect(client.device.open(true)).toBe(next);
  });
});
