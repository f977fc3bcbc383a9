#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Builds the page into console/dist when that is not of this source. `softsnp console` in a clone calls it;
 * an installed package has the built page and not this file.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const root = dirname(folder);
const dist = join(folder, 'dist');

/** Digest of everything the page is made from: its own source and the isomorphic folders it imports. */
function sourceStamp() {
  const hash = createHash('sha256');
  const sources = ['console/src', 'src/lib', 'src/abi', 'src/certs', 'src/verify'];
  for (const source of sources) {
    for (const file of readdirSync(join(root, source), { recursive: true }).sort()) {
      if (/\.(ts|tsx|css)$/.test(file) && !file.endsWith('.test.ts')) {
        hash.update(`${source}/${file}\0`).update(readFileSync(join(root, source, file)));
      }
    }
  }
  for (const file of ['console/index.html', 'console/vite.config.js', 'package-lock.json']) {
    hash.update(`${file}\0`).update(readFileSync(join(root, file)));
  }
  return hash.digest('hex');
}

/** Where the built page is; builds it first when that is needed. */
export async function ensureConsoleBuilt() {
  const stamp = sourceStamp();
  const stampFile = join(dist, '.stamp');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) {
    return dist;
  }
  if (!existsSync(join(root, 'node_modules', 'vite'))) {
    process.stderr.write('softsnp: run `npm ci` in the clone first: the console page is built with vite\n');
    process.exit(3);
  }
  const { build } = await import('vite');
  // Built aside and moved into place: a page being served never loses a file half way through a build.
  const fresh = `${dist}.${process.pid}`;
  await build({
    configFile: join(folder, 'vite.config.js'),
    logLevel: 'warn',
    build: { outDir: fresh, emptyOutDir: true },
  });
  writeFileSync(join(fresh, '.stamp'), stamp);
  rmSync(dist, { recursive: true, force: true });
  try {
    renameSync(fresh, dist);
  } catch (error) {
    // Another softsnp has just put the same build there.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') {
      throw error;
    }
    rmSync(fresh, { recursive: true, force: true });
  }
  return dist;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await ensureConsoleBuilt();
}
