// SPDX-License-Identifier: Apache-2.0
/** Snapshots of a running host: what was seen is seen again, whatever happened in between; or nothing changes. */
import { generateKeyPairSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { SevUserCmd } from '../../src/abi/dev-sev.ts';
import { Errno } from '../../src/abi/errno.ts';
import { idblockVerb } from '../../src/cli/idblock.ts';
import { runCli } from '../../src/cli/run.ts';
import type { DirectoryNode, FileNode } from '../../src/devices/fuse/filesystem.ts';
import { TestFile } from '../../src/devices/testing.ts';
import { parseFaultRule } from '../../src/kds/index.ts';
import { defaultImage } from '../../src/launch/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import type { MachineCrypto } from '../../src/lib/crypto.ts';
import { EnvironmentError, InputError } from '../../src/lib/errors.ts';
import { type HostState, newHostState } from '../../src/machine/index.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import { MachineRefusal } from '../../src/service/host-control.ts';
import type { SnapshotDocument } from '../../src/service/snapshot-document.ts';
import { askExtReport, judge, type ServiceHostOptions } from './service-host.ts';
import {
  derivedKey,
  openDevSev,
  reportGroupOf,
  resealed,
  type SnapshotHost,
  saved,
  seen,
  seenIn,
  sentBy,
  sevCommand,
  snapshotHost,
} from './snapshot-host.ts';

const NUM_RUNS = Number(process.env['FC_NUM_RUNS'] ?? 150);
const crypto = nodeCrypto({ deterministic: false });

let host: SnapshotHost;
const hosts: SnapshotHost[] = [];
const begin = (...args: Parameters<typeof snapshotHost>): SnapshotHost => {
  host = snapshotHost(...args);
  hosts.push(host);
  return host;
};
/** What the last start left that saved anything. */
let onDisk: HostState | null = null;
/** The next start of the host on what it saved, as after kill -9. */
const restarted = async (options: ServiceHostOptions = {}): Promise<SnapshotHost> => {
  const { state } = host.service.host;
  await host.close();
  onDisk = host.saved.at(-1) ?? onDisk ?? { ...state, platform: null };
  return begin(2, onDisk, options);
};
afterEach(async () => {
  onDisk = null;
  for (const each of hosts.splice(0)) {
    await each.close();
  }
});

const restore = async (document: unknown): Promise<void> => {
  const answer = await host.control.restoreSnapshot(document);
  expect(answer).not.toBeInstanceOf(MachineRefusal);
};

/** Why a document is refused; the host is then as it was. */
async function refusal(document: unknown): Promise<string> {
  const before = await seen(host);
  const guests = [...host.service.guests.values()];
  const saves = host.saved.length;
  const answer = await host.control.restoreSnapshot(document).catch((error: unknown) => {
    expect(error).toBeInstanceOf(InputError);
    return error as InputError;
  });
  expect(await seen(host)).toEqual(before);
  expect([...host.service.guests.values()]).toEqual(guests);
  expect(host.saved.length).toBe(saves);
  if (answer instanceof InputError) {
    return `${answer.code}: ${answer.message}`;
  }
  expect(answer).toBeInstanceOf(MachineRefusal);
  const { step, reason } = answer as MachineRefusal;
  return `MACHINE_REFUSED: ${step}: ${reason}`;
}

const firmware = (tcb: string, version: string) => host.control.updateFirmware({ tcb, version });

/** A file with what an image holds, in the folder of the host. */
function file(name: string, bytes: Uint8Array = defaultImage()): string {
  const path = join(host.folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** ID block and its authentication for the default image; paths. */
async function idBlock(svn: number): Promise<Record<string, string>> {
  await host.launch('measured');
  const measurement = toHex(host.guest('measured').measurement);
  await host.control.removeGuest('measured');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
  const key = file('key.pem', Buffer.from(privateKey.export({ format: 'pem', type: 'pkcs8' })));
  const paths = { 'id-block': join(host.folder, 'id-block'), 'id-auth': join(host.folder, 'id-auth') };
  const argv = ['create', '--measurement', measurement, '--id-key', key, '--author-key', key];
  const more = [
    '--guest-svn',
    String(svn),
    '--block-file',
    paths['id-block'],
    '--auth-file',
    paths['id-auth'],
  ];
  const output = { stdout: () => undefined, stderr: () => undefined };
  expect(await runCli(idblockVerb(output), [...argv, ...more], '0', output)).toBe(0);
  return paths;
}

describe('a snapshot', () => {
  it('brings back what every client saw, through everything that can be changed', async () => {
    begin();
    await host.launch('a', { smp: '2' });
    await host.launch('b', { ...(await idBlock(3)), key: 'vcek', 'host-data': 'c0ffee' });
    await firmware('5,0,25,220', '1.55.40');
    await host.control.commit();
    await firmware('6,0,26,221', '1.55.41');
    await host.control.config({ reported_tcb: '4,0,24,219', mask_chip_id: true });
    await host.launch('late', { key: 'vlek' });
    await host.control.loadVlek({});
    host.control.addFault({ rule: 'vcek=500*2' });
    const inside = [await seenIn(host, 'a'), await seenIn(host, 'b'), await seenIn(host, 'late')];
    const outside = await seen(host);
    const document = await saved(host);
    expect(await seen(host)).toEqual(outside);

    await firmware('7,0,27,222', '1.55.50');
    await host.control.commit();
    await host.control.config({ mask_chip_key: true });
    await host.control.removeGuest('a');
    await host.launch('c');
    host.control.clearFaults();
    host.guest('b').faults.add({ kind: 'missing', value: 0, times: 1 });
    expect((await askExtReport(host.guest('b'))).ret).toBe(-Errno.EIO);

    for (let i = 0; i < 2; i++) {
      await restore(document);
      expect(await seen(host)).toEqual(outside);
      const again = [await seenIn(host, 'a'), await seenIn(host, 'b'), await seenIn(host, 'late')];
      // Each report is signed by the key its certificates are for, and each message is the next one.
      expect(again).toEqual(later(inside, 4));
    }
    expect(host.saved.at(-1)!.platform).toEqual(document.platform);
  });

  it('is restored after a restart, when nothing but the state folder is left', async () => {
    begin();
    await host.launch('a', { 'host-data': '01' });
    await firmware('5,0,25,220', '1.55.40');
    await host.control.loadVlek({});
    const inside = await seenIn(host, 'a');
    const outside = await seen(host);
    const document = await saved(host);
    await restarted();
    await host.launch('guest');
    await restore(document);
    expect(await seen(host)).toEqual({ ...outside, status: moved(outside) });
    expect(await seenIn(host, 'a')).toEqual(later([inside], 4)[0]);
    await restarted();
    expect(host.control.status()).toMatchObject({ tcb: document.platform && { current: '5,0,25,220' } });
  });

  it('keeps a hash stick that the provider gave, which the next start alone would not', async () => {
    begin();
    await host.launch('a');
    await host.control.loadVlek({});
    const key = await derivedKey(host.guest('a'), 'VCEK');
    const document = await saved(host);
    expect(document.vlek).toHaveLength(864);
    expect((await saved(host)).vlek).toBe(document.vlek);
    await restarted();
    expect(host.service.signingKey).toBe('VCEK');
    await restore(document);
    expect(judge(await askExtReport(host.guest('a')))?.key).toBe('VLEK');
    expect(await derivedKey(host.guest('a'), 'VCEK')).toBe(key);
  });

  it.each(['Genoa', 'Turin'] as const)(
    'brings back a host of %s with reports of version 5',
    async (product) => {
      const chip = { reportVersion: 5, mitigations: { supported: 0x0fn, verified: 0x05n } } as const;
      begin(1, newHostState(crypto, seededRandom(1), product, { seed: 1 }), { chip });
      await host.launch('a');
      const inside = await seenIn(host, 'a');
      const outside = await seen(host);
      const document = await saved(host);
      expect(document.guests[0]!.context.launch_mit_vector).toBe('0x5');
      await firmware(product === 'Turin' ? '2,2,2,5,90' : '11,0,24,90', '1.55.60');
      await host.control.commit();
      await restore(document);
      expect(await seen(host)).toEqual(outside);
      expect(await seenIn(host, 'a')).toEqual(later([inside], 4)[0]);
    },
  );

  it('takes away a VLEK that was loaded later', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    await host.control.loadVlek({});
    await restore(document);
    expect(judge(await askExtReport(host.guest('a')))?.key).toBe('VCEK');
  });

  it('keeps a driver that was disabled so, and one that was not', async () => {
    begin();
    await host.launch('a');
    await host.launch('b');
    await askExtReport(host.guest('a'));
    host.control.addFault({ rule: 'certs=malformed*1', guest: 'a' });
    expect((await askExtReport(host.guest('a'))).ret).toBe(-Errno.EIO);
    const document = await saved(host);
    // The driver counts the message that the firmware never saw.
    expect(document.guests[0]).toMatchObject({
      driver: { msg_seqnos: [4, 0, 0, 0], vmpck_disabled: true },
      context: { msg_counts: ['0x2', '0x0', '0x0', '0x0'] },
    });
    await host.control.removeGuest('a');
    await host.launch('a');
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
    host.control.addFault({ rule: 'certs=malformed*1' });
    expect((await askExtReport(host.guest('b'))).ret).toBe(-Errno.EIO);
    await restore(document);
    expect((await askExtReport(host.guest('a'))).ret).toBe(-Errno.ENOTTY);
    expect((await askExtReport(host.guest('b'))).ret).toBe(0);
    expect((await saved(host)).guests[0]).toMatchObject({ driver: document.guests[0]!.driver });
  });

  it('goes on with the sequence numbers, and no message key ever seals two messages under one', async () => {
    const sealed = new Map<string, string>();
    const gcmSeal: MachineCrypto['gcmSeal'] = (key, nonce, aad, plaintext) => {
      const under = `${toHex(key)} ${toHex(nonce)}`;
      expect(sealed.get(under) ?? toHex(plaintext)).toBe(toHex(plaintext));
      sealed.set(under, toHex(plaintext));
      return crypto.gcmSeal(key, nonce, aad, plaintext);
    };
    begin(1, null, { crypto: { ...crypto, gcmSeal } });
    await host.launch('a');
    const requests = async (count: number): Promise<number[]> => {
      for (let i = 0; i < count; i++) {
        expect((await askExtReport(host.guest('a'))).ret).toBe(0);
        expect(await derivedKey(host.guest('a'), 'VMRK')).toMatch(/^00/);
      }
      return sentBy(host, 'a').slice(-2 * count);
    };
    await requests(2);
    const document = await saved(host);
    expect(await requests(3)).toEqual([9, 11, 13, 15, 17, 19]);
    for (let i = 0; i < 2; i++) {
      await restore(document);
      expect(await requests(3)).toEqual([9, 11, 13, 15, 17, 19]);
    }
    expect(sealed.size).toBe(2 * (4 + 3 * 6));
  });

  it('keeps faults of guests and key services with the times that are left', async () => {
    begin();
    await host.launch('a');
    for (const rule of ['certs=busy*3', 'certs=grow:4096', 'vcek=429:10*3', 'crl=slow:200']) {
      host.control.addFault({ rule });
    }
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
    host.kds.faults.take('vcek');
    const before = host.control.faults();
    expect(before).toEqual([
      { rule: 'vcek=429:10*2' },
      { rule: 'crl=slow:200' },
      { guest: 'a', rule: 'certs=grow:4096' },
    ]);
    const document = await saved(host);
    host.control.clearFaults();
    host.control.addFault({ rule: 'all=404' });
    await restore(document);
    expect(host.control.faults()).toEqual(before);
    expect(parseFaultRule(document.kds_faults[0]!).times).toBe(2);
  });

  it('keeps entries of configfs-tsm, and makes their reports anew', async () => {
    begin();
    await host.launch('a');
    const group = reportGroupOf(host, 'a');
    const entry = (await group.mkdir!('x', { uid: 0, gid: 0, pid: 1 })) as DirectoryNode;
    const open = async (folder: DirectoryNode, name: string, flags: number): Promise<TestFile> =>
      (await TestFile.open(folder.lookup(name) as FileNode, flags)) as TestFile;
    const write = async (name: string, bytes: Uint8Array): Promise<void> => {
      const opened = await open(entry, name, 1);
      await opened.write(bytes);
      await opened.close();
    };
    const read = async (folder: DirectoryNode, name: string): Promise<Uint8Array> =>
      (await (await open(folder, name, 0)).read(4096)) as Uint8Array;
    await write('privlevel', Buffer.from('2'));
    await write('inblob', new Uint8Array(64).fill(9));
    const outblob = await read(entry, 'outblob');
    const document = await saved(host);
    await write('inblob', new Uint8Array(64).fill(8));
    await group.mkdir!('y', { uid: 0, gid: 0, pid: 1 });
    await restore(document);
    expect(reportGroupOf(host, 'a')).toBe(group);
    expect([...group.entries()].map(([name]) => name)).toEqual(['x']);
    expect(await TestFile.open(entry.lookup('outblob') as FileNode, 0)).toBe(Errno.ENOENT);
    const now = group.lookup('x') as DirectoryNode;
    expect(String(Buffer.from(await read(now, 'generation')))).toBe('2\n');
    expect((await read(now, 'outblob')).subarray(0, 0x2a0)).toEqual(outblob.subarray(0, 0x2a0));
  });

  it('leaves a blob alone that somebody else keeps, and the guest with it', async () => {
    begin();
    const certs = file('theirs.blob', new Uint8Array(24));
    await host.launch('a', { certs });
    const document = await saved(host);
    await host.control.removeGuest('a');
    await restore(document);
    expect(host.guest('a').blob.name).toBe(certs);
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
    expect(readFileSync(certs)).toEqual(Buffer.alloc(24));
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual([]);
  });

  it('keeps a guest ended that had ended, and legacy SEV down that was down', async () => {
    begin();
    await host.launch('a');
    await host.launch('b');
    host.guest('a').queue.end();
    host.guest('a').ended = 'it was made to';
    await sevCommand(await openDevSev(host), SevUserCmd.SEV_FACTORY_RESET);
    await sevCommand(await openDevSev(host), SevUserCmd.SEV_PEK_GEN);
    const outside = await seen(host);
    const document = await saved(host);
    await host.launch('c');
    await sevCommand(await openDevSev(host), SevUserCmd.SEV_PEK_GEN);
    await restore(document);
    expect(await seen(host)).toEqual(outside);
    expect((await saved(host)).platform).toEqual(document.platform);
    expect((await saved(host)).guests).toEqual(document.guests);
    expect((await askExtReport(host.guest('a'))).ret).toBe(-Errno.EIO);
  });

  it('keeps the paths of a guest whatever the folder and the options of the next host are', async () => {
    begin();
    mkdirSync(join(host.folder, 'images'));
    const bios = file('images/x.fd');
    const relative = bios.replace(process.cwd(), '.');
    await host.launch('a', { bios: relative });
    expect((await saved(host)).guests[0]!.options).toEqual({
      ...{ bios, smp: '1', cpu: 'EPYC-Milan-v2', mem: '64M', policy: '0x30000', key: 'auto' },
    });
  });

  it('holds no guest of another name back: doors stay open, and lead to the new guest', async () => {
    begin();
    await host.launch('a');
    const node = host.guest('a').door.places['/dev/sev-guest'];
    const sev = await openDevSev(host);
    const document = await saved(host);
    await host.control.removeGuest('a');
    await restore(document);
    expect(host.guest('a').door.places['/dev/sev-guest']).toBe(node);
    await firmware('5,0,25,220', '1.55.40');
    await sevCommand(sev, SevUserCmd.SNP_COMMIT);
    expect(host.control.tcb()).toMatchObject({ reported: '5,0,25,220' });
    expect(judge(await askExtReport(host.guest('a')))?.tcb).toBe(0xdc19000000000005n);
    await sev.close();
  });

  it('tells who follows what came, went and was changed', async () => {
    begin();
    await host.launch('a');
    await host.launch('b');
    const document = await saved(host);
    await host.control.removeGuest('b');
    await host.launch('c');
    const told: unknown[] = [];
    host.service.events.follow(({ n: _n, time_ms: _t, ...event }) => told.push(event));
    await restore(document);
    expect(told).toEqual([
      { type: 'guest', guest: 'c', what: 'removed' },
      { type: 'guest', guest: 'a', what: 'restored' },
      { type: 'guest', guest: 'b', what: 'added' },
      { type: 'platform', command: 'snapshot restore', reported_tcb: '4,0,24,219', key: 'VCEK' },
      { type: 'snapshot', what: 'restored', guests: ['a', 'b'] },
    ]);
  });
});

describe('the document', () => {
  it('is as it is described, member by member', async () => {
    begin();
    await host.launch('guest');
    await reportGroupOf(host, 'guest').mkdir!('entry', { uid: 0, gid: 0, pid: 1 });
    const page = readFileSync(new URL('../../docs/reference/control-api.md', import.meta.url), 'utf8');
    const described: unknown = JSON.parse(/^```json\n(\{\n {2}"softsnp_snapshot".*?)^```$/ms.exec(page)![1]!);
    const members = (value: unknown): unknown =>
      Array.isArray(value)
        ? value.slice(0, 1).map(members)
        : typeof value === 'object' && value !== null
          ? Object.entries(value).map(([name, item]) => [name, name === 'options' ? null : members(item)])
          : typeof value;
    host.control.addFault({ rule: 'certs=busy*2' });
    host.control.addFault({ rule: 'vcek=500*2' });
    await sevCommand(await openDevSev(host), SevUserCmd.SEV_PEK_GEN);
    expect(members(await saved(host))).toEqual(members(described));
  });
});

describe('saving', () => {
  it('waits for the request a guest is at, and holds the next ones back', async () => {
    begin();
    await host.launch('a');
    const asking = [1, 2, 3, 4].map(() => askExtReport(host.guest('a')));
    const document = await saved(host);
    const counted = Number(document.guests[0]!.context.msg_counts[0]);
    expect(document.guests[0]).toMatchObject({
      driver: { msg_seqnos: [counted, 0, 0, 0] },
      requests_served: counted / 2,
    });
    expect(counted).toBeLessThan(8);
    expect((await Promise.all(asking)).map(({ ret }) => ret)).toEqual([0, 0, 0, 0]);
  });

  it('gives up on a request that goes on and on, and lets the guest go on', async () => {
    begin();
    await host.launch('a');
    await host.launch('b');
    host.control.addFault({ rule: 'certs=busy*8', guest: 'b' });
    const asking = askExtReport(host.guest('b'));
    await new Promise(setImmediate);
    await expect(host.control.saveSnapshot()).rejects.toMatchObject({
      code: 'SNAPSHOT_UNAVAILABLE',
      message: expect.stringMatching(/^guest b: /),
    });
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
    expect((await asking).ret).toBe(0);
  });

  it('refuses what could not be restored for its size', async () => {
    begin();
    const rule = parseFaultRule(`vcek=429:${'1'.repeat(5000)}`);
    host.kds.faults.replace(new Array(3400).fill(rule));
    await expect(host.control.saveSnapshot()).rejects.toMatchObject({ code: 'SNAPSHOT_UNAVAILABLE' });
  });
});

describe('restoring', () => {
  it('ends requests that wait for a guest, with EIO', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    host.control.addFault({ rule: 'certs=busy' });
    const asking = askExtReport(host.guest('a'));
    await new Promise(setImmediate);
    await restore(document);
    expect((await asking).ret).toBe(-Errno.EIO);
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
  });

  it('has its turn among other changes, and they have theirs', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    await Promise.all([
      host.control.config({ mask_chip_id: true }),
      restore(document),
      host.launch('b'),
      host.control.config({ reported_tcb: '3,0,23,213' }),
      restore(document),
      host.launch('c'),
      host.control.removeGuest('a'),
    ]);
    expect(host.control.status()).toMatchObject({ mask_chip_id: false, tcb: { reported: '4,0,24,219' } });
    expect([...host.service.guests.keys()]).toEqual(['c']);
    expect(judge(await askExtReport(host.guest('c')))?.tcb).toBe(0xdb18000000000004n);
  });

  it('is what a change finds that waited for it', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    await Promise.all([restore(document), firmware('5,0,25,220', '1.55.40'), host.control.commit()]);
    expect(host.control.tcb()).toMatchObject({ committed: '5,0,25,220', reported: '5,0,25,220' });
    await Promise.all([restore(document), host.control.loadVlek({})]);
    expect(host.control.status()).toMatchObject({ tcb: { current: '4,0,24,219' }, signing_key: 'VLEK' });
    const masked = await saved(host);
    await host.control.config({ mask_chip_id: true });
    await Promise.all([restore(masked), host.control.config({ mask_chip_key: true })]);
    expect(host.control.status()).toMatchObject({
      mask_chip_id: false,
      mask_chip_key: true,
      vlek_loaded: true,
    });
    await Promise.all([restore(masked), host.control.removeVlek()]);
    expect(judge(await askExtReport(host.guest('a')))?.key).toBe('VCEK');
  });

  it('is done, or not begun, when the host closes', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    const restoring = restore(document);
    await host.service.close();
    await restoring;
    expect([...host.service.guests.keys()]).toEqual([]);
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual([]);
  });

  it('refuses a snapshot of another chip, also of one that calls itself the same', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    const { chipId } = host.service.host.chip;
    begin(3);
    expect(await refusal(document)).toBe('SNAPSHOT_MISMATCH: chip_id: the snapshot is of another chip');
    begin(3, newHostState(crypto, seededRandom(3), 'Milan', { seed: 3, chipId }));
    expect(await refusal(document)).toMatch(/^SNAPSHOT_INVALID: mac: /);
    begin(3, newHostState(crypto, seededRandom(3), 'Genoa', { seed: 3, chipId }));
    expect(await refusal(document)).toMatch(/^SNAPSHOT_MISMATCH: product: .*Milan.*Genoa/);
  });

  it('refuses a snapshot of firmware that makes other reports', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    await restarted({ chip: { reportVersion: 5 } });
    expect(await refusal(document)).toMatch(/^SNAPSHOT_MISMATCH: report_version: .*version 3.*5$/);
  });

  it('refuses guests whose files have changed or are gone, before anything runs', async () => {
    begin();
    const bios = file('x.fd');
    const id = await idBlock(1);
    await host.launch('a', { bios });
    await host.launch('b', id);
    const document = await saved(host);
    const changed = defaultImage().slice();
    changed[0]! ^= 1;
    writeFileSync(bios, changed);
    expect(await refusal(document)).toMatch(
      /^SNAPSHOT_MISMATCH: guest a: its launch has another measurement/,
    );
    rmSync(bios);
    expect(await refusal(document)).toMatch(/^SNAPSHOT_MISMATCH: guest a: --bios: cannot read .*ENOENT/);
    file('x.fd', new Uint8Array(4096));
    expect(await refusal(document)).toMatch(/^SNAPSHOT_MISMATCH: guest a: /);
    file('x.fd');
    await idBlock(2);
    expect(await refusal(document)).toMatch(
      /^SNAPSHOT_MISMATCH: guest b: its launch gives another guest_svn/,
    );
  });

  it('refuses another version by name, and what is no snapshot', async () => {
    begin();
    const document = await saved(host);
    expect(await refusal({ ...document, softsnp_snapshot: 2 })).toBe(
      'SNAPSHOT_INVALID: softsnp_snapshot: version 2; this softsnp reads 1',
    );
    for (const other of [null, 1, 'x', [], {}, [document], { softsnp_snapshot: 'x' }]) {
      expect(await refusal(other)).toMatch(/^SNAPSHOT_INVALID: /);
    }
  });

  it('refuses a document with any member missing, added, or of another value', async () => {
    begin();
    await host.launch('a');
    const document = await saved(host);
    const other: Record<keyof SnapshotDocument, unknown> = {
      softsnp_snapshot: 0,
      product: 'Turin',
      chip_id: '00',
      report_version: 5,
      platform: { ...document.platform, mask_chip_id: true },
      legacy_sev: 'UNINIT',
      vlek: '00'.repeat(432),
      kds_faults: ['all=404'],
      guests: [],
      mac: '00'.repeat(48),
    };
    expect(Object.keys(other)).toEqual(Object.keys(document));
    for (const name of Object.keys(document) as (keyof SnapshotDocument)[]) {
      const { [name]: _, ...less } = document;
      expect(await refusal(less)).toMatch(`SNAPSHOT_INVALID: ${name}: `);
      expect(await refusal({ ...document, [name]: other[name] }), name).toMatch(
        /^SNAPSHOT_(INVALID|MISMATCH): /,
      );
      expect(await refusal({ ...document, [name]: { x: 1 } }), name).toMatch(/^SNAPSHOT_INVALID: /);
    }
    expect(await refusal({ ...document, more: 1 })).toMatch(/^SNAPSHOT_INVALID: more: /);
  });

  it('takes a document whose members stand in another order', async () => {
    begin();
    await host.launch('a');
    const backwards = (value: unknown): unknown =>
      Array.isArray(value)
        ? value.map(backwards)
        : typeof value === 'object' && value !== null
          ? Object.fromEntries(
              Object.entries(value)
                .reverse()
                .map(([name, item]) => [name, backwards(item)]),
            )
          : value;
    await restore(backwards(await saved(host)));
  });

  it.each([
    ['a policy of newer firmware', { policy: '0x3ffff' }, /guest a: KVM_SEV_SNP_LAUNCH_START: EIO/],
    ['memory of no possible size', { mem: '16M' }, /^SNAPSHOT_INVALID: guest a: memory size: /],
  ] as const)('changes nothing when a guest does not launch: %s', async (_, change, expected) => {
    begin();
    await host.launch('b');
    await host.launch('a');
    const document = await saved(host);
    Object.assign(document.guests[1]!.options, change);
    expect(await refusal(resealed(host, document))).toMatch(expected);
    expect((await askExtReport(host.guest('a'))).ret).toBe(0);
  });

  it('changes nothing when a guest does not come up', async () => {
    begin(1, null, {
      onMachine: (machine) => {
        const launch = machine.launch.bind(machine);
        machine.launch = (options) => {
          const answer = launch(options);
          const neverUp = { runUntilAsync: async () => ({ kind: 'idle' }) };
          return answer.ok && options.name === 'b'
            ? { ok: true, guest: Object.assign(answer.guest, neverUp) }
            : answer;
        };
      },
    });
    await host.launch('a');
    await host.launch('b');
    const document = await saved(host);
    await host.control.removeGuest('a');
    expect(await refusal(document)).toMatch(/^MACHINE_REFUSED: guest b: boot: every vCPU sleeps/);
    expect((await askExtReport(host.guest('b'))).ret).toBe(0);
  });

  it('changes nothing when the state cannot be saved or a blob stays locked', async () => {
    let full = false;
    const onSave = (): void => {
      if (full) {
        throw new EnvironmentError('STATE_UNWRITABLE', 'no space');
      }
    };
    begin(1, null, { onSave });
    await host.launch('a');
    const document = await saved(host);
    await host.control.config({ mask_chip_id: true });
    const before = await seen(host);
    const guest = host.guest('a');
    full = true;
    await expect(restore(document)).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' });
    full = false;
    const fd = openSync(guest.blob.name, 'r');
    tryLock(fd, 'read');
    await expect(restore(document)).rejects.toMatchObject({ code: 'BLOB_BUSY' });
    closeSync(fd);
    expect(await seen(host)).toEqual(before);
    expect(host.guest('a')).toBe(guest);
    expect(readdirSync(join(host.folder, 'blobs'))).toEqual(['a.blob']);
    expect(judge(await askExtReport(guest))?.key).toBe('VCEK');
    await restore(document);
  });

  it('never answers a mangled document but with InputError, and never changes the host for one', async () => {
    begin();
    await host.launch('a', { 'host-data': '01' });
    host.control.addFault({ rule: 'vcek=500*2' });
    await host.control.loadVlek({});
    const document = await saved(host);
    await fc.assert(
      fc.asyncProperty(mangled(document), async (value) => {
        if (JSON.stringify(value) !== JSON.stringify(document)) {
          expect(await refusal(value)).toMatch(/^SNAPSHOT_/);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('is restored or refused in whole when somebody mangles it who can make its tag', async () => {
    begin();
    await host.launch('a');
    await host.control.loadVlek({});
    const document = await saved(host);
    await fc.assert(
      fc.asyncProperty(mangled(document), async (value) => {
        let sealed: unknown = value;
        try {
          sealed = resealed(host, value as SnapshotDocument);
        } catch {
          // Not even of this form.
        }
        const guests = [...host.service.guests.values()];
        const answer = await host.control.restoreSnapshot(sealed).catch((error: unknown) => error);
        const isRefused = answer instanceof InputError || answer instanceof MachineRefusal;
        expect(isRefused || !(answer instanceof Error), String(answer)).toBe(true);
        if (isRefused) {
          expect([...host.service.guests.values()]).toEqual(guests);
        }
        for (const guest of host.service.guests.values()) {
          const { ret } = await askExtReport(guest);
          expect([0, -Errno.EIO, -Errno.ENOTTY, -Errno.EBADMSG]).toContain(ret);
        }
      }),
      { numRuns: Math.ceil(NUM_RUNS / 3) },
    );
  });
});

/** What is seen by clients that come so many messages later. */
const later = (before: readonly object[], messages: number): object[] =>
  before.map((each) => ({
    ...each,
    messages: (each as { messages: number[] }).messages.map((seqno) => seqno + messages + 2),
  }));

/** The status of a host whose folder is another one. */
function moved(outside: object): object {
  const { status } = outside as { status: { guests: { certs: string }[] } };
  return {
    ...status,
    guests: status.guests.map((guest) => ({ ...guest, certs: join(host.folder, 'blobs', 'a.blob') })),
  };
}

/** The document with one place in it replaced, removed or added. */
function mangled(document: unknown): fc.Arbitrary<unknown> {
  const places = pathsIn(document, []);
  const values = fc.oneof(
    fc.constantFrom<unknown>(null, '', 0, -1, 1.5, 2 ** 53, true, [], {}, '0x0', '0xffffffffffffffff', '00'),
    fc.jsonValue(),
    fc.string(),
  );
  return fc
    .tuple(fc.constantFrom(...places), fc.constantFrom('replace', 'remove', 'add', 'tweak'), values)
    .map(([path, how, value]) => {
      const copy = JSON.parse(JSON.stringify({ root: document })) as Record<string, unknown>;
      let parent = copy;
      for (const name of ['root', ...path].slice(0, -1)) {
        parent = parent[name] as Record<string, unknown>;
      }
      const last = ['root', ...path].at(-1)!;
      const old = parent[last];
      if (how === 'remove') {
        delete parent[last];
      } else if (how === 'add' && typeof old === 'object' && old !== null) {
        Object.assign(old, { more: value });
      } else {
        parent[last] = how === 'tweak' ? tweaked(old) : value;
      }
      return copy['root'];
    });
}

const tweaked = (value: unknown): unknown =>
  typeof value === 'number'
    ? value + 1
    : typeof value === 'boolean'
      ? !value
      : typeof value === 'string'
        ? value.replace(/[0-9a-f](?=[^0-9a-f]*$)/, (digit) => (digit === '0' ? '1' : '0'))
        : value;

function pathsIn(value: unknown, path: readonly string[]): string[][] {
  const below =
    typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([name, item]) => pathsIn(item, [...path, name]))
      : [];
  return [[...path], ...below];
}
