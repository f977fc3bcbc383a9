// SPDX-License-Identifier: Apache-2.0
/** Genuine evidence from public repositories, kept outside this one: where it is and how to read it. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT =
  process.env['SOFTSNP_VECTORS'] ?? fileURLToPath(new URL('../../../shared/vectors/', import.meta.url));

export interface VectorEntry {
  readonly file: string;
  readonly what: string;
  readonly leaf?: readonly string[];
  readonly verdict?: 'genuine' | 'reject';
}

export const HAVE_VECTORS = existsSync(`${ROOT}/index.json`);

if (!HAVE_VECTORS) {
  console.warn(`SKIPPED: tests on genuine evidence; no vectors in ${ROOT} (set SOFTSNP_VECTORS)`);
}

export const INDEX: readonly VectorEntry[] = HAVE_VECTORS
  ? JSON.parse(readFileSync(`${ROOT}/index.json`, 'utf8'))
  : [];

export const vector = (file: string): Uint8Array => Uint8Array.from(readFileSync(`${ROOT}/${file}`));

/** Every ARK, ASK and ASVK there is, the revoked twin of SEV-Genoa among them and first. */
export const authorities = (): Uint8Array[] =>
  INDEX.filter(({ file }) => /\/(ark|ask|asvk)-/.test(file)).map(({ file }) => vector(file));

export const DAY_MS = 86_400_000;

/** A time at which the certificate of this file was valid. */
export function whenValidMs(file: string): number {
  const entry = INDEX.find((candidate) => candidate.file === file);
  const [, from] = /valid (\S+?)\.\./.exec(entry?.what ?? '') ?? [];
  return Date.parse(from ?? '') + 2 * DAY_MS;
}
