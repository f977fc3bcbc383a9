// SPDX-License-Identifier: Apache-2.0
/** `softsnp measure`: what a launch measures to, why, and where another launch departs from it. */
import { type ArgsDef, defineCommand } from 'citty';
import type { LedgerRow } from '../launch/ledger.ts';
import { toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { type Measured, measureLaunch, writeOutFile } from './measure-launch.ts';
import {
  MEASURE_ARGS,
  MEASURE_MODES,
  type MeasureArgs,
  type MeasureMode,
  type MeasureRequest,
  measureRequest,
} from './measure-request.ts';
import { choiceOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';

const OUTPUT_ARGS = {
  'output-format': {
    type: 'string',
    valueHint: 'hex|base64',
    description: 'Form of the result',
    default: 'hex',
  },
  json: { type: 'boolean', description: 'Print one JSON object' },
  explain: { type: 'boolean', description: 'Print the ledger: every page, and the digest after it' },
  'dump-vmsa': { type: 'boolean', description: 'Write the measured VMSAs to vmsa<N>.bin' },
  verbose: { type: 'boolean', alias: 'v', description: 'Say what was measured' },
  against: {
    type: 'string',
    valueHint: 'REPORT|DIGEST',
    description:
      'Find out which launch a report comes from: tries what people usually get wrong (snp); "-" is standard input',
  },
} as const satisfies ArgsDef;

const ALL_ARGS = { ...MEASURE_ARGS, ...OUTPUT_ARGS };
const { mode: _mode, ...MODE_ARGS } = ALL_ARGS;

interface OutputArgs {
  readonly 'output-format'?: string | undefined;
  readonly json?: boolean | undefined;
  readonly explain?: boolean | undefined;
  readonly 'dump-vmsa'?: boolean | undefined;
  readonly verbose?: boolean | undefined;
  readonly against?: string | undefined;
}

const DESCRIPTIONS: Readonly<Record<MeasureMode, string>> = {
  snp: 'Launch digest of an SEV-SNP guest: MEASUREMENT of its attestation reports',
  'snp:ovmf-hash': 'Digest after the firmware image alone, for --snp-ovmf-hash',
  'snp:svsm': 'Launch digest of a flat Coconut-SVSM image with its firmware',
  seves: 'Launch digest of an SEV-ES guest',
  sev: 'Launch digest of a plain SEV guest',
};

/** `softsnp measure`, writing to `output`. */
export function measureVerb(output: Output): Verb {
  const forMode = (mode: MeasureMode): Verb =>
    defineCommand({
      meta: { name: mode, description: DESCRIPTIONS[mode] },
      args: MODE_ARGS,
      run: ({ args }) => measure(args, args, mode, output),
    });
  return defineCommand({
    meta: {
      name: 'measure',
      description: 'Compute what a launch measures to, with the options of sev-snp-measure',
    },
    args: ALL_ARGS,
    subCommands: {
      ...Object.fromEntries(MEASURE_MODES.map((mode) => [mode, forMode(mode)])),
      diff: async () => (await import('./measure-diff.ts')).diffVerb(output),
    },
    run: ({ args }) => measure(args, args, null, output),
  });
}

export const measureCommand: Verb = measureVerb(processOutput);

async function measure(
  args: MeasureArgs,
  how: OutputArgs,
  command: MeasureMode | null,
  output: Output,
): Promise<number> {
  const format = choiceOption('output-format', how['output-format'] ?? 'hex', ['hex', 'base64']);
  const request = measureRequest(args, command, how.against !== undefined);
  for (const note of request.notes) {
    output.stderr(`softsnp: ${note}\n`);
  }
  if (how.against !== undefined) {
    const { explainMeasurement } = await import('./measure-against.ts');
    return explainMeasurement(request, how.against, how.json === true, output);
  }
  const result = measureLaunch(request);
  if (how['dump-vmsa'] === true) {
    dumpVmsas(result.vmsas, request.mode);
  }
  if (how.json === true) {
    output.stdout(`${JSON.stringify(jsonOf(request, result, how.explain === true), null, 2)}\n`);
    return EXIT_OK;
  }
  if (how.explain === true) {
    output.stdout(ledgerText(result.ledger()));
  }
  // As sev-snp-measure: an OVMF hash goes back in as hex, whatever the format.
  const text =
    format === 'base64' && request.mode !== 'snp:ovmf-hash'
      ? Buffer.from(result.digest).toString('base64')
      : toHex(result.digest);
  const verbose = how.verbose === true && request.mode !== 'snp:ovmf-hash';
  output.stdout(
    verbose ? `Calculated ${VERBOSE_NAMES[request.mode]} guest measurement: ${text}\n` : `${text}\n`,
  );
  return EXIT_OK;
}

const VERBOSE_NAMES: Readonly<Record<MeasureMode, string>> = {
  snp: 'SEV_SNP',
  'snp:ovmf-hash': 'SEV_SNP',
  'snp:svsm': 'SEV_SNP_SVSM',
  seves: 'SEV_ES',
  sev: 'SEV',
};

function dumpVmsas(vmsas: readonly Uint8Array[], mode: MeasureMode): void {
  if (vmsas.length === 0) {
    throw new InputError('OPTION_INVALID', `a ${mode} measurement has no VMSAs`, { where: '--dump-vmsa' });
  }
  vmsas.forEach((page, i) => {
    writeOutFile(`vmsa${i}.bin`, page);
  });
}

function jsonOf(request: MeasureRequest, result: Measured, explain: boolean): Record<string, unknown> {
  const { mode, vmmType, vcpus, cpu, image } = request;
  const { sevFeatures } = result;
  // Other VMMs do not show the CPU in RDX.
  const showsCpu = cpu !== null && vmmType.startsWith('QEMU');
  return {
    mode,
    ovmf: image.name,
    ...(sevFeatures === null
      ? {}
      : {
          vcpus,
          vmm_type: vmmType,
          vcpu_sig: showsCpu ? `0x${cpu.sig.toString(16)}` : null,
          guest_features: `0x${sevFeatures.toString(16)}`,
        }),
    measurement: toHex(result.digest),
    measurement_base64: Buffer.from(result.digest).toString('base64'),
    ...(explain ? { ledger: result.ledger() } : {}),
  };
}

function ledgerText(rows: readonly LedgerRow[]): string {
  const lines = rows.map(({ gpa, type, what, digest }) =>
    [gpa ?? '-'.padEnd(14), type.padEnd(10), what.padEnd(20), digest ?? ''].join('  ').trimEnd(),
  );
  const head = ['gpa'.padEnd(14), 'type'.padEnd(10), 'what'.padEnd(20), 'digest after'].join('  ');
  return `${[head, ...lines].join('\n')}\n`;
}
