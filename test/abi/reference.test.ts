// SPDX-License-Identifier: Apache-2.0
/** The reference pages are what the declarations say; UPDATE_DOCS=1 writes them anew. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PAGES } from '../docs/generate.ts';

const folder = new URL('../../docs/reference/', import.meta.url);

describe('docs/reference', () => {
  it.each(Object.entries(PAGES))('%s is in step with the declarations', (name, render) => {
    const file = new URL(name, folder);
    const text = render();
    if (process.env['UPDATE_DOCS'] === '1') {
      mkdirSync(folder, { recursive: true });
      writeFileSync(file, text);
    }
    const committed = existsSync(file) ? readFileSync(file, 'utf8') : '';
    // One comparison of booleans: a diff of a page of this length helps nobody.
    expect(
      committed === text,
      `run UPDATE_DOCS=1 npx vitest run test/abi/reference.test.ts and commit ${name}`,
    ).toBe(true);
  });

  it.each(Object.entries(PAGES))('%s has each of its link targets exactly once', (_, render) => {
    const text = render();
    const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
      title!
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
    const targets = [...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)];
    const links = [...text.matchAll(/\]\(#([^)]+)\)/g)].map(([, target]) => target!);
    expect(links.filter((target) => !targets.includes(target))).toEqual([]);
    expect(targets.filter((target, i) => targets.indexOf(target) !== i)).toEqual([]);
  });
});
