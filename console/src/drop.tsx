// SPDX-License-Identifier: Apache-2.0
/** Files in: the drop zone, drops and pastes anywhere on the page, and the list of what is there. */
import { useEffect, useState } from 'preact/hooks';
import { ITEM_KINDS, type Item, type ItemKind, MAX_FILE_BYTES, takeFile } from './evidence.ts';

export interface NamedBytes {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Folders of evidence have a dozen files; more is another kind of folder. */
const MAX_FOLDER_FILES = 64;

/** The bytes of files; those too large to be evidence come without theirs. */
export function readFiles(files: readonly File[]): Promise<readonly NamedBytes[]> {
  return Promise.all(
    files.map(async (file) => ({
      name: file.size > MAX_FILE_BYTES ? `${file.name} (larger than 1 MiB: not read)` : file.name,
      bytes: file.size > MAX_FILE_BYTES ? new Uint8Array(0) : new Uint8Array(await file.arrayBuffer()),
    })),
  );
}

type Add = (files: readonly File[], where: 'evidence' | 'root') => Promise<void>;

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
      await add(await droppedFiles(event.dataTransfer), isRoot ? 'root' : 'evidence');
    };
    const paste = (event: ClipboardEvent): void => {
      const isTyping =
        event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
      const text = event.clipboardData?.getData('text/plain') ?? '';
      if (!isTyping && text.trim() !== '') {
        void add([new File([text], 'pasted text')], 'evidence');
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

/** The files of a drop; of a folder, such as configfs-tsm's or `softsnp attest --out`, those directly in it. */
async function droppedFiles(transfer: DataTransfer | null): Promise<readonly File[]> {
  // Entries must be asked for before the first await: the drop is over after it.
  const folders = [...(transfer?.items ?? [])]
    .map((item) => item.webkitGetAsEntry())
    .filter((entry): entry is FileSystemDirectoryEntry => entry?.isDirectory === true);
  const files = [...(transfer?.files ?? [])];
  const inside = await Promise.all(folders.map(folderFiles));
  const names = new Set(folders.map(({ name }) => name));
  return [...files.filter(({ name }) => !names.has(name)), ...inside.flat()];
}

async function folderFiles(folder: FileSystemDirectoryEntry): Promise<readonly File[]> {
  const reader = folder.createReader();
  const entries = await new Promise<FileSystemEntry[]>((resolve, reject) =>
    reader.readEntries(resolve, reject),
  );
  return Promise.all(
    entries
      .filter((entry): entry is FileSystemFileEntry => entry.isFile)
      .slice(0, MAX_FOLDER_FILES)
      .map((entry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject))),
  );
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

export function EvidencePanel({
  items,
  onAdd,
  onChange,
}: {
  items: readonly Item[];
  onAdd: Add;
  onChange: (items: readonly Item[]) => void;
}) {
  const remove = (item: Item): void => {
    onChange(items.filter((other) => other !== item));
    // The button is gone with its row; the keyboard goes on from where files come in.
    document.getElementById('evidence-files')?.focus();
  };
  const retake = (item: Item, kind: ItemKind): void =>
    onChange(items.map((other) => (other === item ? takeFile(item.name, item.bytes, kind) : other)));
  return (
    <section class="panel" aria-labelledby="evidence-title">
      <h2 id="evidence-title">Evidence</h2>
      <label class="dropzone">
        <input
          type="file"
          multiple
          id="evidence-files"
          aria-describedby="evidence-hint"
          onChange={(event) => takeChosen(event.currentTarget, (files) => onAdd(files, 'evidence'))}
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
      {items.length > 0 && (
        <ul class="items" aria-label="Files">
          {items.map((item, i) => (
            <li key={`${i} ${item.name}`} class={item.kind === 'ignored' ? 'item ignored' : 'item'}>
              <span class="item-name">{item.name}</span>
              <button
                type="button"
                class="remove"
                aria-label={`Remove ${item.name}`}
                onClick={() => remove(item)}
              >
                ×
              </button>
              <select
                aria-label={`${item.name} is taken for`}
                value={item.kind}
                onChange={(event) => retake(item, event.currentTarget.value as ItemKind)}
              >
                {ITEM_KINDS.map((kind) => (
                  <option key={kind} value={kind}>
                    {KIND_NAMES[kind]}
                  </option>
                ))}
              </select>
              <span class="item-contents">
                {item.contents} · {item.bytes.length} bytes
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
