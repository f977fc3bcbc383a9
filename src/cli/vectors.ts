// SPDX-License-Identifier: Apache-2.0
/** `softsnp vectors`: the negative set as files, for other people's verifiers. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { defineCommand } from 'citty';
import { toHex } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { makeFolder } from '../os/make-folder.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import type { Evidence } from '../verify/evidence.ts';
import { integerOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';
import type { VectorCase } from './vectors/case.ts';
import { vectorCases } from './vectors/cases.ts';

/** `softsnp vectors`, writing to `output`. */
export function vectorsVerb(output: Output): Verb {
  return defineCommand({
    meta: {
      name: 'vectors',
      description: 'Write evidence that a verifier must refuse (and a little it must accept) with an index',
    },
    args: {
      directory: { type: 'positional', required: true, valueHint: 'DIR', description: 'Folder to write to' },
      seed: { type: 'string', valueHint: 'N', description: 'Seed of keys and salts', default: '1' },
      'every-bit': {
        type: 'boolean',
        description:
          'Also write every single-bit change and every truncation of a report, its leaf and its intermediate',
      },
    },
    run: ({ args }) => {
      const seed = integerOption('seed', args.seed, 0, 0xffff_ffff);
      const rows = writeVectors(args.directory, seed, args['every-bit'] === true);
      output.stdout(`${rows} cases written to ${join(args.directory, 'index.json')}\n`);
      return EXIT_OK;
    },
  });
}

export const vectorsCommand: Verb = vectorsVerb(processOutput);

interface IndexRow {
  readonly name: string;
  readonly what: string;
  readonly verdict: 'accept' | 'reject';
  /** All errors softsnp finds; other verifiers have other words. Not told where every bit is changed. */
  readonly codes?: readonly string[];
  readonly warnings?: readonly string[];
  readonly time: string;
  readonly report: string;
  readonly table?: string;
  readonly certificates?: readonly string[];
  readonly crls?: readonly string[];
  readonly trusted_roots: 'amd' | readonly string[];
  readonly crl_mode?: string;
  readonly crl_minimum_number?: string;
  readonly product?: string;
}

const ABOUT =
  'Evidence under softsnp test roots, NOT AMD. Each case is wrong in the one respect that `what` names; verify ' +
  'it at `time` with `trusted_roots` as the only roots (amd: those of AMD, which none of this has). `codes` are all ' +
  'errors that softsnp finds, `warnings` all it warns of. crl_mode require: no acceptance without a current list; ' +
  'if-present: what a list says counts; skip: lists are not looked at.';

/** Writes all cases; equal files (the authorities) are written once. */
function writeVectors(directory: string, seed: number, everyBit: boolean): number {
  const files = new Files(directory);
  const rows: IndexRow[] = [];
  let good: VectorCase | null = null;
  for (const vector of vectorCases(nodeCrypto({ deterministic: true }), seededRandom(seed))) {
    good ??= vector;
    rows.push(indexRow(files, vector, files.write(`${vector.name}.report.bin`, vector.evidence.report)));
  }
  if (everyBit) {
    for (const { name, what, evidence } of damageCases(good!)) {
      const damaged = { ...good!, name: `every-bit/${name}`, what, evidence };
      const { codes, warnings, ...row } = indexRow(
        files,
        damaged,
        files.shared('report.bin', evidence.report),
      );
      rows.push({ ...row, verdict: 'reject' });
    }
  }
  files.write(
    'index.json',
    new TextEncoder().encode(`${JSON.stringify({ about: ABOUT, seed, cases: rows }, null, 1)}\n`),
  );
  return rows.length;
}

function indexRow(files: Files, vector: VectorCase, report: string): IndexRow {
  const { name, evidence, options, expected, warnings, what } = vector;
  const shared = (kind: string, bytes: readonly Uint8Array[]): readonly string[] =>
    bytes.map((data) => files.shared(kind, data));
  return {
    name,
    what,
    verdict: expected.length === 0 ? 'accept' : 'reject',
    codes: expected,
    warnings,
    time: new Date(options.atMs).toISOString(),
    report,
    ...(evidence.table === undefined ? {} : { table: files.write(`${name}.table.bin`, evidence.table) }),
    ...(evidence.certificates === undefined ? {} : { certificates: shared('der', evidence.certificates) }),
    ...(evidence.crls === undefined ? {} : { crls: shared('crl', evidence.crls) }),
    trusted_roots: options.trust === 'amd' ? 'amd' : shared('der', options.trust),
    ...(options.crl === undefined ? {} : { crl_mode: options.crl }),
    ...(options.crlMinimumNumber === undefined
      ? {}
      : { crl_minimum_number: String(options.crlMinimumNumber) }),
    ...(options.product === undefined ? {} : { product: options.product }),
  };
}

interface DamageCase {
  readonly name: string;
  readonly what: string;
  readonly evidence: Evidence;
}

/**
 * Every bit flipped and every length cut to, of the report, the leaf and the intermediate. Not of the root: a
 * verifier has that one from its own store, whatever lies beside the report.
 */
function* damageCases({ evidence }: VectorCase): Generator<DamageCase> {
  const { report, certificates = [] } = evidence;
  for (const { what, damaged } of damages(report)) {
    yield {
      name: `report-${what}`,
      what: `The report: ${what}.`,
      evidence: { ...evidence, report: damaged },
    };
  }
  for (const [index, kind] of ['leaf', 'intermediate'].entries()) {
    for (const { what, damaged } of damages(certificates[index]!)) {
      const changed = certificates.with(index, damaged);
      yield {
        name: `${kind}-${what}`,
        what: `The ${kind} certificate: ${what}.`,
        evidence: { ...evidence, certificates: changed },
      };
    }
  }
}

function* damages(good: Uint8Array): Generator<{ readonly what: string; readonly damaged: Uint8Array }> {
  for (let bit = 0; bit < 8 * good.length; bit++) {
    const damaged = good.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    yield { what: `bit-${bit}-flipped`, damaged };
  }
  for (let length = 0; length < good.length; length++) {
    yield { what: `cut-to-${length}-bytes`, damaged: good.subarray(0, length) };
  }
}

/** Writes files below one folder. */
class Files {
  readonly #directory: string;
  readonly #shared = new Map<string, string>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  write(name: string, data: Uint8Array): string {
    const path = join(this.#directory, name);
    try {
      makeFolder(dirname(path));
      writeFileSync(path, data);
    } catch (error) {
      throw new EnvironmentError('FILE_UNWRITABLE', `cannot be written: ${errnoCode(error)}`, {
        where: path,
        cause: error,
      });
    }
    return name;
  }

  /** A file named by its contents. */
  shared(extension: string, data: Uint8Array): string {
    const name = `shared/${toHex(nodeCrypto({ deterministic: true }).sha256(data)).slice(0, 16)}.${extension}`;
    const known = this.#shared.get(name);
    if (known !== undefined) {
      return known;
    }
    this.#shared.set(name, name);
    return this.write(name, data);
  }
}
