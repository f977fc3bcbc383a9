// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { CERT_TABLE_ENTRY_SIZE, CertTableEntry } from '../../abi/cert-table.ts';
import { SnpExtReportReq } from '../../abi/dev-sev-guest.ts';
import { Errno } from '../../abi/errno.ts';
import { concat, utf8 } from '../../lib/bytes.ts';
import { type DirectoryNode, type FileNode, isRefusal, type Refusal } from '../fuse/filesystem.ts';
import { TestFile, TestGuest } from '../testing.ts';
import { nextGeneration, Tsm, type TsmBlobs, TsmReport } from './device.ts';
import { configfsTree, ReportGroup } from './files.ts';
import { sevGuestProvider } from './provider.ts';

const O_RDONLY = 0;
const O_WRONLY = 1;
const O_RDWR = 2;
const O_TRUNC = 0o1000;
const CALLER = { uid: 0, gid: 0, pid: 1 };
const READABLE = ['generation', 'provider', 'privlevel_floor', 'outblob', 'auxblob'];
const WRITABLE = ['privlevel', 'inblob'];
const USER_DATA = Uint8Array.from({ length: 64 }, (_, i) => i);

/** The tree with one entry in it, and the calls of a client. */
class Client {
  readonly guest = new TestGuest();
  readonly tsm: Tsm;
  readonly root: DirectoryNode;
  entry: DirectoryNode;

  constructor(tsm?: Tsm) {
    this.tsm = tsm ?? new Tsm(sevGuestProvider(this.guest.driver));
    this.root = configfsTree(new ReportGroup(this.tsm));
    this.entry = this.mkdir('entry') as DirectoryNode;
  }

  get group(): DirectoryNode {
    return (this.root.lookup('tsm') as DirectoryNode).lookup('report') as DirectoryNode;
  }

  mkdir(name: string): DirectoryNode | Refusal {
    return this.group.mkdir!(name, CALLER) as DirectoryNode | Refusal;
  }

  node(name: string): FileNode {
    return this.entry.lookup(name) as FileNode;
  }

  async open(name: string, flags: number): Promise<TestFile> {
    return (await TestFile.open(this.node(name), flags)) as TestFile;
  }

  /** What cat(1) shows, or the errno of read(2). */
  async cat(name: string): Promise<Uint8Array | number> {
    const file = await this.open(name, O_RDONLY);
    const parts: Uint8Array[] = [];
    for (;;) {
      const part = await file.read(512);
      if (typeof part === 'number') {
        return part;
      }
      if (part.length === 0) {
        await file.close();
        return concat(...parts);
      }
      parts.push(part);
    }
  }

  async text(name: string): Promise<string | number> {
    const bytes = await this.cat(name);
    return typeof bytes === 'number' ? bytes : new TextDecoder().decode(bytes);
  }

  /** open, one write, close: what write(2) answered. */
  async put(name: string, data: Uint8Array | string): Promise<number> {
    const file = await this.open(name, O_WRONLY | O_TRUNC);
    const count = await file.write(typeof data === 'string' ? utf8(data) : data);
    await file.close();
    return count;
  }

  generation(): Promise<string | number> {
    return this.text('generation');
  }
}

/** A table with one entry: its certificate lies at `offset`. */
function table(offset: number, length: number): Uint8Array {
  const entry = CertTableEntry.encode({ guid: new Uint8Array(16).fill(1), offset, length });
  return concat(entry, new Uint8Array(CERT_TABLE_ENTRY_SIZE), new Uint8Array(0x1000).fill(9));
}

describe('the tree', () => {
  it('is tsm/report in the configfs root, folders of mode 0755', () => {
    const { root, group, entry } = new Client();
    expect([...root.entries()].map(([name]) => name)).toEqual(['tsm']);
    expect([root.mode, group.mode, entry.mode]).toEqual([0o755, 0o755, 0o755]);
    expect([...group.entries()]).toEqual([['entry', entry]]);
  });

  it('has the seven files of VMPL0 in an entry, and none of those of a kernel above it', () => {
    const client = new Client();
    expect([...client.entry.entries()].map(([name]) => name).sort()).toEqual(
      [...READABLE, ...WRITABLE].sort(),
    );
    for (const name of ['service_provider', 'service_guid', 'service_manifest_version', 'manifestblob']) {
      expect(client.entry.lookup(name)).toBeNull();
    }
  });

  it('shows 4096 bytes for text and 0 for binary, 0444 to read and 0200 to write', () => {
    const client = new Client();
    for (const name of [...READABLE, ...WRITABLE]) {
      const node = client.node(name);
      expect([node.mode, node.size]).toEqual([
        READABLE.includes(name) ? 0o444 : 0o200,
        name.endsWith('blob') ? 0 : 4096,
      ]);
    }
  });

  it('answers ENXIO for mkdir in report without a provider', () => {
    const client = new Client();
    client.tsm.provider = null;
    expect(client.mkdir('other')).toEqual({ errno: Errno.ENXIO });
  });

  it('offers mkdir in report alone: EPERM in the root, in tsm and in an entry', () => {
    const { root, entry } = new Client();
    expect([root.mkdir, (root.lookup('tsm') as DirectoryNode).mkdir, entry.mkdir]).toEqual(
      new Array(3).fill(undefined),
    );
  });

  it('answers EPERM for rmdir of report and EINVAL for rmdir of tsm', () => {
    const { root } = new Client();
    expect((root.lookup('tsm') as DirectoryNode).rmdir).toBeUndefined();
    expect(root.rmdir!('tsm', CALLER)).toEqual({ errno: Errno.EINVAL });
  });

  it('removes an entry although it shows files, and forgets it', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    expect(client.group.rmdir!('entry', CALLER)).toBeNull();
    expect(client.group.lookup('entry')).toBeNull();
    client.entry = client.mkdir('entry') as DirectoryNode;
    expect(await client.generation()).toBe('0\n');
    expect(await client.cat('outblob')).toBe(Errno.EINVAL);
  });

  it('has no room for an endless number of entries: ENOMEM', () => {
    const client = new Client();
    for (let i = 1; i < 65_536; i++) {
      client.mkdir(`${i}`);
    }
    expect(client.mkdir('one more')).toEqual({ errno: Errno.ENOMEM });
    client.group.rmdir!('7', CALLER);
    expect(isRefusal(client.mkdir('one more'))).toBe(false);
  });
});

describe('files of configfs', () => {
  it.each(READABLE)('%s: opening for writing is EACCES', async (name) => {
    const client = new Client();
    for (const flags of [O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC]) {
      expect(await TestFile.open(client.node(name), flags)).toBe(Errno.EACCES);
    }
  });

  it.each(WRITABLE)('%s: opening for reading is EACCES', async (name) => {
    const client = new Client();
    for (const flags of [O_RDONLY, O_RDWR]) {
      expect(await TestFile.open(client.node(name), flags)).toBe(Errno.EACCES);
    }
  });

  it('take O_TRUNC and truncate(2) without effect', async () => {
    const client = new Client();
    expect(client.node('generation').truncate!(7n)).toBeNull();
    expect(await TestFile.open(client.node('generation'), O_RDONLY | O_TRUNC)).toBeInstanceOf(TestFile);
    await (await client.open('inblob', O_WRONLY | O_TRUNC)).close();
    expect(await client.generation()).toBe('0\n');
  });

  it('answer ENOENT in open files after rmdir, to open(2) and to the first read or a store', async () => {
    const client = new Client();
    const generation = await client.open('generation', O_RDONLY);
    const outblob = await client.open('outblob', O_RDONLY);
    const privlevel = await client.open('privlevel', O_WRONLY);
    client.group.rmdir!('entry', CALLER);
    expect(await generation.read(10)).toBe(Errno.ENOENT);
    expect(await outblob.read(10)).toBe(Errno.ENOENT);
    expect(await privlevel.write(utf8('1'))).toBe(-Errno.ENOENT);
    expect(await TestFile.open(client.node('provider'), O_RDONLY)).toBe(Errno.ENOENT);
  });

  it('drop what an inblob collected when the entry is gone at the close', async () => {
    const client = new Client();
    const inblob = await client.open('inblob', O_WRONLY);
    expect(await inblob.write(USER_DATA)).toBe(64);
    client.group.rmdir!('entry', CALLER);
    await inblob.close();
    expect(client.guest.calls).toEqual([]);
  });

  it('render text at the first read and serve it by position from then on', async () => {
    const client = new Client();
    const file = await client.open('generation', O_RDONLY);
    expect(await file.read(1)).toEqual(utf8('0'));
    await client.put('privlevel', '0');
    expect(await file.read(100)).toEqual(utf8('\n'));
    expect(await file.read(100)).toEqual(new Uint8Array(0));
    expect(await client.generation()).toBe('1\n');
  });

  it('take each write of text as one store of at most 4095 bytes, the file position ignored', async () => {
    const client = new Client();
    const file = await client.open('privlevel', O_WRONLY);
    expect(await file.write(utf8('1'))).toBe(1);
    expect(await file.write(utf8('2\n'))).toBe(2);
    expect(await client.generation()).toBe('2\n');
    expect(await file.write(utf8(`1${'\0'.repeat(5000)}`))).toBe(4095);
    expect(await client.generation()).toBe('3\n');
  });

  it('collect binary writes at the file position and store once, at the close', async () => {
    const client = new Client();
    const file = await client.open('inblob', O_WRONLY);
    for (let at = 0; at < 64; at += 16) {
      expect(await file.write(USER_DATA.subarray(at, at + 16))).toBe(16);
    }
    expect(await client.generation()).toBe('0\n');
    await file.close();
    expect(await client.generation()).toBe('1\n');
    expect(reportData(await client.cat('outblob'))).toEqual(USER_DATA);
  });

  it('fill gaps of binary writes with zeros; the length is the highest end', async () => {
    const client = new Client();
    const { handle } = await client.open('inblob', O_WRONLY);
    await handle.write!(62, Uint8Array.of(7, 7), CALLER);
    await handle.write!(0, Uint8Array.of(5), CALLER);
    await handle.flush!(CALLER);
    const expected = new Uint8Array(64);
    expected.set([5], 0);
    expected.set([7, 7], 62);
    expect(reportData(await client.cat('outblob'))).toEqual(expected);
  });

  it('answer EFBIG beyond the maximum, and the close stores what was collected, be it nothing', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    const file = await client.open('inblob', O_WRONLY);
    expect(await file.write(new Uint8Array(65))).toBe(-Errno.EFBIG);
    await file.close();
    expect(await client.generation()).toBe('2\n');
    expect(await client.cat('outblob')).toBe(Errno.EINVAL);
  });

  it('count what is written between two closes of duplicates as one store', async () => {
    const client = new Client();
    const file = await client.open('inblob', O_WRONLY);
    await file.write(USER_DATA.subarray(0, 32));
    await file.handle.flush!(CALLER);
    await file.write(USER_DATA.subarray(32));
    await file.close();
    expect(await client.generation()).toBe('1\n');
    expect(reportData(await client.cat('outblob'))).toEqual(USER_DATA);
  });

  it('count it as another store when a report was made in between', async () => {
    const client = new Client();
    const file = await client.open('inblob', O_WRONLY);
    await file.write(USER_DATA);
    await file.handle.flush!(CALLER);
    await client.cat('outblob');
    await file.handle.write!(0, Uint8Array.of(0xff), CALLER);
    await file.close();
    expect(await client.generation()).toBe('2\n');
    expect(reportData(await client.cat('outblob'))[0]).toBe(0xff);
  });

  it('store what was written after the last flush when the file is released', async () => {
    const client = new Client();
    const { handle } = await client.open('inblob', O_WRONLY);
    await handle.write!(0, USER_DATA, CALLER);
    handle.release!();
    expect(await client.generation()).toBe('1\n');
  });

  it('give every open file its own copy of a blob, taken at the first read', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    const file = await client.open('outblob', O_RDONLY);
    const first = await file.read(100);
    await client.put('inblob', new Uint8Array(64));
    await client.cat('outblob');
    const rest = await file.read(4096);
    expect(reportData(concat(first as Uint8Array, rest as Uint8Array))).toEqual(USER_DATA);
  });

  it('answer 0 bytes at and beyond the end', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    const { handle } = await client.open('outblob', O_RDONLY);
    expect(await handle.read!(1184, 10, CALLER)).toEqual(new Uint8Array(0));
    expect(await handle.read!(2 ** 40, 10, CALLER)).toEqual(new Uint8Array(0));
    expect((await handle.read!(1180, 10, CALLER)) as Uint8Array).toHaveLength(4);
  });
});

function reportData(report: Uint8Array | number): Uint8Array {
  expect(report).toBeInstanceOf(Uint8Array);
  return (report as Uint8Array).slice(0x50, 0x90);
}

describe('entries of tsm', () => {
  it('start at generation 0, privlevel 0 and without an inblob', async () => {
    const client = new Client();
    expect(await client.generation()).toBe('0\n');
    expect(await client.cat('outblob')).toBe(Errno.EINVAL);
    expect(await client.cat('auxblob')).toBe(Errno.EINVAL);
  });

  it('show the provider and its floor', async () => {
    const client = new Client(new Tsm(sevGuestProvider(new TestGuest().driver, 2)));
    expect(await client.text('provider')).toBe('sev_guest\n');
    expect(await client.text('privlevel_floor')).toBe('2\n');
  });

  it('advance the generation with every store that is accepted, and with nothing else', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    await client.put('privlevel', '0');
    await client.put('privlevel', '0');
    expect(await client.generation()).toBe('3\n');
    for (const name of READABLE) {
      await client.cat(name);
    }
    expect(await client.generation()).toBe('3\n');
  });

  it.each([
    ['\x00', Errno.EINVAL],
    ['\x02', Errno.EINVAL],
    ['zero', Errno.EINVAL],
    ['0x100000000', Errno.ERANGE],
    ['4', Errno.EINVAL],
    ['0', Errno.EINVAL],
  ])('refuse %j as privlevel where the floor is 1, without a new generation', async (text, errno) => {
    const client = new Client(new Tsm(sevGuestProvider(new TestGuest().driver, 1)));
    expect(await client.put('privlevel', text)).toBe(-errno);
    expect(await client.generation()).toBe('0\n');
  });

  it('answer ENXIO without a provider, after the number was judged', async () => {
    const client = new Client();
    client.tsm.provider = null;
    expect(await client.put('privlevel', 'x')).toBe(-Errno.EINVAL);
    expect(await client.put('privlevel', '1')).toBe(-Errno.ENXIO);
    expect(await client.text('provider')).toBe(Errno.ENXIO);
    expect(await client.text('privlevel_floor')).toBe(Errno.ENXIO);
    expect(await client.put('inblob', USER_DATA)).toBe(64);
    expect(await client.cat('outblob')).toBe(Errno.ENXIO);
    expect(await client.generation()).toBe('1\n');
  });

  it('answer EBUSY when a generation would come round to that of an old report', () => {
    expect(nextGeneration(5n, 6n)).toBeNull();
    expect(nextGeneration(2n ** 64n - 1n, 0n)).toBeNull();
    expect(nextGeneration(2n ** 64n - 1n, 7n)).toBe(0n);
    expect(nextGeneration(0n, 0n)).toBe(1n);
  });

  it('ask for a report at the privlevel that was written, the floor not being applied', async () => {
    const client = new Client(undefined);
    client.tsm.provider = sevGuestProvider(client.guest.driver, 2);
    await client.put('inblob', USER_DATA);
    await client.cat('outblob');
    await client.put('privlevel', '0x3\n');
    await client.cat('outblob');
    expect(client.guest.calls.map(({ req_data }) => (req_data as Uint8Array)[64])).toEqual([0, 3]);
  });

  it('make all blobs of one generation at once, whichever is read first', async () => {
    const client = new Client();
    client.guest.certs = table(0x30, 0x1000);
    await client.put('inblob', USER_DATA);
    expect((await client.cat('auxblob')) as Uint8Array).toHaveLength(0x1030);
    expect((await client.cat('outblob')) as Uint8Array).toHaveLength(1184);
    expect(client.guest.calls.length).toBe(1);
    await client.put('privlevel', '0');
    await client.cat('outblob');
    expect(client.guest.calls.length).toBe(2);
  });

  it('make one report for readers who come at the same time', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    const reports = await Promise.all(Array.from({ length: 8 }, () => client.cat('outblob')));
    expect(new Set(reports.map((report) => String(report))).size).toBe(1);
    expect(client.guest.calls.length).toBe(1);
  });

  it('keep stores waiting while a report is made: it belongs to the generation it began in', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    let release: () => void = () => undefined;
    client.guest.before = () => new Promise((resolve) => (release = resolve));
    const reading = client.cat('outblob');
    await expect.poll(() => client.guest.calls.length).toBe(1);
    const order: string[] = [];
    const showing = client.generation().then((text) => order.push(`shown ${text}`));
    const storing = client.put('inblob', new Uint8Array(64)).then(() => order.push('stored'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(order).toEqual([]);
    client.guest.before = () => Promise.resolve();
    release();
    expect(reportData(await reading)).toEqual(USER_DATA);
    await Promise.all([showing, storing]);
    expect(order.sort()).toEqual(['shown 1\n', 'stored']);
    expect(await client.generation()).toBe('2\n');
    expect(reportData(await client.cat('outblob'))).toEqual(new Uint8Array(64));
  });

  it('keep nothing of a failed generation: the next read tries again', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    await client.cat('outblob');
    await client.put('privlevel', '0');
    client.guest.status = 0x16;
    expect(await client.cat('outblob')).toBe(Errno.EINVAL);
    expect(await client.cat('auxblob')).toBe(Errno.EINVAL);
    client.guest.status = 0;
    expect(reportData(await client.cat('outblob'))).toEqual(USER_DATA);
    expect(client.guest.calls.length).toBe(4);
  });

  it('go on after a provider failed by exception', async () => {
    const tsm = new Tsm({
      name: 'broken',
      privlevelFloor: 0,
      newReport: () => Promise.reject(new TypeError('broken')),
    });
    const client = new Client(tsm);
    await client.put('inblob', USER_DATA);
    await expect(client.cat('outblob')).rejects.toThrow('broken');
    expect(await client.generation()).toBe('1\n');
  });

  it('show nothing, and keep nothing, when the provider says success and gives nothing', async () => {
    let made = 0;
    const empty: TsmBlobs = { outblob: null, auxblob: new Uint8Array(0) };
    const newReport = (): Promise<TsmBlobs> => {
      made += 1;
      return Promise.resolve(empty);
    };
    const report = new TsmReport(new Tsm({ name: 'x', privlevelFloor: 0, newReport }));
    await report.storeInblob(USER_DATA, null);
    expect(await report.readBlob('outblob')).toEqual(new Uint8Array(0));
    expect(await report.readBlob('auxblob')).toEqual(new Uint8Array(0));
    expect(made).toBe(2);
  });
});

describe('the provider sev_guest', () => {
  it('sends an extended request of version 1 with 16 KiB for certificates', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    await client.cat('outblob');
    const [call] = client.guest.calls;
    expect([call?.cmd, call?.msg_version, call?.inKernel]).toEqual([0xc0205302, 1, true]);
    const request = SnpExtReportReq.decodeLoose(call?.req_data as Uint8Array);
    expect([request.certs_len, request.data.user_data]).toEqual([0x4000, USER_DATA]);
  });

  it.each([0, 1, 32, 63])('answers EINVAL for an inblob of %d bytes', async (length) => {
    const client = new Client();
    await client.put('inblob', new Uint8Array(length).fill(1));
    expect(await client.cat('outblob')).toBe(Errno.EINVAL);
    expect(client.guest.calls).toEqual([]);
  });

  it('answers ENOTTY once the VMPCK is disabled', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    client.guest.refusals = [0x1bn];
    expect(await client.cat('outblob')).toBe(Errno.EIO);
    expect(await client.cat('outblob')).toBe(Errno.ENOTTY);
  });

  it('answers EIO for a host that wants more than four pages, and recovers', async () => {
    const client = new Client();
    client.guest.certs = new Uint8Array(0x4001);
    await client.put('inblob', USER_DATA);
    expect(await client.cat('outblob')).toBe(Errno.EIO);
    client.guest.certs = new Uint8Array(0);
    expect((await client.cat('outblob')) as Uint8Array).toHaveLength(1184);
  });

  it('answers ETIMEDOUT for a busy host and EBADMSG for a response that is not the answer', async () => {
    for (const [errno, spoil] of [
      [Errno.ETIMEDOUT, (guest: TestGuest) => (guest.refusals = new Array(99).fill(0x2_0000_0000n))],
      [Errno.EBADMSG, (guest: TestGuest) => (guest.tamper = (message) => message.fill(0))],
    ] as const) {
      const client = new Client();
      await client.put('inblob', USER_DATA);
      spoil(client.guest);
      expect(await client.cat('outblob')).toBe(errno);
    }
  });

  it('shows an empty file for a refusal at the level of the GHCB, and ENOTTY after it', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    client.guest.onExit = ({ put }) => put('sw_exit_info_1', 2n);
    expect(await client.cat('outblob')).toEqual(new Uint8Array(0));
    expect(await client.cat('outblob')).toBe(Errno.ENOTTY);
  });

  it.each([
    [0x16, Errno.EINVAL],
    [0x27, Errno.EINVAL],
    [0x1b, Errno.ENXIO],
  ])('response status 0x%x is errno %d', async (status, errno) => {
    const client = new Client();
    client.guest.status = status;
    await client.put('inblob', USER_DATA);
    expect(await client.cat('outblob')).toBe(errno);
  });

  it('answers ENOMEM for a report_size + 32 above 4096', async () => {
    const client = new Client();
    await client.put('inblob', USER_DATA);
    client.guest.reportSize = 4065;
    expect(await client.cat('outblob')).toBe(Errno.ENOMEM);
    client.guest.reportSize = 4064;
    expect((await client.cat('outblob')) as Uint8Array).toHaveLength(4064);
  });

  it.each([
    ['no table', new Uint8Array(0), 0],
    ['an empty table', new Uint8Array(24), 0],
    ['a table and its certificate', table(0x30, 100), 0x30 + 100],
    ['an entry that reaches beyond the buffer', table(0x30, 0x10_0000), 0x4000],
    ['an entry whose end wraps', table(0xffff_fff0, 0x40), 0x30],
    ['no terminator', new Uint8Array(0x4000).fill(0x01), 0x4000],
  ])('cuts auxblob at the furthest end: %s', async (_, certs, length) => {
    const client = new Client();
    client.guest.certs = certs;
    await client.put('inblob', USER_DATA);
    const auxblob = (await client.cat('auxblob')) as Uint8Array;
    expect(auxblob).toHaveLength(length);
    const room = new Uint8Array(0x4000);
    room.set(certs);
    expect(auxblob).toEqual(room.slice(0, length));
  });
});
