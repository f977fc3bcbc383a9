// SPDX-License-Identifier: Apache-2.0
/** The rules of the tree, run as tests: which folder may import which, and what may be called where. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const src = join(root, 'src');

/** Folder -> folders it may import besides itself. Importing runs one way. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  abi: ['lib'],
  keys: ['lib', 'abi'],
  certs: ['lib', 'abi'],
  launch: ['lib', 'abi'],
  hw: ['lib', 'abi'],
  verify: ['lib', 'abi', 'certs'],
  kds: ['lib', 'abi', 'certs', 'keys'],
  guest: ['lib', 'abi'],
  firmware: ['lib', 'abi', 'keys', 'hw'],
  kvm: ['lib', 'abi', 'hw', 'firmware'],
  vmm: ['lib', 'abi', 'launch', 'certs', 'kvm'],
  os: ['lib', 'abi', 'certs', 'verify'],
  machine: [
    'lib',
    'abi',
    'keys',
    'certs',
    'launch',
    'hw',
    'kds',
    'guest',
    'firmware',
    'kvm',
    'vmm',
    'verify',
  ],
  devices: ['lib', 'abi', 'certs', 'keys', 'kds', 'os', 'machine', 'guest', 'kvm', 'vmm'],
  service: [
    'lib',
    'abi',
    'keys',
    'certs',
    'launch',
    'kds',
    'os',
    'machine',
    'devices',
    'guest',
    'vmm',
    'firmware',
  ],
  cli: [
    'lib',
    'abi',
    'keys',
    'certs',
    'launch',
    'kds',
    'verify',
    'os',
    'machine',
    'devices',
    'service',
    'guest',
    'vmm',
    'firmware',
  ],
};

/** No node:* and no Buffer: these run in a browser too. */
const ISOMORPHIC = new Set(['lib', 'abi', 'keys', 'certs', 'launch', 'verify']);
/** No clock, randomness, timers or I/O of its own. */
const DETERMINISTIC = new Set([
  'lib',
  'abi',
  'keys',
  'certs',
  'launch',
  'hw',
  'guest',
  'firmware',
  'kvm',
  'vmm',
  'verify',
]);

interface Source {
  readonly path: string;
  readonly folder: string;
  readonly text: string;
  readonly imports: readonly string[];
}

const sources: Source[] = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => {
    const path = join(src, file);
    const text = readFileSync(path, 'utf8');
    const imports = [
      ...text.matchAll(/^\s*(?:import|export)\s[^;]*?from\s+'([^']+)'|import\('([^']+)'\)/gm),
    ].map((match) => match[1] ?? match[2]!);
    return { path: relative(root, path), folder: file.split('/')[0]!, text, imports };
  });
const shipped = sources.filter(
  (source) => !source.path.endsWith('.test.ts') && !source.path.endsWith('/testing.ts'),
);
const code = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '');

describe('the tree', () => {
  it('has only folders the layering names', () => {
    expect(
      [...new Set(sources.map((source) => source.folder))].filter((folder) => !(folder in MAY_IMPORT)),
    ).toEqual([]);
  });

  it('imports one way only', () => {
    const wrong: string[] = [];
    for (const source of shipped) {
      for (const target of source.imports.filter((name) => name.startsWith('.'))) {
        const folder = relative(src, resolve(dirname(join(root, source.path)), target)).split('/')[0]!;
        if (folder !== source.folder && !MAY_IMPORT[source.folder]!.includes(folder)) {
          wrong.push(`${source.path} imports ${target}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it('keeps node:* and Buffer out of the isomorphic folders', () => {
    const wrong = shipped
      .filter((source) => ISOMORPHIC.has(source.folder))
      .filter(
        (source) =>
          source.imports.some((name) => name.startsWith('node:')) || /\bBuffer\b/.test(code(source.text)),
      );
    expect(wrong.map((source) => source.path)).toEqual([]);
  });

  it('keeps clocks, randomness, timers and I/O out of the deterministic core', () => {
    const banned =
      /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\bsetTimeout\b|\bsetInterval\b|\bgetRandomValues\b|\bperformance\.now\b|\bprocess\.(?:env|argv|exit|exitCode|stdout|stderr|stdin|hrtime|pid|cwd|on|nextTick|uptime)\b|\bconsole\./;
    const wrong = shipped
      .filter((source) => DETERMINISTIC.has(source.folder))
      .filter(
        (source) => source.imports.some((name) => name.startsWith('node:')) || banned.test(code(source.text)),
      );
    expect(wrong.map((source) => source.path)).toEqual([]);
  });

  it('calls FFI from os/ alone', () => {
    const wrong = shipped.filter(
      (source) => source.folder !== 'os' && /['"]koffi['"]/.test(code(source.text)),
    );
    expect(wrong.map((source) => source.path)).toEqual([]);
  });

  it('throws only errors with a code outside lib/', () => {
    const wrong = shipped.filter(
      (source) => source.folder !== 'lib' && /throw new Error\(/.test(code(source.text)),
    );
    expect(wrong.map((source) => source.path)).toEqual([]);
  });

  it('has a heading in docs/limitations.md for every difference a docstring points at', () => {
    const headings = readFileSync(join(root, 'docs', 'limitations.md'), 'utf8').matchAll(/^#+ (.*)$/gm);
    const anchors = new Set([...headings].map(([, title]) => title!.toLowerCase().replaceAll(' ', '-')));
    const pointed = sources.flatMap(({ path, text }) =>
      [...text.matchAll(/limitations\.md#([a-z0-9-]+)/g)].map(([, anchor]) => ({ path, anchor: anchor! })),
    );
    expect(pointed.length).toBeGreaterThan(0);
    expect(pointed.filter(({ anchor }) => !anchors.has(anchor))).toEqual([]);
  });

  it('names the licence in the first line of every file, or the second after #!', () => {
    const wrong = sources.filter(
      (source) => !/^(#!.*\n)?\/\/ SPDX-License-Identifier: Apache-2\.0\n/.test(source.text),
    );
    expect(wrong.map((source) => source.path)).toEqual([]);
  });
});
