// SPDX-License-Identifier: Apache-2.0
/** State folders on disks that fail, and on machines whose power is cut. */
import {
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EnvironmentError } from '../lib/errors.ts';
import { prepareFile, StateDirectory } from './state-dir.ts';

/** What stands between the folder and the disk. */
const disk = vi.hoisted(() => ({
  before: (_call: string, _args: readonly unknown[]): void => undefined,
  after: (_call: string, _args: readonly unknown[], _result: unknown): void => undefined,
  /** What fcntl(F_OFD_SETLK) answers; null: what the kernel says. */
  lockErrno: null as number | null,
}));

vi.mock('node:fs', async (original) => {
  const real = await original<Record<string, (...args: unknown[]) => unknown>>();
  const calls = ['openSync', 'writeSync', 'fsyncSync', 'linkSync', 'renameSync', 'unlinkSync'];
  const watched = calls.map((call) => [
    call,
    (...args: unknown[]) => {
      disk.before(call, args);
      const result = real[call]!(...args);
      disk.after(call, args, result);
      return result;
    },
  ]);
  return { ...real, ...Object.fromEntries(watched) };
});

vi.mock('./libc.ts', async (original) => {
  const real = await original<typeof import('./libc.ts')>();
  return {
    ...real,
    fcntlLock: (fd: number, type: 'read' | 'write' | 'unlock') => disk.lockErrno ?? real.fcntlLock(fd, type),
  };
});

const OLD = Buffer.alloc(2000, 'old ');
const NEW = Buffer.alloc(2200, 'new!');

let folder: string;
let path: string;
let state: StateDirectory;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-state-'));
  state = StateDirectory.open(join(folder, 'state'));
  path = state.fileOf('a.json');
  state.write('a.json', OLD);
});
afterEach(() => {
  undisturbed();
  state.close();
  rmSync(folder, { recursive: true, force: true });
});

function undisturbed(): void {
  disk.before = () => undefined;
  disk.after = () => undefined;
  disk.lockErrno = null;
}

const contents = (): string[] => readdirSync(state.path).sort();

/** The calls that replacing a file takes, and how each is told from the others. */
const STEPS: readonly [step: string, call: string, isIt: (first: unknown, second: unknown) => boolean][] = [
  ['opening the file aside', 'openSync', (at) => String(at).endsWith('.new')],
  ['writing it', 'writeSync', () => true],
  ['syncing it', 'fsyncSync', (fd) => fstatSync(fd as number).isFile()],
  ['moving it into place', 'renameSync', (from) => String(from).endsWith('.new')],
  ['opening the folder', 'openSync', (at, flags) => at === state.path && flags === 'r'],
  ['syncing the folder', 'fsyncSync', (fd) => fstatSync(fd as number).isDirectory()],
];

/** As node:fs throws them. It has no name for EDQUOT and says so in two ways. */
const ERRORS: readonly [name: string, shape: { readonly code: string; readonly errno: number }][] = [
  ['ENOSPC', { code: 'ENOSPC', errno: -28 }],
  ['EIO', { code: 'EIO', errno: -5 }],
  ['EROFS', { code: 'EROFS', errno: -30 }],
  ['EDQUOT', { code: 'Unknown system error -122', errno: -122 }],
  ['EDQUOT', { code: 'UNKNOWN', errno: -122 }],
];

const failing = (step: (typeof STEPS)[number], shape: object): void => {
  disk.before = (call, [first, second]) => {
    if (call === step[1] && step[2](first, second)) {
      throw Object.assign(new TypeError('a disk that fails'), shape);
    }
  };
};

const refusal = (work: () => void): unknown => {
  try {
    work();
  } catch (error) {
    return error;
  }
  return null;
};

describe.each(STEPS)('replacing a file when %s fails', (...step) => {
  it.each(ERRORS)('with %s says so and leaves the old content, and nothing beside it', (name, shape) => {
    failing(step, shape);
    const error = refusal(() => state.write('a.json', NEW));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: `${path}: cannot write: ${name}`,
    });
    undisturbed();
    expect(readFileSync(path).equals(OLD)).toBe(true);
    expect(contents()).toEqual(['a.json', 'lock']);
    state.write('a.json', NEW);
    expect(readFileSync(path).equals(NEW)).toBe(true);
    expect(contents()).toEqual(['a.json', 'lock']);
  });

  it('leaves none where there was none', () => {
    failing(step, { code: 'EIO', errno: -5 });
    expect(refusal(() => state.write('b.json', NEW))).toMatchObject({ code: 'STATE_UNWRITABLE' });
    undisturbed();
    expect(contents()).toEqual(['a.json', 'lock']);
  });
});

describe('replacing a file', () => {
  it('writes all of it where the kernel takes little at a time', () => {
    const written: number[] = [];
    disk.before = (call, args) => {
      // Node passes the offset on and lets the length be: one of 7 bytes is as good.
      if (call === 'writeSync') {
        (args as unknown[])[3] = Math.min(7, NEW.length - (args[2] as number));
        written.push((args as number[])[3]!);
      }
    };
    state.write('a.json', NEW);
    expect(readFileSync(path).equals(NEW)).toBe(true);
    expect(written.length).toBe(Math.ceil(NEW.length / 7));
  });

  it('works on a file system without second names', () => {
    disk.before = (call) => {
      if (call === 'linkSync') {
        throw Object.assign(new TypeError('no links here'), { code: 'EPERM', errno: -1 });
      }
    };
    state.write('a.json', NEW);
    expect(readFileSync(path).equals(NEW)).toBe(true);
    expect(contents()).toEqual(['a.json', 'lock']);
  });

  it('prepared and thrown away leaves nothing', () => {
    const prepared = prepareFile(state.path, 'a.json', NEW);
    expect(contents()).toEqual(['.a.json.new', 'a.json', 'lock']);
    prepared.discard();
    expect(contents()).toEqual(['a.json', 'lock']);
    expect(readFileSync(path).equals(OLD)).toBe(true);
  });
});

describe('a state folder', () => {
  it('admits one writer, has mode 0700, and sweeps what a crash left half written', () => {
    expect(refusal(() => StateDirectory.open(state.path))).toMatchObject({ code: 'STATE_BUSY' });
    expect(statSync(state.path).mode & 0o777).toBe(0o700);
    writeFileSync(state.fileOf('.a.json.new'), '{"torn');
    writeFileSync(state.fileOf('.a.json.old'), 'old');
    mkdirSync(state.fileOf('.b.json.new'));
    state.close();
    state = StateDirectory.open(state.path);
    expect(contents()).toEqual(['a.json', 'lock']);
    expect(state.read('a.json')).toEqual(Uint8Array.from(OLD));
    expect(state.read('b.json')).toBeNull();
  });

  it('is there after a power cut once it is open: every folder above a new one is synced', () => {
    const synced: string[] = [];
    const opened = new Map<number, string>();
    disk.after = (call, [first], result) => {
      if (call === 'openSync') {
        opened.set(result as number, first as string);
      } else if (call === 'fsyncSync') {
        synced.push(opened.get(first as number)!);
      }
    };
    StateDirectory.open(join(folder, 'x', 'y', 'z')).close();
    expect(synced).toEqual([folder, join(folder, 'x'), join(folder, 'x', 'y')]);
    synced.length = 0;
    StateDirectory.open(join(folder, 'x', 'y', 'z')).close();
    expect(synced).toEqual([]);
  });

  it.each([
    [37, 'ENOLCK'],
    [95, 'EOPNOTSUPP'],
    [22, 'EINVAL'],
  ])('is refused on a file system that answers errno %i to the lock', (errno, name) => {
    disk.lockErrno = errno;
    const before = readdirSync('/proc/self/fd').length;
    expect(refusal(() => StateDirectory.open(join(folder, 'other')))).toMatchObject({
      code: 'LOCK_FAILED',
      message: `${join(folder, 'other')}: cannot lock the state folder: fcntl(F_OFD_SETLK) answered ${name}`,
    });
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('cannot be a file, and says why', () => {
    for (const wrong of [path, join(path, 'below')]) {
      expect(refusal(() => StateDirectory.open(wrong))).toMatchObject({
        code: 'STATE_UNWRITABLE',
        message: expect.stringMatching(/cannot use the state folder: (EEXIST|ENOTDIR)$/),
      });
    }
  });
});

/** One thing that was done to the disk. Files go by their number, which outlives their names. */
type Operation =
  | { readonly kind: 'name'; readonly name: string; readonly file: number }
  | { readonly kind: 'unname'; readonly name: string }
  | { readonly kind: 'write'; readonly file: number; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'sync'; readonly file: number }
  | { readonly kind: 'sync-names' };

/** The disk gives the number of a file that is gone to the next; these do not come twice. */
const numbers = new Map<number, number>();
let count = 0;

function numberOf(inode: number, isNew = false): number {
  if (isNew || !numbers.has(inode)) {
    count += 1;
    numbers.set(inode, count);
  }
  return numbers.get(inode)!;
}

/** Runs something and says what it did to the files of the state folder. */
function operationsOf(work: () => void): Operation[] {
  const done: Operation[] = [];
  const files = new Map<number, number>();
  const add = (...operations: Operation[]): void => {
    done.push(...operations);
  };
  const fileAt = (place: unknown): number => numberOf(lstatSync(place as string).ino);
  const name = (place: unknown): string => basename(place as string);
  let moved = 0;
  disk.before = (call, [first]) => {
    moved = call === 'renameSync' ? fileAt(first) : moved;
    if (call === 'unlinkSync' && existsSync(first as string)) {
      add({ kind: 'unname', name: name(first) });
    }
  };
  disk.after = (call, [first, second, third], result) => {
    if (call === 'openSync') {
      const isNew = second === 'w';
      const file = numberOf(fstatSync(result as number).ino, isNew);
      files.set(result as number, file);
      if (isNew) {
        add({ kind: 'name', name: name(first), file });
      }
    } else if (call === 'writeSync') {
      const at = third as number;
      const bytes = (second as Uint8Array).slice(at, at + (result as number));
      add({ kind: 'write', file: files.get(first as number)!, at, bytes });
    } else if (call === 'fsyncSync') {
      const file = files.get(first as number)!;
      add(file === fileAt(state.path) ? { kind: 'sync-names' } : { kind: 'sync', file });
    } else if (call === 'linkSync') {
      add({ kind: 'name', name: name(second), file: fileAt(first) });
    } else if (call === 'renameSync') {
      add({ kind: 'name', name: name(second), file: moved }, { kind: 'unname', name: name(first) });
    }
  };
  work();
  undisturbed();
  return done;
}

const SECTOR = 512;

/** Every choice of some of them. */
function* subsets<T>(of: readonly T[]): Generator<readonly T[]> {
  for (let bits = 0; bits < 2 ** of.length; bits++) {
    yield of.filter((_, i) => (bits >> i) & 1);
  }
}

/** How the old content came to the disk, all of it long synced. */
function oldContent(): readonly Operation[] {
  const file = numberOf(statSync(path).ino, true);
  return [
    { kind: 'name', name: 'a.json', file },
    { kind: 'write', file, at: 0, bytes: OLD },
    { kind: 'sync', file },
    { kind: 'sync-names' },
  ];
}

/**
 * What may be on the disk when the power goes after these operations: what was synced, and of the rest
 * anything, a sector at a time.
 *
 * Returns  every content that may be found; null for no such file
 */
function* afterPowerCut(name: string, operations: readonly Operation[]): Generator<Uint8Array | null> {
  const namesSynced = operations.findLastIndex(({ kind }) => kind === 'sync-names');
  const naming = operations.flatMap((operation, i) =>
    operation.kind === 'name' || operation.kind === 'unname' ? [{ operation, certain: i < namesSynced }] : [],
  );
  const uncertain = naming.filter(({ certain }) => !certain);
  for (const kept of subsets(uncertain)) {
    let file: number | null = null;
    for (const { operation } of naming.filter((entry) => entry.certain || kept.includes(entry))) {
      if (operation.name === name) {
        file = operation.kind === 'name' ? operation.file : null;
      }
    }
    if (file === null) {
      yield null;
    } else {
      yield* contentsOf(file, operations);
    }
  }
}

function* contentsOf(file: number, operations: readonly Operation[]): Generator<Uint8Array> {
  const synced = operations.findLastIndex(
    (operation) => operation.kind === 'sync' && operation.file === file,
  );
  const sectors = operations.flatMap((operation, i) =>
    operation.kind !== 'write' || operation.file !== file
      ? []
      : Array.from({ length: Math.ceil(operation.bytes.length / SECTOR) }, (_, sector) => ({
          at: operation.at + sector * SECTOR,
          bytes: operation.bytes.slice(sector * SECTOR, (sector + 1) * SECTOR),
          certain: i < synced,
        })),
  );
  for (const kept of subsets(sectors.filter(({ certain }) => !certain))) {
    const there = sectors.filter((sector) => sector.certain || kept.includes(sector));
    const content = new Uint8Array(Math.max(0, ...there.map(({ at, bytes }) => at + bytes.length)));
    for (const { at, bytes } of there) {
      content.set(bytes, at);
    }
    yield content;
  }
}

/** Whatever may be found after a power cut at any of these operations, except what is allowed. */
function surprises(
  before: readonly Operation[],
  operations: readonly Operation[],
  allowed: readonly (Uint8Array | null)[],
): string[] {
  const found: string[] = [];
  for (let done = 0; done <= operations.length; done++) {
    for (const content of afterPowerCut('a.json', [...before, ...operations.slice(0, done)])) {
      if (!allowed.some((one) => same(one, content))) {
        found.push(`after ${done} operations: ${content === null ? 'nothing' : `${content.length} bytes`}`);
      }
    }
  }
  return found;
}

const same = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === null || b === null ? a === b : Buffer.from(a).equals(b);

const without = (operations: readonly Operation[], kind: Operation['kind']): Operation[] =>
  operations.filter((operation) => operation.kind !== kind);

describe('a power cut while a file is replaced', () => {
  let before: readonly Operation[];
  beforeEach(() => {
    before = oldContent();
  });
  const replacing = (): Operation[] => operationsOf(() => state.write('a.json', NEW));

  it('leaves the old content or the new, whatever was not synced is lost, torn or in another order', () => {
    const operations = replacing();
    expect(operations.map(({ kind }) => kind)).toEqual([
      ...['name', 'write', 'sync'],
      ...['name', 'name', 'unname', 'sync-names', 'unname'],
    ]);
    expect(surprises(before, operations, [OLD, NEW])).toEqual([]);
  });

  it('leaves the new content once the call has returned, for the folder is synced', () => {
    const operations = replacing();
    const found = [...afterPowerCut('a.json', [...before, ...operations])];
    expect(found.every((content) => same(content, NEW))).toBe(true);
    const unsynced = [...afterPowerCut('a.json', [...before, ...without(operations, 'sync-names')])];
    expect(unsynced.some((content) => same(content, OLD))).toBe(true);
  });

  it('would leave a torn file if the file were not synced: the model sees it', () => {
    expect(surprises(before, without(replacing(), 'sync'), [OLD, NEW]).length).toBeGreaterThan(10);
  });

  it('leaves no file or a whole one where there was none', () => {
    rmSync(path);
    expect(surprises([], replacing(), [null, NEW])).toEqual([]);
  });

  it('leaves the old content or the new when the folder could not be synced and all was undone', () => {
    const operations = operationsOf(() => {
      const recorded = disk.before;
      disk.before = (call, args) => {
        recorded(call, args);
        if (call === 'fsyncSync' && fstatSync(args[0] as number).isDirectory()) {
          throw Object.assign(new TypeError('a disk that fails'), { code: 'EIO', errno: -5 });
        }
      };
      expect(refusal(() => state.write('a.json', NEW))).toMatchObject({ code: 'STATE_UNWRITABLE' });
    });
    expect(operations.at(-1)).toEqual({ kind: 'unname', name: '.a.json.old' });
    expect(surprises(before, operations, [OLD, NEW])).toEqual([]);
  });

  it('leaves one of three contents while it is replaced twice', () => {
    const third = Buffer.alloc(600, 'third');
    const operations = operationsOf(() => {
      state.write('a.json', NEW);
      state.write('a.json', third);
    });
    expect(surprises(before, operations, [OLD, NEW, third])).toEqual([]);
  });
});
