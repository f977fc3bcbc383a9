// SPDX-License-Identifier: Apache-2.0
/** softsnp attest: one guest, one report with certificates, one verdict. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { AttestationReportV2, type ReportVersion } from '../abi/attestation-report.ts';
import { CERT_GUIDS } from '../abi/cert-table.ts';
import { errnoName } from '../abi/errno.ts';
import { GUEST_POLICY_DEFAULT } from '../abi/guest-policy.ts';
import { IdAuth, IdBlock, SevPublicKey } from '../abi/id-block.ts';
import type { ProductLine } from '../abi/product.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { decodeTcb, formatTcb, parseTcbText, type TcbParts } from '../abi/tcb-version.ts';
import { decodeCertificateTable, toPem } from '../certs/index.ts';
import type { ChipConfig } from '../firmware/chip.ts';
import {
  cpuSigOf,
  defaultImage,
  kernelHashes,
  type LaunchPlan,
  parseOvmf,
  planLaunch,
  VCPU_TYPES,
} from '../launch/index.ts';
import type { Vmpl } from '../lib/addresses.ts';
import { fromHex, isZero, readU64, toHex, utf8 } from '../lib/bytes.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import type { TraceEvent } from '../lib/trace.ts';
import { type Attestation, attest, certificateBlob, Host, type Refusal } from '../machine/index.ts';
import { BlobFile, replaceBlob } from '../os/blob-file.ts';
import { errnoCode } from '../os/errno.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { BLOB_FILE, type OpenHostState, openHostState } from './host-state.ts';
import { toJson } from './json.ts';
import {
  choiceOption,
  fileOption,
  hexOption,
  integerOption,
  productOption,
  sizeOption,
  wordOption,
} from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';

const EXIT_NOT_VERIFIED = 2;
const EXIT_REFUSED = 3;

const BIOS_LIMIT_BYTES = 64 * 2 ** 20;
const BOOT_FILE_LIMIT_BYTES = 2 ** 31;
const GUEST_NAME = 'guest';

const ARGS = {
  bios: {
    type: 'string',
    valueHint: 'FILE',
    description: 'OVMF image with SEV metadata (an embedded image if left out)',
  },
  kernel: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Kernel whose hash goes into the measured hash table',
  },
  initrd: { type: 'string', valueHint: 'FILE', description: 'Initial RAM disk, with --kernel' },
  append: { type: 'string', valueHint: 'TEXT', description: 'Kernel command line, with --kernel' },
  smp: { type: 'string', valueHint: 'N', description: 'vCPUs', default: '1' },
  cpu: {
    type: 'string',
    valueHint: 'TYPE',
    description: `CPU type: ${Object.keys(VCPU_TYPES).join(', ')}`,
    default: 'EPYC-Milan-v2',
  },
  mem: { type: 'string', valueHint: 'SIZE', description: 'Guest memory', default: '4G' },
  policy: {
    type: 'string',
    valueHint: 'WORD',
    description: 'Guest policy',
    default: `0x${GUEST_POLICY_DEFAULT.toString(16)}`,
  },
  chip: {
    type: 'string',
    valueHint: 'milan|genoa|turin',
    description: 'Product line of the chip (that of the state folder; milan for a new one)',
  },
  'chip-id': {
    type: 'string',
    valueHint: 'HEX',
    description: 'CHIP_ID of a new chip (derived from its secret if left out)',
  },
  tcb: {
    type: 'string',
    valueHint: 'BL,TEE,SNP,UCODE',
    description: 'TCB of the running firmware; on Turin FMC comes first',
  },
  'report-version': {
    type: 'string',
    valueHint: '2|3|4|5',
    description: 'Version of the report the firmware makes',
  },
  key: {
    type: 'string',
    valueHint: 'vcek|vlek',
    description: "Key that signs: the chip's, or a cloud provider's",
    default: 'vcek',
  },
  vmpl: { type: 'string', valueHint: '0-3', description: 'VMPL the request names', default: '0' },
  'report-data': {
    type: 'string',
    valueHint: 'HEX',
    description: 'Up to 64 bytes, filled with zeros (random if left out)',
  },
  'host-data': { type: 'string', valueHint: 'HEX', description: 'Up to 32 bytes, filled with zeros' },
  'id-block': {
    type: 'string',
    valueHint: 'FILE',
    description: 'ID block, binary or base64, with --id-auth',
  },
  'id-auth': {
    type: 'string',
    valueHint: 'FILE',
    description: 'ID authentication information, with --id-block',
  },
  certs: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Certificate blob for the guest (made in the state folder if left out)',
  },
  seed: { type: 'string', valueHint: 'N', description: 'Take all randomness and the time from this number' },
  state: {
    type: 'string',
    valueHint: 'DIR',
    description: 'State folder: secrets, TCB, blob ($XDG_STATE_HOME/softsnp/CHIP if left out)',
  },
  out: {
    type: 'string',
    valueHint: 'DIR',
    description: 'Write report.bin, certs.bin, the certificates and trace.jsonl',
  },
  json: { type: 'boolean', description: 'Print one JSON object' },
  verbose: {
    type: 'boolean',
    description: 'Print what the kernel, the VMM and the guest log, as it happens',
  },
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

interface Options {
  readonly plan: (crypto: MachineCrypto) => LaunchPlan;
  readonly bios: string;
  readonly cpu: string;
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly policy: bigint;
  readonly product: ProductLine | null;
  readonly chipId: string | null;
  readonly tcb: string | null;
  readonly reportVersion: ReportVersion | null;
  readonly key: 'vcek' | 'vlek';
  readonly vmpl: Vmpl;
  readonly reportData: Uint8Array | null;
  readonly hostData: Uint8Array;
  readonly idBlock: {
    readonly block: Uint8Array;
    readonly auth: Uint8Array;
    readonly authorKey: boolean;
  } | null;
  readonly certs: string | null;
  readonly seed: number | null;
  readonly state: string | null;
  readonly out: string | null;
  readonly json: boolean;
  readonly verbose: boolean;
}

function readOptions(args: Args): Options {
  const vcpus = integerOption('smp', args.smp, 1, 4096);
  const cpuSig = cpuSigOf(args.cpu);
  const ovmf = parseOvmf(
    args.bios === undefined ? defaultImage() : fileOption('bios', args.bios, BIOS_LIMIT_BYTES),
  );
  const boot = readBootFiles(args);
  return {
    plan: (crypto) =>
      planLaunch({
        ovmf,
        vcpus,
        cpuSig,
        ...(boot === null ? {} : { kernelHashes: kernelHashes(crypto.sha256, boot) }),
      }),
    bios: args.bios ?? 'embedded',
    cpu: args.cpu,
    vcpus,
    memoryBytes: sizeOption('mem', args.mem),
    policy: wordOption('policy', args.policy),
    product: args.chip === undefined ? null : productOption('chip', args.chip),
    chipId: args['chip-id'] ?? null,
    tcb: args.tcb ?? null,
    reportVersion:
      args['report-version'] === undefined
        ? null
        : (integerOption('report-version', args['report-version'], 2, 5) as ReportVersion),
    key: choiceOption('key', args.key, ['vcek', 'vlek']),
    vmpl: integerOption('vmpl', args.vmpl, 0, 3) as Vmpl,
    reportData: args['report-data'] === undefined ? null : hexOption('report-data', args['report-data'], 64),
    hostData: hexOption('host-data', args['host-data'] ?? '', 32),
    idBlock: readIdBlockFiles(args),
    certs: args.certs ?? null,
    seed: args.seed === undefined ? null : integerOption('seed', args.seed, 0, Number.MAX_SAFE_INTEGER),
    state: args.state ?? null,
    out: args.out ?? null,
    json: args.json === true,
    verbose: args.verbose === true,
  };
}

function readBootFiles(args: Args) {
  if (args.kernel === undefined) {
    if (args.initrd !== undefined || args.append !== undefined) {
      throw new InputError('OPTION_INVALID', 'needs --kernel', {
        where: args.initrd === undefined ? '--append' : '--initrd',
      });
    }
    return null;
  }
  return {
    kernel: fileOption('kernel', args.kernel, BOOT_FILE_LIMIT_BYTES),
    ...(args.initrd === undefined
      ? {}
      : { initrd: fileOption('initrd', args.initrd, BOOT_FILE_LIMIT_BYTES) }),
    ...(args.append === undefined ? {} : { append: args.append }),
  };
}

function readIdBlockFiles(args: Args): Options['idBlock'] {
  const { 'id-block': blockPath, 'id-auth': authPath } = args;
  if (blockPath === undefined || authPath === undefined) {
    if (blockPath !== authPath) {
      throw new InputError('OPTION_INVALID', '--id-block and --id-auth go together', { where: '--id-block' });
    }
    return null;
  }
  const block = binaryOrBase64('id-block', blockPath, IdBlock.size);
  const auth = binaryOrBase64('id-auth', authPath, IdAuth.size);
  const authorKey = auth.subarray(
    IdAuth.offsetOf('author_key'),
    IdAuth.offsetOf('author_key') + SevPublicKey.size,
  );
  return { block, auth, authorKey: !isZero(authorKey) };
}

function binaryOrBase64(name: string, path: string, size: number): Uint8Array {
  const bytes = fileOption(name, path, 2 * size);
  if (bytes.length === size) {
    return bytes;
  }
  const text = new TextDecoder().decode(bytes).trim();
  const decoded = /^[A-Za-z0-9+/]+=*$/.test(text) ? Uint8Array.from(Buffer.from(text, 'base64')) : bytes;
  if (decoded.length !== size) {
    throw new InputError(
      'OPTION_INVALID',
      `${path} holds ${decoded.length} bytes, not ${size}, also not as base64`,
      {
        where: `--${name}`,
      },
    );
  }
  return decoded;
}

function runAttest(options: Options, output: Output): number {
  const opened = openHostState({
    product: options.product,
    chipId: options.chipId === null ? null : chipIdOption(options.chipId, options.product ?? 'Milan'),
    seed: options.seed,
    stateDir: options.state,
  });
  try {
    return attestOn(opened, options, output);
  } finally {
    opened.close();
  }
}

function chipIdOption(text: string, product: ProductLine): Uint8Array {
  const given = fromHex(text, '--chip-id');
  const wanted = product === 'Turin' ? [8] : [64];
  const id = new Uint8Array(64);
  id.set(given.subarray(0, 64));
  if (!wanted.includes(given.length) && !(given.length === 64 && isZero(id.subarray(8)))) {
    throw new InputError(
      'OPTION_INVALID',
      `${given.length} bytes given; a CHIP_ID of ${product} has ${wanted[0]}`,
      {
        where: '--chip-id',
      },
    );
  }
  return id;
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
    plan,
    memoryBytes: options.memoryBytes,
    policy: options.policy,
    hostData: options.hostData,
    ...(options.idBlock === null ? {} : { idBlock: options.idBlock }),
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
  if (options.out !== null) {
    writeEvidence(options.out, result, steps);
  }
  if (options.json) {
    output.stdout(toJson(document(host, options, plan, result, steps)));
  } else {
    narrate(verdictText(host, result));
  }
  return result.verdict.ok ? EXIT_OK : EXIT_NOT_VERIFIED;
}

function chipOverrides({ tcb, reportVersion }: Options, product: ProductLine): Partial<ChipConfig> {
  const parts: TcbParts | null = tcb === null ? null : parseTcbText(tcb, product);
  return {
    ...(parts === null ? {} : { currentTcb: parts, committedTcb: parts, reportedTcb: parts }),
    ...(reportVersion === null ? {} : { reportVersion }),
  };
}

/** The file the VMM serves: the caller's, or a fresh one in the state folder. */
function blobOf({ directory }: OpenHostState, host: Host, { certs, key }: Options): BlobFile {
  if (certs !== null) {
    return new BlobFile(certs);
  }
  const path = directory.fileOf(BLOB_FILE);
  if (!replaceBlob(path, () => certificateBlob(host.chain(key === 'vcek' ? 'VCEK' : 'VLEK')))) {
    throw new EnvironmentError('STATE_BUSY', 'another program holds a lock on the certificate blob', {
      where: path,
    });
  }
  return new BlobFile(path);
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

function writeEvidence(folder: string, { report, table }: Attestation, steps: readonly TraceEvent[]): void {
  const files: [string, Uint8Array][] = [
    ['report.bin', report],
    ['certs.bin', table],
    ['trace.jsonl', utf8(steps.map((step) => `${JSON.stringify(step)}\n`).join(''))],
    ...certificateFiles(table),
  ];
  try {
    mkdirSync(folder, { recursive: true });
    for (const [name, bytes] of files) {
      writeFileSync(join(folder, name), bytes);
    }
  } catch (error) {
    throw new EnvironmentError('STATE_UNWRITABLE', `cannot write the evidence: ${errnoCode(error)}`, {
      where: `--out ${folder}`,
      cause: error,
    });
  }
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
  { expectedMeasurement, report, table, verdict }: Attestation,
  steps: readonly TraceEvent[],
): unknown {
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
