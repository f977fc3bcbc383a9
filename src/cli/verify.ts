// SPDX-License-Identifier: Apache-2.0
/** `softsnp verify`: is the evidence genuine, is it what was wanted, and if not, why not? */
import { defineCommand } from 'citty';
import type { ProductLine } from '../abi/product.ts';
import { InputError } from '../lib/errors.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { verifyCertificates } from '../verify/certificates.ts';
import type { Evidence } from '../verify/evidence.ts';
import { DEFAULT_POLICY, type Policy, parsePolicy } from '../verify/policy.ts';
import { exitCodeOf, type VerifyOptions, verifyEvidence } from '../verify/verify.ts';
import { explain } from '../verify/why.ts';
import {
  certificateFiles,
  crlFile,
  type Fetched,
  fetchEvidence,
  type Gathered,
  MAX_FILE_BYTES,
  merged,
  NOTHING,
  reportFile,
  trustedRoots,
} from './evidence-files.ts';
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
    description: 'Trust this root instead of AMD’s: softsnp (the test roots), or a PEM or DER file',
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

/** `softsnp verify`, writing to `output`, at `nowMs` unless told otherwise. */
export function verifyVerb(output: Output, nowMs: () => number): Verb {
  return defineCommand({
    meta: { name: 'verify', description: 'Verify attestation evidence and say why not' },
    subCommands: { report: reportVerb(output, nowMs), certs: certsVerb(output, nowMs) },
  });
}

export const verifyCommand: Verb = verifyVerb(processOutput, () => Date.now());

function reportVerb(output: Output, nowMs: () => number): Verb {
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
      const given = reportFile(args.file);
      const local = [
        given.gathered,
        args.table === undefined
          ? NOTHING
          : { ...NOTHING, table: fileOption('table', args.table, MAX_FILE_BYTES) },
        args.certs === undefined ? NOTHING : certificateFiles('certs', args.certs),
      ].reduce(merged, NOTHING);
      const fetched = await fetchedFor(args.kds, given.report, product);
      const gathered = merged(local, fetched);
      const evidence = evidenceOf(given.report, gathered, args.crl);
      const options = {
        ...commonOptions(args, nowMs),
        policy: policyOption(args.policy),
        ...(product === null ? {} : { product }),
      };
      const crypto = nodeVerifyCrypto();
      const result = verifyEvidence(evidence, { ...options, crypto });
      const why = result.ok ? [] : explain(evidence, result, crypto);
      for (const { url, why: reason } of fetched.failures) {
        output.stderr(`softsnp: not fetched: ${url}: ${reason}\n`);
      }
      if (args.json === true) {
        output.stdout(`${JSON.stringify({ read_as: given.forms, ...verdictJson(result, why) }, null, 2)}\n`);
      } else {
        output.stdout(verdictText(result, why));
      }
      return exitCodeOf(result);
    },
  });
}

function certsVerb(output: Output, nowMs: () => number): Verb {
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
        ...commonOptions(args, nowMs),
        crypto: nodeVerifyCrypto(),
      });
      output.stdout(
        args.json === true ? `${JSON.stringify(chainsJson(result), null, 2)}\n` : chainsText(result),
      );
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

function commonOptions(args: CommonArgs, nowMs: () => number): Pick<VerifyOptions, 'atMs' | 'crl' | 'trust'> {
  return {
    atMs: args.at === undefined ? nowMs() : timeOption(args.at),
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

async function fetchedFor(
  url: string | undefined,
  report: Uint8Array,
  product: ProductLine | null,
): Promise<Fetched> {
  return url === undefined ? { ...NOTHING, failures: [] } : fetchEvidence(url, report, product);
}
