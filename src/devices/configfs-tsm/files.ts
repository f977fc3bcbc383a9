// SPDX-License-Identifier: Apache-2.0
/**
 * /sys/kernel/config with tsm/report in it, as configfs shows attributes.
 *
 * No attribute can be both read and written, so that neither a text is rendered again after a store nor a
 * binary file refuses to change direction (ETXTBSY): O_RDWR is EACCES everywhere.
 *
 * Differs  configfs stores an inblob at the last close of an open file, which FUSE does not tell in time:
 *          here each close stores what was written so far. Binary files can be seeked in
 * Source   [DEVICES] "configfs file semantics"; [LINUX] fs/configfs/file.c
 */
import { Errno } from '../../abi/errno.ts';
import { utf8 } from '../../lib/bytes.ts';
import {
  accessMode,
  type DirectoryNode,
  type Eventually,
  type FileHandle,
  type FileNode,
  type FsNode,
  fixedDirectory,
  isRefusal,
  type Refusal,
  refuse,
} from '../fuse/filesystem.ts';
import { type KeptReport, TSM_INBLOB_MAX, type Tsm, TsmReport } from './device.ts';

/** Text attributes have one page; a store leaves room for the NUL at its end. */
const SIMPLE_ATTR_SIZE = 4096;
/** Some clients never remove their entry, so many are in order; an endless number is not. */
const MAX_ENTRIES = 65_536;

/** A folder that mkdir(2) made. */
interface Entry {
  readonly report: TsmReport;
  /** False after rmdir(2): files of it that are still open answer ENOENT. */
  alive: boolean;
}

/** What /sys/kernel/config shows. */
export function configfsTree(reports: ReportGroup): DirectoryNode {
  const subsystem = fixedDirectory({ report: reports });
  return { ...fixedDirectory({ tsm: subsystem }), rmdir: () => refuse(Errno.EINVAL) };
}

/** What a guest with a tsm provider has, by absolute path. */
export function tsmPlaces(reports: ReportGroup): Readonly<Record<string, FsNode>> {
  return { '/sys/kernel/config': configfsTree(reports) };
}

/** tsm/report: a folder for each entry that somebody made. */
export class ReportGroup implements DirectoryNode {
  readonly kind = 'directory';
  readonly mode = 0o755;
  readonly #tsm: Tsm;
  readonly #folders = new Map<string, DirectoryNode>();
  readonly #entries = new Map<string, Entry>();

  constructor(tsm: Tsm) {
    this.#tsm = tsm;
  }

  lookup(name: string): DirectoryNode | null {
    return this.#folders.get(name) ?? null;
  }

  entries(): Iterable<readonly [name: string, node: FsNode]> {
    return this.#folders;
  }

  mkdir(name: string): DirectoryNode | Refusal {
    if (this.#tsm.provider === null) {
      return refuse(Errno.ENXIO);
    }
    return this.#folders.size >= MAX_ENTRIES
      ? refuse(Errno.ENOMEM)
      : this.#add(name, new TsmReport(this.#tsm));
  }

  rmdir(name: string): null {
    this.#entries.get(name)!.alive = false;
    this.#entries.delete(name);
    this.#folders.delete(name);
    return null;
  }

  /** Entries with what they were told. */
  kept(): ReadonlyMap<string, KeptReport> {
    return new Map([...this.#entries].map(([name, { report }]) => [name, report.kept()]));
  }

  /** Has these entries and no others from now on. */
  replace(kept: ReadonlyMap<string, KeptReport>): void {
    for (const name of [...this.#entries.keys()]) {
      this.rmdir(name);
    }
    for (const [name, report] of kept) {
      this.#add(name, new TsmReport(this.#tsm, report));
    }
  }

  #add(name: string, report: TsmReport): DirectoryNode {
    const entry = { report, alive: true };
    const folder = fixedDirectory(attributes(entry));
    this.#entries.set(name, entry);
    this.#folders.set(name, folder);
    return folder;
  }
}

/** The files of an entry in a guest whose kernel runs at VMPL0. */
function attributes(entry: Entry): Readonly<Record<string, FileNode>> {
  const { report } = entry;
  return {
    generation: readable(entry, SIMPLE_ATTR_SIZE, () => report.showGeneration()),
    provider: readable(entry, SIMPLE_ATTR_SIZE, () => report.showProvider()),
    privlevel: writable(entry, SIMPLE_ATTR_SIZE, () =>
      textStore(entry, (text) => report.storePrivlevel(text)),
    ),
    privlevel_floor: readable(entry, SIMPLE_ATTR_SIZE, () => report.showPrivlevelFloor()),
    inblob: writable(entry, 0, () => inblobStore(entry)),
    outblob: readable(entry, 0, () => report.readBlob('outblob')),
    auxblob: readable(entry, 0, () => report.readBlob('auxblob')),
  };
}

/** The direction decides, whoever asks: there is no method for the other one. */
function attribute(
  entry: Entry,
  direction: 'read' | 'write',
  size: number,
  open: () => FileHandle,
): FileNode {
  return {
    kind: 'file',
    mode: direction === 'read' ? 0o444 : 0o200,
    size,
    truncate: () => null,
    open(flags) {
      if (!entry.alive) {
        return refuse(Errno.ENOENT);
      }
      return accessMode(flags) === direction ? open() : refuse(Errno.EACCES);
    },
  };
}

/** Rendered at the first read of an open file, then served from what was rendered: it does not change. */
function readable(
  entry: Entry,
  size: number,
  render: () => Eventually<string | Uint8Array | Refusal>,
): FileNode {
  return attribute(entry, 'read', size, () => {
    let snapshot: Uint8Array | null = null;
    const fill = async (): Promise<Uint8Array | Refusal> => {
      if (!entry.alive) {
        return refuse(Errno.ENOENT);
      }
      const rendered = await render();
      if (isRefusal(rendered)) {
        return rendered;
      }
      const bytes = typeof rendered === 'string' ? utf8(rendered) : rendered;
      // Nothing is no snapshot: the next read looks again.
      snapshot ??= bytes.length > 0 ? bytes : null;
      return bytes;
    };
    return {
      async read(offset, count) {
        const bytes = snapshot ?? (await fill());
        return isRefusal(bytes) ? bytes : bytes.subarray(offset, offset + count);
      },
    };
  });
}

function writable(entry: Entry, size: number, open: () => FileHandle): FileNode {
  return attribute(entry, 'write', size, open);
}

/** Each write(2) is one whole store, wherever the file position is. */
function textStore(entry: Entry, store: (text: Uint8Array) => Eventually<null | Refusal>): FileHandle {
  return {
    async write(_offset, data) {
      if (!entry.alive) {
        return refuse(Errno.ENOENT);
      }
      const text = data.subarray(0, SIMPLE_ATTR_SIZE - 1);
      return (await store(text)) ?? text.length;
    },
  };
}

/** Writes only collect; closing stores, and nobody learns how that went. */
function inblobStore(entry: Entry): FileHandle {
  let collected = new Uint8Array(0);
  let unstored = false;
  let storedAs: bigint | null = null;
  const store = async (): Promise<null> => {
    if (unstored && entry.alive) {
      unstored = false;
      const generation = await entry.report.storeInblob(collected, storedAs);
      storedAs = isRefusal(generation) ? storedAs : generation;
    }
    return null;
  };
  return {
    write(offset, data) {
      // Also when it does not fit: closing then stores what was collected, be it nothing.
      unstored = true;
      const end = offset + data.length;
      if (end > TSM_INBLOB_MAX) {
        return refuse(Errno.EFBIG);
      }
      if (end > collected.length) {
        const grown = new Uint8Array(end);
        grown.set(collected);
        collected = grown;
      }
      collected.set(data, offset);
      return data.length;
    },
    flush: store,
    release() {
      void store();
    },
  };
}
