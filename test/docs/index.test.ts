// SPDX-License-Identifier: Apache-2.0
/** docs/README.md leads to every document, and every link of a document leads somewhere. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const INDEX = 'docs/README.md';
const documents = readdirSync(join(root, 'docs'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(root, join(entry.parentPath, entry.name)));
const pages = ['README.md', ...documents.filter((path) => path.endsWith('.md'))];

const textOf = (path: string): string => readFileSync(join(root, path), 'utf8');

/** What a page links to in this repository: paths from its root, each with its anchor or none. */
function linksOf(page: string): { readonly path: string; readonly anchor: string | undefined }[] {
  const prose = textOf(page).replace(/^```.*?^```/gms, '');
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target!)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path, anchor] = target.split('#');
      return { path: path === '' ? page : relative(root, resolve(root, dirname(page), path!)), anchor };
    });
}

/** The anchors of a page: of its headings as GitHub makes them, and those that are written out. */
function anchorsOf(page: string): Set<string> {
  const text = textOf(page).replace(/^```.*?^```/gms, '');
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)]);
}

describe('docs/README.md', () => {
  it('leads to every document, and README.md to it', () => {
    const linked = linksOf(INDEX).map(({ path }) => path);
    expect(documents.length).toBeGreaterThan(20);
    expect(documents.filter((path) => path !== INDEX && !linked.includes(path))).toEqual([]);
    expect(linksOf('README.md').map(({ path }) => path)).toContain(INDEX);
  });
});

describe.each(pages)('%s', (page) => {
  it('links to files and headings that are there', () => {
    const broken = linksOf(page).filter(
      ({ path, anchor }) =>
        !existsSync(join(root, path)) ||
        (anchor !== undefined && path.endsWith('.md') && !anchorsOf(path).has(anchor)),
    );
    expect(broken).toEqual([]);
  });
});
