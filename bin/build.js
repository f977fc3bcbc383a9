#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Compiles src/ into dist/ when dist/ is not of this source. A clone therefore needs no build step: the
 * launcher calls this first. An installed package has no src/ and is never rebuilt.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = `${root}dist`;
const stampFile = `${dist}/.stamp`;

/**
 * What the compiler reads: names, sizes and times are enough to see an edit.
 *
 * This runs at every start in a clone, so it loads and does nothing it can do without.
 */
function sourceStamp() {
  let stamp = '';
  const add = (path) => {
    const { size, mtimeMs } = statSync(root + path);
    stamp += `${path} ${size} ${mtimeMs}\n`;
  };
  const addFolder = (folder) => {
    for (const entry of readdirSync(root + folder, { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        addFolder(path);
      } else if (path.endsWith('.ts') && !path.endsWith('.test.ts')) {
        add(path);
      }
    }
  };
  for (const file of ['package.json', 'tsconfig.json', 'tsconfig.build.json']) {
    add(file);
  }
  addFolder('src');
  return stamp;
}

/** The contents of a file, the names in a folder; null where there is none. */
function existing(read, path) {
  try {
    return read(path, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') {
      throw error;
    }
    return null;
  }
}

export async function ensureBuilt() {
  if (existing(readdirSync, `${root}src`) === null) {
    return;
  }
  const stamp = sourceStamp();
  if (existing(readFileSync, stampFile) !== stamp) {
    await build(stamp);
  }
}

async function build(stamp) {
  const { spawnSync } = await import('node:child_process');
  const { existsSync, renameSync, rmSync, writeFileSync } = await import('node:fs');
  const { join } = await import('node:path');
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  if (!existsSync(compiler)) {
    process.stderr.write('softsnp: run `npm ci` in the clone first\n');
    process.exit(3);
  }
  // Built aside and moved into place, so that a second softsnp starting now never sees half of it.
  const fresh = `${dist}.${process.pid}`;
  const tsc = spawnSync(
    process.execPath,
    [compiler, '-p', join(root, 'tsconfig.build.json'), '--outDir', fresh],
    {
      cwd: root,
      encoding: 'utf8',
    },
  );
  if (tsc.error !== undefined) {
    throw tsc.error;
  }
  if (tsc.status !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    process.stderr.write(`softsnp: src/ does not compile\n${tsc.stdout}${tsc.stderr}`);
    process.exit(70);
  }
  writeFileSync(join(fresh, '.stamp'), stamp);
  const old = `${dist}.old.${process.pid}`;
  try {
    renameSync(dist, old);
  } catch (error) {
    if (error.code !== 'ENOENT') {
      throw error;
    }
  }
  try {
    renameSync(fresh, dist);
  } catch (error) {
    // Another softsnp has just put the same build there.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') {
      throw error;
    }
    rmSync(fresh, { recursive: true, force: true });
  }
  rmSync(old, { recursive: true, force: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await ensureBuilt();
}
