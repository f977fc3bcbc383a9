// SPDX-License-Identifier: Apache-2.0
/** Scripts of the test tree as JavaScript, for tests that need them in a process of their own. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

export interface Compiled {
  /** Path of a script that was named. */
  path(script: string): string;
  remove(): void;
}

/**
 * Compiles scripts, named by their paths below the project without a suffix.
 *
 * Returns  where they are, readable for every user
 */
export function compile(scripts: readonly string[]): Compiled {
  // Below the project, so that they find its dependencies.
  mkdirSync(join(root, '.cache'), { recursive: true });
  const built = mkdtempSync(join(root, '.cache', 'test-'));
  const config = join(built, 'tsconfig.json');
  const files = scripts.map((script) => join(root, `${script}.ts`));
  const compilerOptions = { noEmit: false, rootDir: root, outDir: built };
  writeFileSync(
    config,
    JSON.stringify({ extends: join(root, 'tsconfig.json'), compilerOptions, include: [], files }),
  );
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, stdout } = spawnSync(process.execPath, [compiler, '-p', config], { encoding: 'utf8' });
  if (status !== 0) {
    rmSync(built, { recursive: true });
    throw new TypeError(`tsc: ${stdout}`);
  }
  spawnSync('chmod', ['-R', 'a+rX', built]);
  return {
    path: (script) => join(built, `${script}.js`),
    remove: () => rmSync(built, { recursive: true }),
  };
}
