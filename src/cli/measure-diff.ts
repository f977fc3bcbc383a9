// SPDX-License-Identifier: Apache-2.0
/** `softsnp measure diff`: where two launches depart from each other. */
import { existsSync } from 'node:fs';
import { defineCommand, parseArgs } from 'citty';
import * as v from 'valibot';
import { compareLedgers, type LedgerDifference, type LedgerRow } from '../launch/ledger.ts';
import { splitShell } from '../launch/qemu.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import { InputError } from '../lib/errors.ts';
import { EXIT_DIFFERENT, measureLaunch } from './measure-launch.ts';
import { MEASURE_ARGS, MEASURE_MODES, type MeasureArgs, measureRequest } from './measure-request.ts';
import { fileOption } from './options.ts';
import { EXIT_OK, type Output, type Verb } from './run.ts';

/** As large as the ledger of 4096 vCPUs gets, with room. */
const LEDGER_LIMIT_BYTES = 2 ** 26;

const LEDGER_FILE = v.object({
  ledger: v.array(
    v.object({
      gpa: v.nullable(v.string()),
      type: v.string(),
      what: v.string(),
      contents: v.nullable(v.string()),
      digest: v.nullable(v.string()),
      fields: v.exactOptional(v.record(v.string(), v.string())),
    }),
  ),
});

/** `softsnp measure diff`, writing to `output`. */
export function diffVerb(output: Output): Verb {
  return defineCommand({
    meta: {
      name: 'diff',
      description:
        "Say which page and which field makes two launches measure differently. A and B are files written by measure --explain --json, or quoted measure options: 'snp --vcpus 2 --vcpu-type EPYC-Milan --ovmf A.fd'. Exit code 2 when they differ",
    },
    args: {
      a: { type: 'positional', description: 'Ledger file or quoted options', required: true },
      b: { type: 'positional', description: 'Ledger file or quoted options', required: true },
      json: { type: 'boolean', description: 'Print one JSON object' },
    },
    run: ({ args }) => {
      const [a, b] = [ledgerOf(args.a), ledgerOf(args.b)];
      const differences = compareLedgers(a, b);
      const measurements = [a.at(-1)?.digest ?? null, b.at(-1)?.digest ?? null];
      if (args.json === true) {
        output.stdout(
          `${JSON.stringify({ same: differences.length === 0, measurements, differences }, null, 2)}\n`,
        );
      } else {
        output.stdout(differenceText(a, b, differences));
      }
      return differences.length === 0 ? EXIT_OK : EXIT_DIFFERENT;
    },
  });
}

/** A ledger from a file, or measured now from quoted options. */
function ledgerOf(source: string): readonly LedgerRow[] {
  if (existsSync(source)) {
    return readLedger(source);
  }
  const words = splitShell(source);
  const [first = ''] = words;
  const command = MEASURE_MODES.find((mode) => mode === first) ?? null;
  const rest = command === null ? words : words.slice(1);
  const parsed = parseArgs(rest, MEASURE_ARGS) as MeasureArgs & { readonly _: readonly string[] };
  const unknown = Object.keys(parsed).find((name) => name !== '_' && !(kebab(name) in MEASURE_ARGS));
  if (unknown !== undefined || parsed._.length > 0) {
    throw new InputError(
      'OPTION_INVALID',
      `is neither a file nor measure options: ${unknown === undefined ? parsed._[0] : `--${unknown}`}`,
      { where: JSON.stringify(source) },
    );
  }
  return measureLaunch(measureRequest(parsed, command)).ledger();
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function readLedger(path: string): readonly LedgerRow[] {
  const text = new TextDecoder().decode(fileOption('a, b', path, LEDGER_LIMIT_BYTES));
  let json: unknown = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Not JSON: the schema refuses it below.
  }
  const parsed = v.safeParse(LEDGER_FILE, json);
  if (!parsed.success) {
    throw new InputError('OPTION_INVALID', 'is no file that measure --explain --json wrote', { where: path });
  }
  return parsed.output.ledger;
}

const KIND_TEXT: Readonly<Record<LedgerDifference['kind'], string>> = {
  'only-in-a': 'only in A',
  'only-in-b': 'only in B',
  type: 'page type',
  contents: 'contents',
  order: 'first out of order',
};

function differenceText(
  a: readonly LedgerRow[],
  b: readonly LedgerRow[],
  differences: readonly LedgerDifference[],
): string {
  if (differences.length === 0) {
    return 'the same launch\n';
  }
  const first = a.findIndex((row, i) => row.digest !== b[i]?.digest);
  const at = first < 0 ? a.length : first;
  const row = a[at] ?? b[at]!;
  const lines = [`the digests part at page ${at + 1} of ${a.length}: ${row.gpa ?? '-'} ${row.what}`];
  for (const run of runsOf(differences)) {
    lines.push(`${KIND_TEXT[run.kind].padEnd(18)}  ${placeOf(run)}`);
    for (const [name, inA, inB] of run.fields) {
      lines.push(`${''.padEnd(20)}${name}: ${inA} in A, ${inB} in B`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Neighbours that differ in the same way: pages of one region, or VMSAs. */
interface Run extends LedgerDifference {
  readonly pages: number;
}

const VMSA = /^VMSA of vCPU (\d+)$/;

function runsOf(differences: readonly LedgerDifference[]): Run[] {
  const runs: Run[] = [];
  for (const difference of differences) {
    const last = runs.at(-1);
    // That the hash of a firmware page differs says no more than that the page does.
    const fields = difference.fields.filter(([name]) => name !== 'contents');
    const same =
      last !== undefined &&
      last.kind === difference.kind &&
      JSON.stringify(last.fields) === JSON.stringify(fields) &&
      follows(last, difference);
    if (same) {
      runs[runs.length - 1] = { ...last, pages: last.pages + 1 };
    } else {
      runs.push({ ...difference, fields, pages: 1 });
    }
  }
  return runs;
}

function follows(run: Run, next: LedgerDifference): boolean {
  const [first, vcpu] = [VMSA.exec(run.what)?.[1], VMSA.exec(next.what)?.[1]];
  if (first !== undefined && vcpu !== undefined) {
    return Number(vcpu) === Number(first) + run.pages;
  }
  return (
    run.what === next.what &&
    run.gpa !== null &&
    next.gpa !== null &&
    BigInt(next.gpa) === BigInt(run.gpa) + BigInt(run.pages * PAGE_SIZE)
  );
}

function placeOf({ what, gpa, pages }: Run): string {
  const vcpu = VMSA.exec(what)?.[1];
  if (vcpu !== undefined) {
    return pages === 1 ? what : `VMSAs of vCPUs ${vcpu} to ${Number(vcpu) + pages - 1}`;
  }
  return `${what}${gpa === null ? '' : ` at ${gpa}`}${pages === 1 ? '' : `, ${pages} pages`}`;
}
