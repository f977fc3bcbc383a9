// SPDX-License-Identifier: Apache-2.0
/** The package as `npm run pack` makes it in a clean copy and as somebody uses it who has nothing else. */
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  readonly version: string;
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
};

const folder = mkdtempSync(join(tmpdir(), 'softsnp-package-'));
/** The sources without anything that was built or installed, but for what `npm ci` brings. */
const copy = join(folder, 'clone');
/** Somebody's project, with the package and what it depends on. */
const project = join(folder, 'project');
const installed = join(project, 'node_modules', 'softsnp');

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, argv: readonly string[], cwd: string): Ended {
  // The npm that runs the tests says in its environment how it was called itself.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)));
  const { status, stdout, stderr } = spawnSync(command, argv, { cwd, env, encoding: 'utf8' });
  return { status, stdout, stderr };
}

const softsnp = (...argv: string[]): Ended =>
  run(process.execPath, [join(installed, 'bin', 'softsnp.js'), ...argv], project);

const filesBelow = (path: string): string[] =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(path, join(entry.parentPath, entry.name)));

const paths = Object.keys(manifest.exports).filter((path) => path !== './package.json');
const subpaths = paths.map((path) => path.replace(/^\./, 'softsnp'));

beforeAll(() => {
  const left = ['.git', '.cache', 'node_modules', 'dist', 'console/dist'].map((name) => join(root, name));
  cpSync(root, copy, { recursive: true, filter: (path) => !left.includes(path) && !path.endsWith('.tgz') });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  const packed = run('npm', ['run', 'pack'], copy);
  expect(packed.status, packed.stderr).toBe(0);
  mkdirSync(installed, { recursive: true });
  const tarball = join(copy, `softsnp-${manifest.version}.tgz`);
  expect(run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'], folder).status).toBe(0);
  const needed = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.optionalDependencies)];
  for (const name of [...needed, '@types/node']) {
    const link = join(project, 'node_modules', name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), link);
  }
  writeFileSync(join(project, 'package.json'), '{"private":true,"type":"module"}');
}, 300_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('npm pack', () => {
  it('refuses to make a package of what is not built, and names the command that does', () => {
    const { status, stderr } = run('npm', ['pack'], copy);
    expect(status).not.toBe(0);
    expect(stderr).toContain('npm-run-pack-makes-it');
  });
});

describe('the package', () => {
  it('has everything that is built and named, and nothing that is for clones alone', () => {
    const files = filesBelow(installed);
    for (const target of Object.values(manifest.exports).flatMap((to) =>
      typeof to === 'string' ? [to] : Object.values(to),
    )) {
      expect(files).toContain(target.slice(2));
    }
    expect(files).toEqual(
      expect.arrayContaining(['bin/softsnp.js', 'dist/cli/main.js', 'console/dist/index.html', 'README.md']),
    );
    expect(
      files.filter((file) => /^(src|test|bench|console\/src)\/|\.test\.|testing\.|stamp/.test(file)),
    ).toEqual([]);
  });

  it('attests and verifies', () => {
    expect(softsnp('--version')).toEqual({ status: 0, stdout: `softsnp ${manifest.version}\n`, stderr: '' });
    expect(softsnp('attest', '--seed', '7', '--out', 'evidence')).toMatchObject({ status: 0, stderr: '' });
    const verify = ['verify', 'report', 'evidence/report.bin', '--certs', 'evidence', '--at', '2026-06-01'];
    expect(softsnp(...verify, '--trust', 'softsnp')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^ACCEPTED/),
    });
    expect(softsnp(...verify).status).toBe(2);
  });

  it('serves the page', async () => {
    const bin = join(installed, 'bin', 'softsnp.js');
    const server = spawn(process.execPath, [bin, 'console', '--port', '0'], { cwd: project });
    const ended = new Promise((resolve) => server.once('exit', resolve));
    try {
      const url = await new Promise<string>((resolve, reject) => {
        server.once('exit', (code) => reject(new TypeError(`softsnp console ended with ${code}`)));
        server.stdout.once('data', (line) => resolve(/http=(\S+)/.exec(String(line))![1]!));
      });
      const page = await (await fetch(url)).text();
      const [, script] = /src="\.?\/?(assets\/[^"]+\.js)"/.exec(page)!;
      expect((await fetch(`${url}${script}`)).status).toBe(200);
    } finally {
      server.kill('SIGTERM');
      await ended;
    }
  });

  it('is imported by its paths, each of which docs/howto/library.md names, and not by its name alone', () => {
    const page = readFileSync(join(root, 'docs/howto/library.md'), 'utf8');
    expect([...page.matchAll(/^\| `(softsnp\/[^`]+)` \|/gm)].map(([, path]) => path).sort()).toEqual(
      [...subpaths].sort(),
    );
    const imports = subpaths.map((path) => `import ${JSON.stringify(path)};`).join('\n');
    expect(run(process.execPath, ['--input-type=module', '-e', imports], project)).toMatchObject({
      ...{ status: 0, stderr: '' },
    });
    const bare = run(process.execPath, ['--input-type=module', '-e', "import 'softsnp';"], project);
    expect(bare.stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
    expect(page).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
  });

  it('has the types that the programs of the documents need, and they do what is said', () => {
    const programs = ['verify', 'library'].map((name) => {
      const text = readFileSync(join(root, 'docs/howto', `${name}.md`), 'utf8');
      const [program] = [...text.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1]!);
      writeFileSync(join(project, `${name}.ts`), program!);
      return `${name}.ts`;
    });
    const imports = subpaths.map((path, i) => `export * as part${i} from ${JSON.stringify(path)};\n`);
    writeFileSync(join(project, 'all.ts'), imports.join(''));
    const compilerOptions = {
      ...{ target: 'es2022', lib: ['es2023'], module: 'nodenext', moduleResolution: 'nodenext' },
      ...{ strict: true, skipLibCheck: false, types: ['node'], outDir: 'out', rootDir: '.' },
    };
    const config = { compilerOptions, files: [...programs, 'all.ts'] };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(config));
    const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    expect(run(process.execPath, [compiler, '-p', '.'], project)).toEqual({
      status: 0,
      stdout: '',
      stderr: '',
    });
    const ran = run(process.execPath, ['out/library.js'], project);
    expect(ran.stderr).toBe('');
    expect(ran.stdout).toMatch(/^extended-report .*\ntrue\n$/s);
  });

  it.each([
    ['console/dist', ['console'], 'the package was made without the page'],
    ['dist', ['--version'], 'cannot be loaded'],
  ])('without %s ends with one line, and says how to get a whole one', (missing, argv, said) => {
    const place = join(installed, missing);
    renameSync(place, join(folder, 'aside'));
    try {
      expect(existsSync(place)).toBe(false);
      const { status, stderr } = softsnp(...argv);
      expect(status).toBe(3);
      expect(stderr).toMatch(/^softsnp: .* \[INSTALLATION_INCOMPLETE\]\n {2}.*npm run pack.*\n$/);
      expect(stderr).toContain(said);
    } finally {
      renameSync(join(folder, 'aside'), place);
    }
  });
});
