// SPDX-License-Identifier: Apache-2.0
/** Which files a host and its guests show, by the absolute paths programs look at, and trees made of them. */
import type { DirectoryNode, FsNode } from '../devices/fuse/filesystem.ts';

/** What is seen where: keys are absolute paths of the machine that is shown. */
export type Places = Readonly<Record<string, FsNode>>;

/** A folder whose entries may come and go while it is served. */
export class LiveDirectory implements DirectoryNode {
  readonly kind = 'directory';
  readonly mode = 0o755;
  readonly #entries = new Map<string, FsNode>();

  lookup(name: string): FsNode | null {
    return this.#entries.get(name) ?? null;
  }

  entries(): Iterable<readonly [name: string, node: FsNode]> {
    return this.#entries;
  }

  set(name: string, node: FsNode): void {
    this.#entries.set(name, node);
  }

  delete(name: string): void {
    this.#entries.delete(name);
  }
}

/** The paths, those of folders with a slash at the end. */
export function pathsOf(places: Places): readonly string[] {
  return Object.entries(places).map(([path, { kind }]) => (kind === 'directory' ? `${path}/` : path));
}

/** One tree in which every place has its path. */
export function treeOf(places: Places): DirectoryNode {
  const root = new LiveDirectory();
  for (const [path, node] of Object.entries(places)) {
    const names = path.split('/').slice(1);
    const last = names.pop()!;
    let folder = root;
    for (const name of names) {
      const known = folder.lookup(name);
      const next = known instanceof LiveDirectory ? known : new LiveDirectory();
      folder.set(name, next);
      folder = next;
    }
    folder.set(last, node);
  }
  return root;
}
