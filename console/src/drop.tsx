// SPDX-License-Identifier: Apache-2.0
/** Files in: the drop zone, drops and pastes anywhere on the page, and the list of what is there. */
import { useEffect, useRef, useState } from 'preact/hooks';
import {
  type Collection,
  ITEM_KINDS,
  type Item,
  type ItemKind,
  isRead,
  MAX_FILE_BYTES,
  MAX_FOLDER_FILES,
  retaken,
  takeFile,
  unreadFile,
} from './evidence.ts';

/** Files and what of a drop was left out. */
export interface Given {
  readonly files: readonly File[];
  readonly notes: readonly string[];
}

/** Reads files; those too large to be evidence are told and not read. */
export async function readFiles(files: readonly File[]): Promise<Collection> {
  const items = await Promise.all(
    files.map(async (file) => {
      if (file.size > MAX_FILE_BYTES) {
        return unreadFile(file.name, file.size, 'larger than 1 MiB');
      }
      try {
        return takeFile(file.name, new Uint8Array(await file.arrayBuffer()));
      } catch {
        return unreadFile(file.name, file.size, 'the browser could not');
      }
    }),
  );
  const unread = items.filter((item) => !isRead(item)).map(({ name, contents }) => `${name} (${contents})`);
  return { items, notes: unread.length === 0 ? [] : [`Left out: ${listed(unread)}.`] };
}

/** Names in a sentence, not more than somebody reads. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 6).join(', ');
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown;
}

type Add = (given: Given, where: 'evidence' | 'root') => Promise<void>;

/** Takes drops and pastes wherever they happen; returns whether something is being dragged over the page. */
export function useDropsAndPastes(add: Add): boolean {
  const [isDragging, setDragging] = useState(false);
  useEffect(() => {
    const over = (event: DragEvent): void => {
      event.preventDefault();
      setDragging(true);
    };
    const leave = (event: DragEvent): void => {
      if (event.relatedTarget === null) {
        setDragging(false);
      }
    };
    const drop = async (event: DragEvent): Promise<void> => {
      event.preventDefault();
      setDragging(false);
      const isRoot = event.target instanceof Element && event.target.closest('.trust') !== null;
      await add(await dropped(event.dataTransfer), isRoot ? 'root' : 'evidence');
    };
    const paste = (event: ClipboardEvent): void => {
      const isTyping =
        event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
      const text = event.clipboardData?.getData('text/plain') ?? '';
      if (!isTyping && text.trim() !== '') {
        void add(chosen([new File([text], 'pasted text')]), 'evidence');
      }
    };
    const handlers = { dragover: over, dragleave: leave, drop, paste };
    for (const [type, handler] of Object.entries(handlers)) {
      window.addEventListener(type, handler as EventListener);
    }
    return () => {
      for (const [type, handler] of Object.entries(handlers)) {
        window.removeEventListener(type, handler as EventListener);
      }
    };
  }, [add]);
  return isDragging;
}

/** Files of which none was left out. */
export const chosen = (files: readonly File[]): Given => ({ files, notes: [] });

/** The files of a drop; of a folder, such as configfs-tsm's or `softsnp attest --out`, those directly in it. */
async function dropped(transfer: DataTransfer | null): Promise<Given> {
  // Entries must be asked for before the first await: the drop is over after it.
  const folders = [...(transfer?.items ?? [])]
    .map((item) => item.webkitGetAsEntry())
    .filter((entry): entry is FileSystemDirectoryEntry => entry?.isDirectory === true);
  const files = [...(transfer?.files ?? [])];
  const inside = await Promise.all(folders.map(folderFiles));
  const names = new Set(folders.map(({ name }) => name));
  return {
    files: [...files.filter(({ name }) => !names.has(name)), ...inside.flatMap((given) => given.files)],
    notes: inside.flatMap((given) => given.notes),
  };
}

async function folderFiles(folder: FileSystemDirectoryEntry): Promise<Given> {
  const entries = (await folderEntries(folder)).sort((a, b) => (a.name < b.name ? -1 : 1));
  const inside = entries.filter((entry): entry is FileSystemFileEntry => entry.isFile);
  const folders = entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => name);
  const beyond = inside.length - MAX_FOLDER_FILES;
  const files = await Promise.all(
    inside
      .slice(0, MAX_FOLDER_FILES)
      .map((entry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject))),
  );
  return {
    files,
    notes: [
      ...(beyond <= 0
        ? []
        : [
            `${folder.name} has ${inside.length} files: those after ${inside[MAX_FOLDER_FILES - 1]!.name} were not read.`,
          ]),
      ...(folders.length === 0
        ? []
        : [`Folders inside ${folder.name} were not read: ${listed(folders)}. Drop them by themselves.`]),
    ],
  };
}

/** All entries: a browser hands them out by the hundred. */
async function folderEntries(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (some.length === 0) {
      return all;
    }
    all.push(...some);
  }
}

/** Hands the chosen files on and forgets them, so that the same file can be chosen again. */
export function takeChosen(input: HTMLInputElement, take: (files: readonly File[]) => void): void {
  take([...(input.files ?? [])]);
  input.value = '';
}

const KIND_NAMES: Readonly<Record<ItemKind, string>> = {
  report: 'Report',
  table: 'Certificate table',
  certificates: 'Certificate',
  crl: 'Revocation list',
  ignored: 'Ignored',
};

/** With more there is a list to scroll, and the settings stay within reach below it. */
const LONG_LIST = 12;
/** Files that are not used and stand in the list all the same. */
const FEW = 3;

export function EvidencePanel({
  collection: { items, notes },
  onAdd,
  onChange,
}: {
  collection: Collection;
  onAdd: Add;
  onChange: (collection: Collection) => void;
}) {
  const remove = (item: Item): void => {
    onChange({ items: items.filter((other) => other !== item), notes: [] });
    // The button is gone with its row; the keyboard goes on from where files come in.
    document.getElementById('evidence-files')?.focus();
  };
  const notesList = useRef<HTMLUListElement>(null);
  useEffect(() => {
    // Files can be dropped anywhere on the page; what is said of them is to be seen.
    if (notes.length > 0) {
      notesList.current!.scrollIntoView({ block: 'nearest' });
    }
  }, [notes]);
  const hasTaken = useRef(false);
  // A row that was taken for something else may stand in another list now, and its focus is gone.
  useEffect(() => {
    if (hasTaken.current && document.activeElement === document.body) {
      document.getElementById('evidence-files')?.focus();
    }
    hasTaken.current = false;
  }, [items]);
  const take = (item: Item, kind: ItemKind): void => {
    hasTaken.current = true;
    onChange(retaken(items, item, kind));
  };
  const rows = { onRemove: remove, onTake: take };
  const ignored = items.filter(({ kind }) => kind === 'ignored');
  const isFew = ignored.length <= FEW;
  const shown = isFew ? items : items.filter(({ kind }) => kind !== 'ignored');
  return (
    <section class="panel" aria-labelledby="evidence-title">
      <h2 id="evidence-title">Evidence</h2>
      <label class="dropzone">
        <input
          type="file"
          multiple
          id="evidence-files"
          aria-describedby="evidence-hint"
          onChange={(event) => takeChosen(event.currentTarget, (files) => onAdd(chosen(files), 'evidence'))}
        />
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path d="M12 15V4m0 0L8 8m4-4 4 4M4 15v4h16v-4" />
        </svg>
        <strong>Drop files here, or choose them</strong>
        <span id="evidence-hint">
          Report or outblob, certificates in PEM or DER, certificate table or auxblob, revocation list.
          Binary, hex, base64 or JSON; text can be pasted.
        </span>
      </label>
      <ul class="notes" role="status" aria-label="About these files" ref={notesList}>
        {notes.map((note, i) => (
          <li key={`${i}`}>{note}</li>
        ))}
      </ul>
      {shown.length > 0 && <ItemList label="Files" items={shown} {...rows} />}
      {!isFew && <IgnoredItems items={ignored} {...rows} />}
    </section>
  );
}

interface RowActions {
  readonly onRemove: (item: Item) => void;
  readonly onTake: (item: Item, kind: ItemKind) => void;
}

/** Shown on demand: a folder may hold much that is no evidence. */
function IgnoredItems({ items, ...rows }: RowActions & { items: readonly Item[] }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details class="more" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{items.length} files are not used</summary>
      {isOpen && <ItemList label="Files that are not used" items={items} {...rows} />}
    </details>
  );
}

function ItemList({
  label,
  items,
  onRemove,
  onTake,
}: RowActions & { label: string; items: readonly Item[] }) {
  return (
    <ul class={items.length > LONG_LIST ? 'items long' : 'items'} aria-label={label}>
      {items.map((item) => (
        <li key={item.name} class={item.kind === 'ignored' ? 'item ignored' : 'item'}>
          <span class="item-name">{item.name}</span>
          <button
            type="button"
            class="remove"
            aria-label={`Remove ${item.name}`}
            onClick={() => onRemove(item)}
          >
            ×
          </button>
          <select
            aria-label={`${item.name} is taken for`}
            value={item.kind}
            disabled={!isRead(item)}
            onChange={(event) => onTake(item, event.currentTarget.value as ItemKind)}
          >
            {ITEM_KINDS.map((kind) => (
              <option key={kind} value={kind}>
                {KIND_NAMES[kind]}
              </option>
            ))}
          </select>
          <span class="item-contents">
            {item.contents} · {item.given.size.toLocaleString('en')} bytes
          </span>
        </li>
      ))}
    </ul>
  );
}
