#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Compiles src/ into dist/ when dist/ is not of this source. A clone therefore needs no build step: the
 * launcher calls this first. An installed package has no src/ and is never rebuilt.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, 'dist');

/** Digest of what the compiler reads: names, sizes and times are enough to see an edit. */
function sourceStamp() {
  const hash = createHash('sha256');
  const add = (path) => {
    const { size, mtimeMs } = statSync(join(root, path));
    hash.update(`${path}\0${size}\0${mtimeMs}\n`);
  };
  for (const file of readdirSync(join(root, 'src'), { recursive: true }).sort()) {
    if (file.endsWith('.ts') && !file.endsWith('.test.ts')) {
      add(join('src', file));
    }
  }
  for (const file of ['package.json', 'tsconfig.json', 'tsconfig.build.json']) {
    add(file);
  }
  return hash.digest('hex');
}

export function ensureBuilt() {
  if (!existsSync(join(root, 'src'))) {
    return;
  }
  const stamp = sourceStamp();
  const stampFile = join(dist, '.stamp');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) {
    return;
  }
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
  ensureBuilt();
}
