// SPDX-License-Identifier: Apache-2.0
/** `softsnp verify`: is the evidence genuine, is it what was wanted, and if not, why not? */
import { defineCommand } from 'citty';
import { KdsClient, type KdsTiming } from '../kds/client.ts';
import type { Clock } from '../lib/clock.ts';
import { InputError } from '../lib/errors.ts';
import { printable } from '../lib/text.ts';
import { systemClock } from '../os/system-clock.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { VerifyCache } from '../verify/cache.ts';
import { verifyCertificates } from '../verify/certificates.ts';
import type { VerifyCrypto } from '../verify/crypto.ts';
import type { Evidence } from '../verify/evidence.ts';
import { fetchEvidence } from '../verify/fetch.ts';
import { kdsJudge } from '../verify/kds-judge.ts';
import { DEFAULT_POLICY, type Policy, parsePolicyText } from '../verify/policy.ts';
import { exitCodeOf, type VerifyOptions, verifyEvidence } from '../verify/verify.ts';
import { explain, explainCertificates } from '../verify/why.ts';
import {
  certificateFiles,
  certificatesIn,
  crlFiles,
  type Gathered,
  MAX_CERTIFICATES,
  MAX_FILE_BYTES,
  merged,
  NOTHING,
  reportFile,
  tableFile,
  trustedRoots,
} from './evidence-files.ts';
import { toJson } from './json.ts';
import { CLIENT_ARGS, cacheOption, deadlineOption } from './kds-client-options.ts';
import { fileOption, productOption } from './options.ts';
import { type Output, processOutput, type Verb } from './run.ts';
import { chainsJson, chainsText, verdictJson, verdictText } from './verdict-text.ts';

const COMMON_ARGS = {
  at: { type: 'string', valueHint: 'TIME', description: 'Time of verification, ISO 8601; now if left out' },
  crl: {
    type: 'string',
    valueHint: 'PATH',
    description: 'Revocation list of the root, DER or PEM, or a folder with lists',
  },
  'no-crl': {
    type: 'boolean',
    description: 'Accept without a revocation list; the verdict says so, and a list at hand still counts',
  },
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
      'Report: binary, hex, base64, configfs-tsm JSON or folder, firmware response, Azure HCL report; "-" is standard input, here and for every other file',
  },
  certs: {
    type: 'string',
    valueHint: 'PATH',
    description: 'Certificates: a file (PEM, DER, table) or a folder',
  },
  table: {
    type: 'string',
    valueHint: 'FILE',
    description: 'Certificate table (auxblob), instead of one beside the report',
  },
  kds: { type: 'string', valueHint: 'URL', description: 'Fetch what is missing from this key service' },
  offline: { type: 'boolean', description: 'Fetch nothing; the default' },
  policy: { type: 'string', valueHint: 'FILE', description: 'Policy, JSON: docs/reference/policy.md' },
  product: {
    type: 'string',
    valueHint: 'milan|genoa|turin',
    description: 'Product line, where a version 2 report does not tell',
  },
  ...CLIENT_ARGS,
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
      const common = commonOptions(args);
      const atMs = timeOf(args, environment.clock);
      const policy = policyOption(args.policy);
      const given = reportFile(args.file);
      const gathered = [
        args.table === undefined ? NOTHING : tableFile(args.table),
        given.gathered,
        args.certs === undefined ? NOTHING : certificateFiles('certs', args.certs),
        listsOption(args.crl),
      ].reduce(merged, NOTHING);
      const options = {
        ...common,
        ...(product === null ? {} : { product }),
        policy,
        crypto: nodeVerifyCrypto(),
        cache: new VerifyCache(),
      };
      const { certificates, notes } = certificatesIn(gathered);
      let evidence: Evidence = { ...certificates, report: given.report, ...given.beside };
      let result = verifyEvidence(evidence, { ...options, atMs: atMs() });
      let failures: readonly string[] = [];
      if (args.kds !== undefined && !result.ok) {
        const client = kdsClient(args.kds, args, options, { output, environment, atMs });
        ({ evidence, failures } = await fetchEvidence(client, evidence, result, options));
        // The service issued certificates meanwhile: they are valid from now on, not from the start.
        result = verifyEvidence(evidence, { ...options, atMs: atMs() });
      }
      const why = result.ok ? [] : explain(withPassedOver(evidence, gathered), result, options.crypto);
      for (const note of [...notes, ...failures.map((failure) => `not fetched: ${failure}`)]) {
        output.stderr(`softsnp: ${printable(note)}\n`);
      }
      output.stdout(
        args.json === true
          ? toJson({ read_as: given.forms, ...verdictJson(result, why) })
          : verdictText(result, why, given.forms),
      );
      return exitCodeOf(result);
    },
  });
}

interface Surroundings {
  readonly output: Output;
  readonly environment: VerifyEnvironment;
  readonly atMs: () => number;
}

/** A client that believes what the verifier believes, at the time it verifies for. */
function kdsClient(
  base: string,
  args: { readonly cache?: string | undefined; readonly deadline?: string | undefined },
  { trust = 'amd', crypto }: CommonOptions & { readonly crypto: VerifyCrypto },
  { output, environment: { clock, kdsTiming }, atMs }: Surroundings,
): KdsClient {
  const judged: Clock = { nowMs: atMs, monotonicMs: () => clock.monotonicMs() };
  return new KdsClient({
    base,
    judge: kdsJudge({ crypto, clock: judged, trust }),
    clock,
    cache: cacheOption(args.cache, output),
    timing: { deadlineMs: deadlineOption(args.deadline), ...kdsTiming },
  });
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
        description: 'Folder, PEM, DER or table; "-" is standard input',
      },
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const gathered = merged(certificateFiles('PATH', args.path), listsOption(args.crl));
      const { certificates, notes } = certificatesIn(gathered);
      const result = verifyCertificates(certificates, {
        ...commonOptions(args),
        atMs: timeOf(args, clock)(),
        crypto: nodeVerifyCrypto(),
      });
      const why = result.ok ? [] : explainCertificates(withPassedOver(certificates, gathered), result);
      for (const note of notes) {
        output.stderr(`softsnp: ${printable(note)}\n`);
      }
      output.stdout(args.json === true ? toJson(chainsJson(result, why)) : chainsText(result, why));
      return exitCodeOf(result);
    },
  });
}

const listsOption = (crl: string | boolean | undefined): Gathered =>
  typeof crl === 'string' ? { ...NOTHING, crls: crlFiles(crl) } : NOTHING;

/** For causes alone: a file that was passed over may be the certificate that is missing, damaged. */
function withPassedOver<E extends Omit<Evidence, 'report'>>(evidence: E, { passedOver }: Gathered): E {
  const labels = {
    ...evidence.labels,
    certificates: [...(evidence.labels?.certificates ?? []), ...passedOver.map(({ name }) => name)],
  };
  const certificates = [...(evidence.certificates ?? []), ...passedOver.map(({ bytes }) => bytes)];
  return { ...evidence, certificates, labels };
}

interface CommonArgs {
  readonly at?: string | undefined;
  // citty turns --no-crl into crl: false, whatever the type of --crl.
  readonly crl?: string | boolean | undefined;
  readonly trust?: string | undefined;
}

type CommonOptions = Pick<VerifyOptions, 'crl' | 'maxCertificates' | 'trust'>;

function commonOptions(args: CommonArgs): CommonOptions {
  return {
    // Never 'skip': what a list at hand revokes is revoked, whether or not one was asked for.
    crl: args.crl === false ? 'if-present' : 'require',
    maxCertificates: MAX_CERTIFICATES,
    ...(args.trust === undefined ? {} : { trust: trustedRoots(args.trust) }),
  };
}

/** The time of verification: the one of --at, or the clock's whenever it is asked for. */
function timeOf(args: CommonArgs, clock: Clock): () => number {
  if (args.at === undefined) {
    return () => clock.nowMs();
  }
  const atMs = timeOption(args.at);
  return () => atMs;
}

function timeOption(text: string): number {
  const [, day] = /^(\d{4}-\d{2}-\d{2})(T[\d:.]+(Z|[+-]\d{2}:?\d{2}))?$/.exec(text) ?? [];
  const ms = day === undefined ? Number.NaN : Date.parse(text);
  // Date.parse takes the 30th of February for the 1st of March.
  const isDay = !Number.isNaN(ms) && new Date(`${day}T00:00:00Z`).toISOString().startsWith(day!);
  if (!isDay) {
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
  return parsePolicyText(new TextDecoder().decode(fileOption('policy', path, MAX_FILE_BYTES)), path);
}
