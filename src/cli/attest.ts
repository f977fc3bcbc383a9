// SPDX-License-Identifier: Apache-2.0
/** softsnp attest: one guest, one report with certificates, one verdict. */
import { writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { AttestationReportV2 } from '../abi/attestation-report.ts';
import { CERT_GUIDS } from '../abi/cert-table.ts';
import { errnoName } from '../abi/errno.ts';
import type { ProductLine } from '../abi/product.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { decodeTcb, formatTcb } from '../abi/tcb-version.ts';
import { decodeCertificateTable, toPem } from '../certs/index.ts';
import type { LaunchPlan } from '../launch/index.ts';
import type { Vmpl } from '../lib/addresses.ts';
import { readU64, toHex, utf8 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import type { TraceEvent } from '../lib/trace.ts';
import { type Attestation, attest, certificateBlob, Host, type Refusal } from '../machine/index.ts';
import { BlobFile, replaceBlob } from '../os/blob-file.ts';
import { errnoCode } from '../os/errno.ts';
import { makeFolder } from '../os/make-folder.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { BLOB_FILE, type OpenHostState } from './host-state.ts';
import { toJson } from './json.ts';
import { MACHINE_ARGS } from './machine-args.ts';
import {
  chipOverrides,
  launchSettings,
  type MachineOptions,
  openMachineState,
  readMachineOptions,
} from './machine-options.ts';
import { hexOption, integerOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';

const EXIT_NOT_VERIFIED = 2;
const EXIT_REFUSED = 3;

const GUEST_NAME = 'guest';

const CRL_LABEL = 'X509 CRL';

const ARGS = {
  ...MACHINE_ARGS,
  vmpl: { type: 'string', valueHint: '0-3', description: 'VMPL the request names', default: '0' },
  'report-data': {
    type: 'string',
    valueHint: 'HEX',
    description: 'Up to 64 bytes, filled with zeros (random if left out)',
  },
  out: {
    type: 'string',
    valueHint: 'DIR',
    description:
      'Write report.bin, certs.bin, the certificates, crl.pem and trace.jsonl: what softsnp verify report takes',
  },
  json: { type: 'boolean', description: 'Print one JSON object' },
} as const satisfies ArgsDef;

type Args = ParsedArgs<typeof ARGS>;

/** `softsnp attest`, writing to `output`. */
export function attestVerb(output: Output): Verb {
  return defineCommand({
    meta: {
      name: 'attest',
      description:
        'Launch a guest, have it ask for a report with certificates, verify the evidence. Exit codes: 0 it verifies, 1 wrong usage, 2 it does not verify, 3 the machine refused',
    },
    args: ARGS,
    run: ({ args }) => runAttest(readOptions(args), output),
  });
}

export const attestCommand: Verb = attestVerb(processOutput);

interface Options extends MachineOptions {
  readonly vmpl: Vmpl;
  readonly reportData: Uint8Array | null;
  readonly out: string | null;
  readonly json: boolean;
}

function readOptions(args: Args): Options {
  return {
    ...readMachineOptions(args),
    vmpl: integerOption('vmpl', args.vmpl, 0, 3) as Vmpl,
    reportData: args['report-data'] === undefined ? null : hexOption('report-data', args['report-data'], 64),
    out: args.out ?? null,
    json: args.json === true,
  };
}

function runAttest(options: Options, output: Output): number {
  const opened = openMachineState(options);
  try {
    return attestOn(opened, options, output);
  } finally {
    opened.close();
  }
}

function attestOn(opened: OpenHostState, options: Options, output: Output): number {
  const { crypto, random, clock, state } = opened;
  const run: Run = { options, output, steps: [], log: [] };
  const { steps, log } = run;
  const narrate = options.json ? () => {} : (text: string) => output.stdout(text);
  const host = new Host(
    {
      ...{ crypto, random, clock },
      trace: (event) => {
        steps.push(event);
        narrate(stepLine(event));
      },
      log: (line) => {
        log.push(line);
        if (options.verbose) {
          output.stderr(`${line}\n`);
        }
      },
    },
    state,
    chipOverrides(options, state.product),
  );
  const plan = options.plan(crypto);
  narrate(hostLine(host, options));
  if (options.key === 'vlek') {
    const loaded = host.loadVlek();
    if (!loaded.ok) {
      const { message: reason, errno, fwStatus } = loaded;
      const names = { errno: errnoName(errno), fwStatus: sevRetName(fwStatus) };
      return refused(run, { ok: false, step: 'SNP_VLEK_LOAD', reason, ...names, swExitInfo2: null });
    }
  }
  const blob = blobOf(opened, host, options);
  const result = attest(host, {
    name: GUEST_NAME,
    ...launchSettings(options, plan),
    blob,
    vmpl: options.vmpl,
    reportData: options.reportData ?? random.bytes(64),
    verifyCrypto: nodeVerifyCrypto(),
    sleep: opened.sleep,
  });
  opened.save(host.state);
  if (!result.ok) {
    return refused(run, result);
  }
  const files = options.out === null ? null : writeEvidence(options.out, result, steps);
  if (options.json) {
    output.stdout(toJson({ ...document(host, options, plan, result, steps), files }));
  } else {
    narrate(verdictText(host, result));
    narrate(filesText(options.out, files));
  }
  return result.verdict.ok ? EXIT_OK : EXIT_NOT_VERIFIED;
}

/** The file the VMM serves: the caller's, or a fresh one in the state folder. */
function blobOf({ directory }: OpenHostState, host: Host, { certs, key }: Options): BlobFile {
  if (certs !== null) {
    const given = new BlobFile(certs);
    given.checkServable();
    return given;
  }
  const path = directory.fileOf(BLOB_FILE);
  if (!replaceBlob(path, () => certificateBlob(host.chain(key === 'vcek' ? 'VCEK' : 'VLEK')))) {
    throw new EnvironmentError('STATE_BUSY', 'another program holds a lock on the certificate blob', {
      where: path,
    });
  }
  return new BlobFile(path, BLOB_FILE);
}

/** What a run of the verb has collected, and where it writes. */
interface Run {
  readonly options: Options;
  readonly output: Output;
  readonly steps: TraceEvent[];
  readonly log: string[];
}

function refused({ options, output, steps, log }: Run, refusal: Refusal): number {
  const { step, reason, errno, fwStatus, swExitInfo2 } = refusal;
  if (options.json) {
    const error = { step, reason, errno, fw_status: fwStatus, sw_exit_info_2: swExitInfo2 };
    output.stdout(toJson({ error, steps }));
  }
  if (!options.verbose) {
    output.stderr(log.map((line) => `${line}\n`).join(''));
  }
  output.stderr(`softsnp: the machine refused ${step}: ${reason}\n`);
  return EXIT_REFUSED;
}

/** Writes all that `softsnp verify report` needs, and returns the paths. */
function writeEvidence(
  folder: string,
  { report, table, crl }: Attestation,
  steps: readonly TraceEvent[],
): readonly string[] {
  const files: [string, Uint8Array][] = [
    ['report.bin', report],
    ['certs.bin', table],
    ['trace.jsonl', utf8(steps.map((step) => `${JSON.stringify(step)}\n`).join(''))],
    ...certificateFiles(table),
    ['crl.pem', utf8(toPem(crl, CRL_LABEL))],
  ];
  try {
    makeFolder(folder);
    for (const [name, bytes] of files) {
      writeFileSync(join(folder, name), bytes);
    }
  } catch (error) {
    throw new EnvironmentError('STATE_UNWRITABLE', `cannot write the evidence: ${errnoCode(error)}`, {
      where: `--out ${folder}`,
      cause: error,
    });
  }
  return files.map(([name]) => join(folder, name));
}

/** ark.pem, ask.pem or asvk.pem, vcek.pem or vlek.pem: the certificates of the guest's table. */
function certificateFiles(table: Uint8Array): [string, Uint8Array][] {
  const entries = entriesOf(table);
  const isVlek = entries.some(({ name }) => name === 'VLEK');
  return entries.map(({ name, data }) => {
    const file = name === 'ASK or ASVK' ? (isVlek ? 'asvk' : 'ask') : name.toLowerCase();
    return [`${file}.pem`, utf8(toPem(data))];
  });
}

function entriesOf(
  table: Uint8Array,
): { readonly name: string; readonly guid: string; readonly data: Uint8Array }[] {
  return table.length === 0
    ? []
    : decodeCertificateTable(table).flatMap(({ guid, data }) => {
        const name = CERT_GUIDS[guid];
        return name === undefined ? [] : [{ name, guid, data }];
      });
}

const tcbText = (word: bigint, product: ProductLine): string => formatTcb(decodeTcb(word, product), product);

function document(
  host: Host,
  options: Options,
  plan: LaunchPlan,
  { expectedMeasurement, report, table, crl, verdict }: Attestation,
  steps: readonly TraceEvent[],
): Record<string, unknown> {
  const { chip } = host;
  const tcb = (word: bigint | undefined): string | null =>
    word === undefined ? null : tcbText(word, chip.product);
  return {
    chip: {
      product: chip.product,
      chip_id: chip.chipId,
      cpuid: chip.cpuid,
      report_version: chip.reportVersion,
      key: options.key,
    },
    tcb: {
      current: tcb(verdict.report?.current_tcb),
      committed: tcb(verdict.report?.committed_tcb),
      reported: tcb(verdict.report?.reported_tcb),
      launch: tcb(verdict.report?.launch_tcb),
    },
    launch: {
      measurement: expectedMeasurement,
      bios: options.bios,
      vcpus: options.vcpus,
      cpu: options.cpu,
      policy: options.policy,
      pages: plan.pages.length,
      memory_bytes: options.memoryBytes,
    },
    steps,
    request: { sw_exit_info_2: 0n, vmpl: options.vmpl, certs_bytes: table.length },
    report: verdict.report ?? { bytes: report },
    certificates: entriesOf(table).map(({ name, guid, data }) => ({ name, guid, pem: toPem(data) })),
    crl: toPem(crl, CRL_LABEL),
    verdict: {
      ok: verdict.ok,
      findings: verdict.findings,
      steps: verdict.steps.map(({ name, ok, notRun }) => ({ name, ok, not_run: notRun })),
    },
  };
}

function hostLine(host: Host, { bios, vcpus, cpu, key }: Options): string {
  const { product, chipId, reportVersion } = host.chip;
  const reported = formatTcb(host.reportedTcb, product);
  return (
    `host   ${product}, chip ${toHex(chipId.subarray(0, 8))}..., reported TCB ${reported}, report version ${reportVersion}, ${key.toUpperCase()}\n` +
    `guest  ${bios === 'embedded' ? 'embedded image' : bios}, ${vcpus} x ${cpu}\n\n`
  );
}

function stepLine({ n, step, decided }: TraceEvent): string {
  return `  ${n} ${step.padEnd(20)} ${decided}\n`;
}

function verdictText(host: Host, { report, verdict }: Attestation): string {
  const lines: string[] = [''];
  const fields = verdict.report;
  if (fields === null) {
    lines.push(`report  ${report.length} bytes that no version describes`);
  } else {
    const { product } = host.chip;
    lines.push(
      `report  version ${fields.version}, VMPL ${fields.vmpl}, policy 0x${readU64(report, AttestationReportV2.offsetOf('policy')).toString(16)}`,
      `  measurement  ${toHex(fields.measurement)}`,
      `  report_data  ${toHex(fields.report_data)}`,
      `  chip_id      ${toHex(fields.chip_id)}`,
      `  tcb          current ${tcbText(fields.current_tcb, product)}, committed ${tcbText(fields.committed_tcb, product)}, reported ${tcbText(fields.reported_tcb, product)}, launch ${tcbText(fields.launch_tcb, product)}`,
    );
  }
  lines.push('');
  for (const finding of verdict.findings) {
    lines.push(`  ${finding.severity.padEnd(7)} ${finding.code}: ${finding.message}`);
    if (finding.severity === 'error') {
      lines.push(`          ${finding.action}`);
    }
  }
  lines.push(
    verdict.ok
      ? 'VERIFIED under a softsnp test root: genuine softsnp evidence, which proves nothing about hardware.'
      : 'NOT VERIFIED.',
    '',
  );
  return lines.join('\n');
}

/** Where the evidence is and how it is judged once more, as anybody would judge it. */
function filesText(folder: string | null, files: readonly string[] | null): string {
  return folder === null || files === null
    ? ''
    : `written to ${folder}: ${files.map((file) => basename(file)).join(', ')}\n` +
        `  softsnp verify report ${join(folder, 'report.bin')} --certs ${folder} --trust softsnp\n`;
}
