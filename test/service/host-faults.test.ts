// SPDX-License-Identifier: Apache-2.0
/** A running host on a disk that fails: a change of the key is complete, or taken back, or told. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { SEV_ISSUE_CMD, SevIssueCmd, SevUserCmd } from '../../src/abi/dev-sev.ts';
import { Errno } from '../../src/abi/errno.ts';
import { encodeTcb } from '../../src/abi/tcb-version.ts';
import type { FileHandle, FileNode } from '../../src/devices/fuse/filesystem.ts';
import { BugError, EnvironmentError } from '../../src/lib/errors.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import type { HostEvent } from '../../src/service/event-log.ts';
import { HostControl } from '../../src/service/host-control.ts';
import type { ServedGuest } from '../../src/service/served-guest.ts';
import { askExtReport, guestSpec, judge, type ServiceHost, serviceHost } from './service-host.ts';

/** Called before a file is moved into its place. */
const disk = vi.hoisted(() => ({ onPlace: (_path: string): void => undefined }));
vi.mock('node:fs', async (original) => {
  const real = await original<typeof import('node:fs')>();
  const renameSync = (from: string, to: string): void => {
    disk.onPlace(to);
    real.renameSync(from, to);
  };
  return { ...real, renameSync };
});

/** What fcntl(F_OFD_SETLK) answers; null: what the kernel says. */
const locks = vi.hoisted(() => ({ errno: null as number | null }));
vi.mock('../../src/os/libc.ts', async (original) => {
  const real = await original<typeof import('../../src/os/libc.ts')>();
  return {
    ...real,
    fcntlLock: (fd: number, type: 'read' | 'write' | 'unlock') => locks.errno ?? real.fcntlLock(fd, type),
  };
});

const NOW = { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
const OLDER = { fmc: 0, boot_loader: 3, tee: 0, snp: 23, microcode: 213 };
const word = (tcb: typeof NOW): bigint => encodeTcb(tcb, 'Milan');

let host: ServiceHost;
let control: HostControl;
/** Where the disk refuses the state. */
let refuses: 'aside' | 'in place' | null = null;
/** Times that random bytes can still be drawn. */
let draws = Number.POSITIVE_INFINITY;

function begin(): void {
  const refuse = (where: 'aside' | 'in place') => () => {
    if (refuses === where) {
      throw new EnvironmentError('STATE_UNWRITABLE', 'cannot write: ENOSPC', { where: 'state.json' });
    }
  };
  host = serviceHost(1, null, {
    ...{ onPrepareSave: refuse('aside'), onSave: refuse('in place') },
    onRandom: () => {
      draws -= 1;
      if (draws < 0) {
        throw new EnvironmentError('ENTROPY_UNAVAILABLE', 'no random bytes: EAGAIN');
      }
    },
  });
  control = new HostControl({
    ...{ service: host.service, kds: host.kds },
    surroundings: () => ({ state: host.folder, pid: 1, devices: null, system: null, kds: null }),
    guestSpec: (name) => guestSpec(name),
    keptSpec: (name) => guestSpec(name),
  });
}

afterEach(async () => {
  refuses = null;
  draws = Number.POSITIVE_INFINITY;
  disk.onPlace = () => undefined;
  locks.errno = null;
  await host.close();
});

const blobs = (): string[] => readdirSync(join(host.folder, 'blobs')).sort();
/** Takes the name that a blob is written aside under, as a disk without space would. */
const spoil = (name: string): string => {
  const path = join(host.folder, 'blobs', `.${name}.blob.new`);
  mkdirSync(path);
  return path;
};
const lower = (tcb = '3,0,23,213') => control.config({ reported_tcb: tcb });
const failed = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'done',
    (error: unknown) => error,
  );
/** What the operator sees of it. */
const troubles = (): HostEvent[] =>
  host.service.events
    .recent()
    .filter(({ type }) => type === 'failure' || type === 'recovery')
    .map(({ n: _, time_ms: __, ...event }) => event as HostEvent);
const seen = () => {
  const { state_saved, failure, guests } = control.status();
  return { state_saved, failure, inStep: guests.map(({ certs_in_step }) => certs_in_step) };
};
const ALL_WELL = { state_saved: true, failure: null };
/** What a guest gets: a report and certificates that belong together, of this TCB; or the errno of its ioctl. */
const got = async (guest: ServedGuest): Promise<unknown> => {
  const reply = await askExtReport(guest);
  return reply.ret === 0 ? (judge(reply)?.tcb ?? 'a report and certificates of another key') : reply.ret;
};

describe('a change whose state cannot be saved', () => {
  it.each(['aside', 'in place'] as const)('is taken back: the disk refuses it %s', async (where) => {
    begin();
    const guests = [await host.add('a'), await host.add('b')];
    const before = guests.map(({ blob }) => readFileSync(blob.name));
    refuses = where;
    expect(await failed(lower())).toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: 'state.json: cannot write: ENOSPC; SNP_SET_CONFIG is taken back',
    });
    expect(control.tcb().reported).toBe('4,0,24,219');
    expect(guests.map(({ blob }) => readFileSync(blob.name))).toEqual(before);
    expect(blobs()).toEqual(['a.blob', 'b.blob']);
    for (const guest of guests) {
      expect(await got(guest)).toBe(word(NOW));
    }
    expect(seen()).toEqual({ ...ALL_WELL, inStep: [true, true] });
    expect(troubles()).toEqual([
      {
        ...{ type: 'failure', command: 'SNP_SET_CONFIG', outcome: 'taken back' },
        ...{ error: 'state.json: cannot write: ENOSPC', saved: true, guests: [] },
      },
    ]);
    refuses = null;
    await lower();
    expect(await got(guests[0]!)).toBe(word(OLDER));
  });

  it('is taken back with the VLEK that it had taken along', async () => {
    begin();
    const guest = await host.add('a');
    await control.loadVlek({});
    refuses = 'aside';
    expect(await failed(lower())).toMatchObject({ code: 'STATE_UNWRITABLE' });
    expect(control.status()).toMatchObject({ signing_key: 'VLEK', tcb: { reported: '4,0,24,219' } });
    expect(judge(await askExtReport(guest))).toEqual({ key: 'VLEK', tcb: word(NOW) });
  });

  it('is taken back when it was other firmware, or a mask', async () => {
    begin();
    await host.add('a');
    const before = control.status();
    refuses = 'in place';
    for (const change of [
      () => control.updateFirmware({ tcb: '5,0,25,220', version: '1.55.40' }),
      () => control.config({ mask_chip_id: true }),
    ]) {
      expect(await failed(change())).toMatchObject({ code: 'STATE_UNWRITABLE' });
      expect(control.status()).toEqual(before);
    }
  });

  it('is none when nothing has to be saved: a VLEK is not', async () => {
    begin();
    const guest = await host.add('a');
    refuses = 'aside';
    expect(await control.loadVlek({})).toEqual({ signing_key: 'VLEK' });
    expect(judge(await askExtReport(guest))?.key).toBe('VLEK');
    expect(host.saved).toEqual([]);
  });

  it('is not begun when it is SNP_COMMIT, which nothing takes back', async () => {
    begin();
    const guest = await host.add('a');
    await control.updateFirmware({ tcb: '5,0,25,220' });
    const refused = async (message: string): Promise<void> => {
      expect(await failed(control.commit())).toMatchObject({
        code: 'STATE_UNWRITABLE',
        message: `${message}; SNP_COMMIT was not given`,
      });
      expect(control.tcb()).toMatchObject({ committed: '4,0,24,219', reported: '4,0,24,219' });
      expect(await got(guest)).toBe(word(NOW));
    };
    refuses = 'aside';
    await refused('state.json: cannot write: ENOSPC');
    refuses = null;
    const spoilt = spoil('a');
    await refused(`${guest.blob.name}: cannot write: EISDIR`);
    rmSync(spoilt, { recursive: true });
    await control.commit();
    expect(await got(guest)).toBe(word({ ...NOW, boot_loader: 5, snp: 25, microcode: 220 }));
    expect(blobs()).toEqual(['a.blob']);
  });

  it('gives guests EAGAIN when it is SNP_COMMIT all the same, until the disk is better', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b')];
    await control.updateFirmware({ tcb: '5,0,25,220' });
    refuses = 'in place';
    expect(await failed(control.commit())).toMatchObject({
      code: 'CHANGE_INCOMPLETE',
      message:
        'state.json: cannot write: ENOSPC; SNP_COMMIT is done; a restart finds what was before; no certificates now for a, b',
    });
    expect(control.tcb().reported).toBe('5,0,25,220');
    expect(blobs()).toEqual(['a.blob', 'b.blob']);
    expect(seen()).toEqual({
      state_saved: false,
      failure: expect.stringContaining('SNP_COMMIT is done'),
      inStep: [false, false],
    });
    // As long as that lasts nobody gets a report with certificates, and nobody a wrong one.
    expect(await Promise.all(guests.map(got))).toEqual([-Errno.ETIMEDOUT, -Errno.ETIMEDOUT]);
    expect(await failed(control.commit())).toMatchObject({
      code: 'CHANGE_INCOMPLETE',
      message: expect.stringContaining('SNP_COMMIT is without effect'),
    });
    refuses = null;
    const late = await host.add('late');
    expect(await got(late)).toBe(word({ ...NOW, boot_loader: 5, snp: 25, microcode: 220 }));
    expect(host.saved.at(-1)?.platform).toMatchObject({ committed_tcb: '0xdc19000000000005' });
    await control.commit();
    expect(seen()).toEqual({ ...ALL_WELL, inStep: [true, true, true] });
    expect(troubles().map(({ type }) => type)).toEqual(['failure', 'failure', 'recovery']);
  });

  it('is made good by the next try of a guest that waits', async () => {
    begin();
    const guest = await host.add('a');
    await control.updateFirmware({ tcb: '5,0,25,220' });
    refuses = 'in place';
    await failed(control.commit());
    const reply = got(guest);
    let waited = 0;
    while (host.clock.monotonicMs() < 5000) {
      waited += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(waited).toBeGreaterThan(1);
    refuses = null;
    expect(await reply).toBe(word({ ...NOW, boot_loader: 5, snp: 25, microcode: 220 }));
    expect(seen()).toEqual({ ...ALL_WELL, inStep: [true] });
    expect(troubles().at(-1)).toEqual({ type: 'recovery' });
  });
});

describe('a change whose certificates cannot be written', () => {
  it('is taken back for all guests when one blob cannot be written aside', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b')];
    spoil('b');
    expect(await failed(lower())).toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: `${guests[1]!.blob.name}: cannot write: EISDIR; SNP_SET_CONFIG is taken back`,
    });
    expect(await Promise.all(guests.map(got))).toEqual([word(NOW), word(NOW)]);
    expect(host.saved).toEqual([]);
    expect(blobs()).toEqual(['.b.blob.new', 'a.blob', 'b.blob']);
  });

  it('is taken back when there is no entropy for them', async () => {
    begin();
    const guest = await host.add('a');
    draws = 0;
    expect(await failed(lower())).toMatchObject({
      code: 'ENTROPY_UNAVAILABLE',
      message: 'no random bytes: EAGAIN; SNP_SET_CONFIG is taken back',
    });
    draws = Number.POSITIVE_INFINITY;
    expect(await got(guest)).toBe(word(NOW));
  });

  it('is taken back when one blob cannot be put into its place, and the others are what they were', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b'), await host.add('c')];
    // The state is in place by then, and so is one blob.
    let left = 2;
    disk.onPlace = (path) => {
      left -= path.endsWith('.blob') ? 1 : 0;
      if (left === 0) {
        throw Object.assign(new TypeError('a disk that fails'), { code: 'EIO', errno: -5 });
      }
    };
    expect(await failed(lower())).toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: `${guests[1]!.blob.name}: cannot write: EIO; SNP_SET_CONFIG is taken back`,
    });
    expect(await Promise.all(guests.map(got))).toEqual([word(NOW), word(NOW), word(NOW)]);
    expect(host.saved.map(({ platform }) => platform)).toEqual([
      expect.objectContaining({ reported_tcb: '0xd517000000000003' }),
      expect.objectContaining({ reported_tcb: '0xdb18000000000004' }),
    ]);
    expect(seen()).toEqual({ ...ALL_WELL, inStep: [true, true, true] });
  });

  it('leaves those guests without that cannot be given the old ones again, and nobody with wrong ones', async () => {
    begin();
    const guests = [await host.add('a'), await host.add('b')];
    let done = 0;
    disk.onPlace = (path) => {
      done += path.endsWith('.blob') ? 1 : 0;
      if (done > 1) {
        throw Object.assign(new TypeError('a disk that fails'), { code: 'EROFS', errno: -30 });
      }
    };
    expect(await failed(lower())).toMatchObject({
      code: 'CHANGE_INCOMPLETE',
      message: `${guests[1]!.blob.name}: cannot write: EROFS; SNP_SET_CONFIG is taken back; no certificates now for a`,
    });
    expect(seen()).toMatchObject({ state_saved: true, inStep: [false, true] });
    expect(await Promise.all(guests.map(got))).toEqual([-Errno.ETIMEDOUT, word(NOW)]);
    disk.onPlace = () => undefined;
    await lower();
    expect(seen()).toEqual({ ...ALL_WELL, inStep: [true, true] });
    expect(await got(guests[1]!)).toBe(word(OLDER));
    expect(troubles().at(-1)).toEqual({ type: 'recovery' });
  });

  it('fails through /dev/sev as well', async () => {
    begin();
    const guest = await host.add('a');
    await lower();
    const device = host.service.hostPlaces['/dev/sev'] as FileNode;
    const caller = { uid: 0, gid: 0, pid: 1 };
    const handle = (await device.open(2, caller)) as FileHandle;
    const nothing = { read: () => ({ errno: Errno.EFAULT }), write: () => ({ errno: Errno.EFAULT }) };
    const input = SevIssueCmd.encode({ cmd: SevUserCmd.SNP_COMMIT, data: 0n });
    const commit = () =>
      handle.ioctl!({ cmd: SEV_ISSUE_CMD, arg: 0n, input, outputSize: 16, caller, memory: nothing });
    refuses = 'aside';
    await expect(commit()).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' });
    expect(await got(guest)).toBe(word(OLDER));
    refuses = null;
    expect(await commit()).toMatchObject({ result: 0 });
    expect(await got(guest)).toBe(word(NOW));
  });
});

describe('a snapshot whose certificates cannot be put into place', () => {
  it('is restored, and its guests get theirs when the disk is better', async () => {
    begin();
    await host.add('a');
    const document = await control.saveSnapshot();
    await lower();
    disk.onPlace = (path) => {
      if (path.endsWith('.blob')) {
        throw Object.assign(new TypeError('a disk that fails'), { code: 'EIO', errno: -5 });
      }
    };
    expect(await failed(control.restoreSnapshot(document))).toMatchObject({
      code: 'CHANGE_INCOMPLETE',
      message: expect.stringMatching(/EIO; snapshot restore is done; no certificates now for a$/),
    });
    expect(seen()).toMatchObject({ state_saved: true, inStep: [false] });
    const reply = got(host.service.guests.get('a')!);
    await new Promise((resolve) => setImmediate(resolve));
    disk.onPlace = () => undefined;
    expect(await reply).toBe(word(NOW));
    expect(troubles().map(({ type }) => type)).toEqual(['failure', 'recovery']);
  });
});

describe('a command that breaks down half way', () => {
  it('leaves state and certificates of what it has done', async () => {
    begin();
    const guest = await host.add('a');
    const half = host.service.change('a command', ({ management }) => {
      management.setConfig({ reportedTcb: word(OLDER), maskChipId: false, maskChipKey: false });
      throw new BugError('half way');
    });
    expect(await failed(half)).toMatchObject({ code: 'BUG', message: 'half way' });
    expect(await got(guest)).toBe(word(OLDER));
    expect(host.saved.at(-1)?.platform).toMatchObject({ reported_tcb: '0xd517000000000003' });
  });
});

describe('a guest that cannot be added', () => {
  it('leaves nothing when its certificates cannot be written, and its name is free', async () => {
    begin();
    const path = spoil('a');
    expect(await failed(host.add('a'))).toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: expect.stringMatching(/a\.blob: cannot write: EISDIR$/),
    });
    expect(blobs()).toEqual(['.a.blob.new']);
    expect([...host.service.guests.keys()]).toEqual([]);
    rmSync(path, { recursive: true });
    expect(await got(await host.add('a'))).toBe(word(NOW));
  });

  it('leaves nothing when there is no entropy, wherever its launch is by then', async () => {
    begin();
    const { memory } = host.service.host.hw;
    const pages: number[] = [];
    for (draws = 0; ; draws = pages.length) {
      const answer = await failed(host.add('a'));
      if (answer === 'done') {
        break;
      }
      expect(answer).toMatchObject(
        pages.length < 7
          ? { message: 'a was refused at KVM_SEV_SNP_LAUNCH_START' }
          : { code: 'ENTROPY_UNAVAILABLE' },
      );
      expect([blobs(), [...host.service.guests.keys()]]).toEqual([[], []]);
      pages.push(memory.touchedPages);
    }
    // The keys of its context and of its launch, then the serial number of its certificate.
    expect(pages.length).toBe(8);
    draws = Number.POSITIVE_INFINITY;
    expect(await got(host.service.guests.get('a')!)).toBe(word(NOW));
    await host.service.removeGuest('a');
    // What is left of each is what a guest leaves that was launched and removed.
    expect(pages).toEqual([2, 2, 2, 2, 2, 2, 2, memory.touchedPages]);
  });

  it.each([
    [37, 'ENOLCK'],
    [95, 'EOPNOTSUPP'],
    [22, 'EINVAL'],
  ])('is refused when its certificates are where locks are answered with errno %i', async (errno, name) => {
    begin();
    const path = join(host.folder, 'theirs.blob');
    writeFileSync(path, new Uint8Array(24));
    locks.errno = errno;
    expect(await failed(host.service.addGuest(guestSpec('a', 'auto', path)))).toMatchObject({
      code: 'LOCK_FAILED',
      message: `${path}: fcntl(F_OFD_SETLK) answered ${name}`,
    });
    locks.errno = null;
    expect(await host.service.addGuest(guestSpec('a', 'auto', path))).toMatchObject({ ok: true });
  });

  it('is refused when its certificates are no file, and not when they are still to come', async () => {
    begin();
    expect(await failed(host.service.addGuest(guestSpec('a', 'auto', host.folder)))).toMatchObject({
      code: 'FILE_UNREADABLE',
    });
    const path = join(host.folder, 'later.blob');
    expect(await host.service.addGuest(guestSpec('a', 'auto', path))).toMatchObject({ ok: true });
    expect(existsSync(path)).toBe(false);
  });
});

describe('a blob that another program keeps locked for ever', () => {
  it('holds up its own guest alone, for as long as Linux waits, and others not at all', async () => {
    begin();
    const [a, b] = [await host.add('a'), await host.add('b')];
    const fd = openSync(a.blob.name, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    const waiting = got(a);
    expect(await got(b)).toBe(word(NOW));
    expect(a.queue.waiting).toBe(1);
    expect(await waiting).toBe(-Errno.ETIMEDOUT);
    expect(host.clock.monotonicMs()).toBeGreaterThanOrEqual(60_000);
    expect(host.clock.monotonicMs()).toBeLessThan(70_000);
    closeSync(fd);
    // The driver has given up its key; whoever comes after that finds nothing amiss.
    expect(await got(a)).toBe(-Errno.ENOTTY);
    expect(await got(await host.add('new'))).toBe(word(NOW));
    expect(await got(b)).toBe(word(NOW));
  });
});
