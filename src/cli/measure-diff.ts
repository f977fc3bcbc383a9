// SPDX-License-Identifier: Apache-2.0
/** `softsnp measure diff`: where two launches depart from each other. */
import { existsSync } from 'node:fs';
import { defineCommand, parseArgs } from 'citty';
import * as v from 'valibot';
import { compareLedgers, type LedgerDifference, type LedgerRow, measurementOf } from '../launch/ledger.ts';
import { splitShell } from '../launch/shell-words.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import { InputError } from '../lib/errors.ts';
import { EXIT_DIFFERENT, measureLaunch } from './measure-launch.ts';
import { MEASURE_ARGS, MEASURE_MODES, type MeasureArgs, measureRequest } from './measure-request.ts';
import { fileOption } from './options.ts';
import { checkedArguments, EXIT_OK, type Output, type Verb } from './run.ts';

/** As large as the ledger of 4096 vCPUs gets, with room. */
const LEDGER_LIMIT_BYTES = 2 ** 26;

const LEDGER_FILE = v.object({
  ledger: v.pipe(
    v.array(
      v.object({
        gpa: v.nullable(v.string()),
        type: v.string(),
        what: v.string(),
        contents: v.nullable(v.string()),
        digest: v.nullable(v.string()),
        fields: v.exactOptional(v.record(v.string(), v.string())),
      }),
    ),
    v.check((rows) => measurementOf(rows) !== null),
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
      const [a, b] = [ledgerOf('A', args.a), ledgerOf('B', args.b)];
      const measurements = [measurementOf(a), measurementOf(b)];
      // An image given by its hash has other rows than the image itself, and is the same launch.
      const same = measurements[0] === measurements[1];
      const differences = same ? [] : compareLedgers(a, b);
      if (args.json === true) {
        output.stdout(`${JSON.stringify({ same, measurements, differences }, null, 2)}\n`);
      } else {
        output.stdout(same ? 'the same launch\n' : differenceText(a, b, differences));
      }
      return same ? EXIT_OK : EXIT_DIFFERENT;
    },
  });
}

/** A ledger from a file, or measured now from quoted options. */
function ledgerOf(name: string, source: string): readonly LedgerRow[] {
  if (existsSync(source)) {
    return readLedger(name, source);
  }
  const where = `${JSON.stringify(source)} is no file, and as measure options`;
  const words = splitShell(source, where);
  const [first = ''] = words;
  const command = MEASURE_MODES.find((mode) => mode === first) ?? null;
  const rest = checkedArguments(MEASURE_ARGS, command === null ? words : words.slice(1), where);
  return measureLaunch(measureRequest(parseArgs(rest, MEASURE_ARGS) as MeasureArgs, command)).ledger();
}

function readLedger(name: string, path: string): readonly LedgerRow[] {
  const text = new TextDecoder().decode(fileOption(name, path, LEDGER_LIMIT_BYTES));
  let json: unknown = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Not JSON: the schema refuses it below.
  }
  const parsed = v.safeParse(LEDGER_FILE, json);
  if (!parsed.success) {
    throw new InputError('OPTION_INVALID', 'is no file that measure --explain --json wrote', {
      where: path,
      action: 'Write both with softsnp measure ... --explain --json, one for each launch.',
    });
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
  const first = a.findIndex((row, i) => departs(row, b[i]));
  const at = first < 0 ? a.length : first;
  const row = a[at] ?? b[at];
  if (row === undefined || differences.length === 0) {
    return 'the digests differ and no page does: one of the ledgers was written by hand\n';
  }
  const unit = row.gpa === null ? 'row' : 'page';
  const place = row.gpa === null ? row.what : `${row.gpa} ${row.what}`;
  const lines = [`the digests part at ${unit} ${at + 1} of ${a.length}: ${place}`];
  for (const run of runsOf(differences)) {
    lines.push(`${KIND_TEXT[run.kind].padEnd(18)}  ${placeOf(run)}`);
    for (const [name, inA, inB] of run.fields) {
      lines.push(`${''.padEnd(20)}${name}: ${inA} in A, ${inB} in B`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Whether two launches part at this row; SEV and SEV-ES have no digest before the end, but the contents. */
function departs(a: LedgerRow, b: LedgerRow | undefined): boolean {
  const inner = a.digest === null || b?.digest === null;
  return inner ? a.contents !== b?.contents || a.what !== b.what : a.digest !== b?.digest;
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
