// SPDX-License-Identifier: Apache-2.0
/** `softsnp verify`: is the evidence genuine, is it what was wanted, and if not, why not? */
import { defineCommand } from 'citty';
import { KdsClient, type KdsTiming } from '../kds/client.ts';
import type { Clock } from '../lib/clock.ts';
import { InputError } from '../lib/errors.ts';
import { systemClock } from '../os/system-clock.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { verifyCertificates } from '../verify/certificates.ts';
import type { VerifyCrypto } from '../verify/crypto.ts';
import type { Evidence } from '../verify/evidence.ts';
import { DEFAULT_POLICY, type Policy, parsePolicy } from '../verify/policy.ts';
import { exitCodeOf, type VerifyOptions, verifyEvidence } from '../verify/verify.ts';
import { explain } from '../verify/why.ts';
import { fetchEvidence } from './evidence-fetch.ts';
import {
  certificateFiles,
  crlFile,
  type Gathered,
  MAX_EVIDENCE_BYTES,
  MAX_FILE_BYTES,
  merged,
  NOTHING,
  reportFile,
  trustedRoots,
} from './evidence-files.ts';
import { toJson } from './json.ts';
import { kdsJudge } from './kds-judge.ts';
import { fileOption, productOption } from './options.ts';
import { type Output, processOutput, type Verb } from './run.ts';
import { chainsJson, chainsText, verdictJson, verdictText } from './verdict-text.ts';

const COMMON_ARGS = {
  at: { type: 'string', valueHint: 'TIME', description: 'Time of verification, ISO 8601; now if left out' },
  crl: { type: 'string', valueHint: 'FILE', description: 'Revocation list of the root, DER or PEM' },
  'no-crl': { type: 'boolean', description: 'Accept without a revocation list; the verdict says so' },
  trust: {
    type: 'string',
    valueHint: 'ROOT',
    description:
      'Trust this root instead of AMD’s: softsnp (the test roots), softsnp:STATE, or a PEM or DER file',
  },
  json: { type: 'boolean', description: 'Print one JSON object' },
} as const;

const REPORT_ARGS = {
  file: {
    type: 'positional',
    required: true,
    valueHint: 'FILE',
    description:
      'Report: binary, hex, base64, configfs-tsm JSON or folder, firmware response, Azure HCL report',
  },
  certs: {
    type: 'string',
    valueHint: 'PATH',
    description: 'Certificates: a file (PEM, DER, table) or a folder',
  },
  table: { type: 'string', valueHint: 'FILE', description: 'Certificate table (auxblob)' },
  kds: { type: 'string', valueHint: 'URL', description: 'Fetch what is missing from this key service' },
  offline: { type: 'boolean', description: 'Fetch nothing; the default' },
  policy: { type: 'string', valueHint: 'FILE', description: 'Policy, JSON: docs/reference/policy.md' },
  product: {
    type: 'string',
    valueHint: 'milan|genoa|turin',
    description: 'Product line, where a version 2 report does not tell',
  },
  ...COMMON_ARGS,
} as const;

/** What the verb takes from outside; tests hand in their own. */
export interface VerifyEnvironment {
  readonly clock: Clock;
  readonly kdsTiming: Partial<KdsTiming>;
}

/** `softsnp verify`, writing to `output`. */
export function verifyVerb(output: Output, environment: VerifyEnvironment): Verb {
  return defineCommand({
    meta: { name: 'verify', description: 'Verify attestation evidence and say why not' },
    subCommands: { report: reportVerb(output, environment), certs: certsVerb(output, environment) },
  });
}

export const verifyCommand: Verb = verifyVerb(processOutput, { clock: systemClock, kdsTiming: {} });

function reportVerb(output: Output, environment: VerifyEnvironment): Verb {
  return defineCommand({
    meta: {
      name: 'report',
      description:
        'Verify a report. Exit code 0 accepted, 1 usage, 2 signature or chain, 3 certificates not had, 4 revoked or no revocation list, 5 policy',
    },
    args: REPORT_ARGS,
    run: async ({ args }) => {
      if (args.kds !== undefined && args.offline === true) {
        throw new InputError('OPTION_INVALID', 'contradicts --offline', { where: '--kds' });
      }
      const product = args.product === undefined ? null : productOption('product', args.product);
      const common = commonOptions(args, environment.clock);
      const policy = policyOption(args.policy);
      const given = reportFile(args.file);
      const local = [
        given.gathered,
        args.table === undefined
          ? NOTHING
          : { ...NOTHING, table: fileOption('table', args.table, MAX_EVIDENCE_BYTES) },
        args.certs === undefined ? NOTHING : certificateFiles('certs', args.certs),
      ].reduce(merged, NOTHING);
      const crypto = nodeVerifyCrypto();
      const fetched =
        args.kds === undefined
          ? { ...NOTHING, failures: [] }
          : await fetchEvidence(kdsClient(args.kds, common, crypto, environment), given.report, product);
      const evidence = evidenceOf(given.report, merged(local, fetched), args.crl);
      const told = product === null ? {} : { product };
      const result = verifyEvidence(evidence, { ...common, ...told, policy, crypto });
      const why = result.ok ? [] : explain(evidence, result, crypto);
      for (const failure of fetched.failures) {
        output.stderr(`softsnp: not fetched: ${failure}\n`);
      }
      output.stdout(
        args.json === true
          ? toJson({ read_as: given.forms, ...verdictJson(result, why) })
          : verdictText(result, why),
      );
      return exitCodeOf(result);
    },
  });
}

/** A client that believes what the verifier believes, at the time it verifies for. */
function kdsClient(
  base: string,
  common: CommonOptions,
  crypto: VerifyCrypto,
  { clock, kdsTiming }: VerifyEnvironment,
): KdsClient {
  const at: Clock = { nowMs: () => common.atMs, monotonicMs: () => clock.monotonicMs() };
  const judge = kdsJudge({ crypto, clock: at, trust: common.trust ?? 'amd' });
  return new KdsClient({ base, judge, clock: at, timing: kdsTiming });
}

function certsVerb(output: Output, { clock }: VerifyEnvironment): Verb {
  return defineCommand({
    meta: {
      name: 'certs',
      description:
        'Verify the chains of the certificates in a folder, file or table. Exit codes as of verify report',
    },
    args: {
      path: {
        type: 'positional',
        required: true,
        valueHint: 'PATH',
        description: 'Folder, PEM, DER or table',
      },
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const { report: _none, ...certificates } = evidenceOf(
        new Uint8Array(0),
        certificateFiles('PATH', args.path),
        args.crl,
      );
      const result = verifyCertificates(certificates, {
        ...commonOptions(args, clock),
        crypto: nodeVerifyCrypto(),
      });
      output.stdout(args.json === true ? toJson(chainsJson(result)) : chainsText(result));
      return exitCodeOf(result);
    },
  });
}

function evidenceOf(report: Uint8Array, gathered: Gathered, crl: string | boolean | undefined): Evidence {
  const crls = [...gathered.crls, ...(typeof crl === 'string' ? crlFile(crl) : [])];
  return {
    report,
    certificates: gathered.certificates,
    crls,
    ...(gathered.table === null ? {} : { table: gathered.table }),
  };
}

interface CommonArgs {
  readonly at?: string | undefined;
  // citty turns --no-crl into crl: false, whatever the type of --crl.
  readonly crl?: string | boolean | undefined;
  readonly trust?: string | undefined;
}

type CommonOptions = Pick<VerifyOptions, 'atMs' | 'crl' | 'trust'>;

function commonOptions(args: CommonArgs, clock: Clock): CommonOptions {
  return {
    atMs: args.at === undefined ? clock.nowMs() : timeOption(args.at),
    crl: args.crl === false ? 'skip' : 'require',
    ...(args.trust === undefined ? {} : { trust: trustedRoots(args.trust) }),
  };
}

function timeOption(text: string): number {
  const ms = /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:?\d{2}))?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) {
    throw new InputError(
      'OPTION_INVALID',
      `${JSON.stringify(text)} is not a time such as 2026-01-31T12:00:00Z`,
      {
        where: '--at',
      },
    );
  }
  return ms;
}

function policyOption(path: string | undefined): Policy {
  if (path === undefined) {
    return DEFAULT_POLICY;
  }
  const text = new TextDecoder().decode(fileOption('policy', path, MAX_FILE_BYTES));
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new InputError('POLICY_INVALID', 'not JSON', { where: path, cause: error });
  }
  return parsePolicy(document);
}
