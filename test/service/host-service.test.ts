// SPDX-License-Identifier: Apache-2.0
/** The rule of a running host: certificates and the key that signs change together. */
import { closeSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { SEV_ISSUE_CMD, SevIssueCmd, SevUserCmd, SevUserDataPdhCertExport } from '../../src/abi/dev-sev.ts';
import { Errno } from '../../src/abi/errno.ts';
import { encodeTcb } from '../../src/abi/tcb-version.ts';
import type { FileHandle, FileNode, IoctlRequest } from '../../src/devices/fuse/filesystem.ts';
import { TestMemory } from '../../src/devices/testing.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import { parseBlobFault } from '../../src/service/blob-faults.ts';
import { askExtReport, guestSpec, judge, type ServiceHost, serviceHost } from './service-host.ts';

const OLDER = { fmc: 0, boot_loader: 3, tee: 0, snp: 23, microcode: 213 };

let host: ServiceHost;
const begin = (...args: Parameters<typeof serviceHost>): ServiceHost => {
  host = serviceHost(...args);
  return host;
};
afterEach(() => host.close());

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Takes a lock as another program would. */
function lockBlob(path: string, type: 'read' | 'write'): () => void {
  const fd = openSync(path, 'r+');
  expect(tryLock(fd, type)).toBe('locked');
  return () => closeSync(fd);
}

const configure = (tcb: typeof OLDER): Promise<unknown> =>
  host.service.change('SNP_SET_CONFIG', () =>
    host.service.host.management.setConfig({
      reportedTcb: encodeTcb(tcb, 'Milan'),
      maskChipId: false,
      maskChipKey: false,
    }),
  );

const loadVlek = (): Promise<unknown> =>
  host.service.change('SNP_VLEK_LOAD', () => host.service.host.loadVlek());

describe('a running host', () => {
  it('gives every guest a report and the certificates of the key that signed it', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b')];
    for (const guest of guests) {
      expect(judge(await askExtReport(guest))?.key).toBe('VCEK');
    }
    expect(statSync(guests[0]!.blob.name).mode & 0o777).toBe(0o600);
  });

  it('rewrites the blobs when SNP_CONFIG lowers REPORTED_TCB, and saves the state', async () => {
    begin();
    const guest = await host.add('a');
    await configure(OLDER);
    expect(judge(await askExtReport(guest))).toEqual({ key: 'VCEK', tcb: encodeTcb(OLDER, 'Milan') });
    expect(JSON.stringify(host.saved.at(-1)?.platform)).toContain('0xd517000000000003');
  });

  it('changes to the VLEK and its certificates when one is loaded, and back when it is lost', async () => {
    begin();
    const guest = await host.add('a');
    await loadVlek();
    expect(judge(await askExtReport(guest))?.key).toBe('VLEK');
    await configure(OLDER);
    expect(judge(await askExtReport(guest))?.key).toBe('VCEK');
  });

  it('keeps a guest to the certificates of its own key', async () => {
    begin();
    const [auto, vcek] = [await host.add('auto'), await host.add('vcek', 'vcek')];
    expect(judge(await askExtReport(auto))?.key).toBe('VCEK');
    // It brings the VLEK with it, and takes it along through whatever drops one.
    const vlek = await host.add('vlek', 'vlek');
    const commit = () => host.service.change('SNP_COMMIT', () => host.service.host.management.commit());
    for (const change of [async () => undefined, () => configure(OLDER), commit]) {
      await change();
      const tcb = encodeTcb(host.service.reportedTcb, 'Milan');
      expect(judge(await askExtReport(auto))).toEqual({ key: 'VLEK', tcb });
      expect(judge(await askExtReport(vcek, 1))).toEqual({ key: 'VCEK', tcb });
      expect(judge(await askExtReport(vlek))).toEqual({ key: 'VLEK', tcb });
      expect(judge(await askExtReport(vlek, 2))).toEqual({ key: 'VLEK', tcb });
      expect(readFileSync(vcek.blob.name).equals(readFileSync(vlek.blob.name))).toBe(false);
    }
    // As on hardware: a client that does not choose gets the VLEK's signature, whatever its guest is for.
    expect(judge(await askExtReport(vcek))).toBeNull();
  });

  it('adds no guest for the VLEK while a blob stays locked, and none that cannot have one', async () => {
    begin();
    const guest = await host.add('a');
    const unlock = lockBlob(guest.blob.name, 'read');
    await expect(host.add('vlek', 'vlek')).rejects.toMatchObject({ code: 'BLOB_BUSY' });
    unlock();
    expect([...host.service.guests.keys()]).toEqual(['a']);
    expect(host.service.signingKey).toBe('VCEK');
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual(['a.blob']);
    expect(judge(await askExtReport(await host.add('vlek', 'vlek')))?.key).toBe('VLEK');
  });

  it('never pairs a report with certificates of another key, however changes and requests meet', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b'), await host.add('c')];
    const seen = new Set<string>();
    const asking = guests.map(async (guest) => {
      for (let i = 0; i < 20; i++) {
        await turn();
        const reply = await askExtReport(guest);
        expect(reply.ret).toBe(0);
        const found = judge(reply);
        expect(found).not.toBeNull();
        seen.add(`${found!.key} ${found!.tcb}`);
      }
    });
    const changing = (async () => {
      for (let i = 0; i < 8; i++) {
        await turn();
        await (i % 2 === 0 ? loadVlek() : configure({ ...OLDER, microcode: 200 + i }));
      }
    })();
    await Promise.all([...asking, changing]);
    expect(seen.size).toBeGreaterThan(3);
  });

  it('changes nothing while somebody keeps a blob locked', async () => {
    begin();
    const guest = await host.add('a');
    const before = readFileSync(guest.blob.name);
    const unlock = lockBlob(guest.blob.name, 'read');
    expect(await configure(OLDER)).toBeNull();
    expect(host.saved).toEqual([]);
    expect(readFileSync(guest.blob.name).equals(before)).toBe(true);
    unlock();
    expect(await configure(OLDER)).toEqual({ ok: true });
  });

  it('lets a guest wait while its blob is being changed by somebody else', async () => {
    begin();
    const guest = await host.add('a');
    const unlock = lockBlob(guest.blob.name, 'write');
    const answer = askExtReport(guest);
    await turn();
    unlock();
    expect(judge(await answer)?.key).toBe('VCEK');
  });

  it('leaves a blob alone that somebody else keeps', async () => {
    begin();
    const path = join(host.folder, 'theirs.blob');
    writeFileSync(path, new Uint8Array(24));
    const answer = await host.service.addGuest(guestSpec('a', 'auto', path));
    await configure(OLDER);
    expect(answer.ok && (await askExtReport(answer.served)).ret).toBe(0);
    expect(readFileSync(path).equals(Buffer.alloc(24))).toBe(true);
    await host.service.removeGuest('a');
    expect(readFileSync(path).length).toBe(24);
  });

  it('gives a guest that boots while the key changes the certificates of the new one', async () => {
    begin();
    const adding = host.add('a');
    await expect(host.add('a')).rejects.toThrow(/name/);
    await configure(OLDER);
    expect(judge(await askExtReport(await adding))?.tcb).toBe(encodeTcb(OLDER, 'Milan'));
  });

  it('keeps nothing of a guest that could not be launched, or was removed', async () => {
    begin();
    const spec = guestSpec('a');
    const refused = await host.service.addGuest({ ...spec, settings: { ...spec.settings, policy: 0n } });
    expect(refused).toMatchObject({ ok: false, step: expect.stringContaining('LAUNCH_START') });
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    for (let i = 0; i < 3; i++) {
      await askExtReport(await host.add('a'));
      await host.service.removeGuest('a');
    }
    expect(open()).toBe(before);
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual([]);
  });

  it('removes a guest with its blob and answers EIO to those that wait for it', async () => {
    begin();
    const guest = await host.add('a');
    const waiting = askExtReport(guest);
    await host.service.removeGuest('a');
    expect((await waiting).ret).toBe(-Errno.EIO);
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual([]);
    await host.add('a');
  });

  it('refuses names that are taken or cannot be names of files', async () => {
    begin();
    await host.add('a');
    for (const name of ['a', '', '.', '../a', 'a/b', '-a', 'a'.repeat(64)]) {
      await expect(host.service.addGuest(guestSpec(name))).rejects.toThrow(/name/);
    }
  });

  it('goes on with the TCB and the keys of the last start', async () => {
    begin();
    const first = judge(await askExtReport(await host.add('a')));
    await configure(OLDER);
    const state = host.saved.at(-1)!;
    await host.close();
    begin(2, state);
    const again = judge(await askExtReport(await host.add('a')));
    expect(again).toEqual({ ...first, tcb: encodeTcb(OLDER, 'Milan') });
  });
});

describe('/dev/sev of a running host', () => {
  const commit = SevIssueCmd.encode({ cmd: SevUserCmd.SNP_COMMIT, data: 0n });
  const request = (input: Uint8Array): IoctlRequest => ({
    ...{ cmd: SEV_ISSUE_CMD, arg: 0n, input, outputSize: 16 },
    caller: { uid: 0, gid: 0, pid: 1 },
    memory: { read: () => ({ errno: Errno.EFAULT }), write: () => ({ errno: Errno.EFAULT }) },
  });
  const open = async (): Promise<FileHandle> =>
    (await (host.service.hostPlaces['/dev/sev'] as FileNode).open(2, {
      uid: 0,
      gid: 0,
      pid: 1,
    })) as FileHandle;

  it('rewrites the blobs with SNP_COMMIT', async () => {
    begin();
    const guest = await host.add('a');
    await configure(OLDER);
    expect(await (await open()).ioctl!(request(commit))).toMatchObject({ result: 0 });
    const after = judge(await askExtReport(guest));
    expect(after).toEqual({ key: 'VCEK', tcb: encodeTcb(host.service.host.chip.currentTcb, 'Milan') });
  });

  it('answers EBUSY to SNP_COMMIT while a blob stays locked, and other commands at once', async () => {
    begin();
    const guest = await host.add('a');
    const unlock = lockBlob(guest.blob.name, 'read');
    const handle = await open();
    expect(await handle.ioctl!(request(commit))).toEqual({ result: -Errno.EBUSY });
    const status = SevIssueCmd.encode({ cmd: SevUserCmd.SNP_PLATFORM_STATUS, data: 0n });
    expect(await handle.ioctl!(request(status))).toMatchObject({ result: -Errno.EINVAL });
    unlock();
  });

  /** One command in memory of its own: the PDH, when the command exports it. */
  const legacy = async (cmd: number): Promise<string> => {
    const memory = new TestMemory();
    const pdh = memory.map(new Uint8Array(2084));
    const data = memory.map(
      SevUserDataPdhCertExport.encode({
        ...{ pdh_cert_address: pdh, pdh_cert_len: 2084 },
        ...{ cert_chain_address: memory.map(new Uint8Array(6252)), cert_chain_len: 6252 },
      }),
    );
    const input = SevIssueCmd.encode({ cmd, data });
    expect(await (await open()).ioctl!({ ...request(input), memory })).toMatchObject({ result: 0 });
    return toHex(memory.at(pdh));
  };

  it('has the keys of legacy SEV saved before it answers, and goes on with them', async () => {
    begin();
    const before = host.saved.length;
    const first = await legacy(SevUserCmd.SEV_PDH_CERT_EXPORT);
    expect(host.saved.length).toBe(before + 1);
    expect(await legacy(SevUserCmd.SEV_PDH_CERT_EXPORT)).toBe(first);
    expect(host.saved.length).toBe(before + 1);
    for (const cmd of [SevUserCmd.SEV_PDH_GEN, SevUserCmd.SEV_PEK_GEN, SevUserCmd.SEV_FACTORY_RESET]) {
      await legacy(cmd);
    }
    expect(host.saved.length).toBe(before + 4);
    const last = await legacy(SevUserCmd.SEV_PDH_CERT_EXPORT);
    expect(last).not.toBe(first);
    const state = host.saved.at(-1)!;
    host.close();
    begin(2, state);
    expect(await legacy(SevUserCmd.SEV_PDH_CERT_EXPORT)).toBe(last);
    expect(host.saved).toEqual([]);
  });
});

describe('faults on demand', () => {
  const outcome = async (rule: string, certsLen = 0x4000) => {
    begin();
    const guest = await host.add('a');
    guest.faults.add(parseBlobFault(rule));
    const { ret, exitinfo2 } = await askExtReport(guest, 0, certsLen);
    return { ret, exitinfo2, next: (await askExtReport(guest)).ret };
  };

  it('certs=busy makes the guest try again after two seconds', async () => {
    expect(await outcome('certs=busy*2')).toEqual({ ret: 0, exitinfo2: 0n, next: 0 });
    expect(host.clock.monotonicMs()).toBeGreaterThanOrEqual(4000);
  });

  it('certs=grow tells a guest with too few pages how many it takes', async () => {
    const refused = { ret: -Errno.EIO, exitinfo2: 0x1_0000_0000n, next: 0 };
    expect(await outcome('certs=grow:8192*1', 0x2000)).toEqual(refused);
  });

  it.each(['certs=missing*1', 'certs=malformed*1'])(
    '%s fails the request and disables the VMPCK, as on Linux',
    async (rule) => {
      const { ret, next } = await outcome(rule);
      expect([ret, next]).toEqual([-Errno.EIO, -Errno.ENOTTY]);
    },
  );

  it.each(['certs=', 'certs=busy*0', 'certs=grow', 'certs=grow:1234567', 'vcek=500', 'certs=busy*1 '])(
    'refuses %j',
    (rule) => {
      begin();
      expect(() => parseBlobFault(rule)).toThrow(/certs=/);
    },
  );
});
