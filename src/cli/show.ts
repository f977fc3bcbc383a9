// SPDX-License-Identifier: Apache-2.0
/** `softsnp show`: what the bytes say, field by field, without a verdict. */
import { defineCommand } from 'citty';
import { reportLayout } from '../abi/attestation-report.ts';
import { ARK_GUID, ASK_GUID, CERT_GUIDS, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { decodeTcb, formatTcb, tcbComponents } from '../abi/tcb-version.ts';
import { certificatesOf } from '../certs/pem.ts';
import { decodeCertificateTable } from '../certs/table.ts';
import { toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { showValue } from '../lib/struct.ts';
import { printable } from '../lib/text.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { VerifyCache } from '../verify/cache.ts';
import { runSync } from '../verify/crypto.ts';
import type { Evidence } from '../verify/evidence.ts';
import { formOf } from '../verify/form.ts';
import { readTableInput } from '../verify/inputs.ts';
import { decodeReport, productOfReport, type Report } from '../verify/report.ts';
import { certificateFiles, certificatesIn, MAX_EVIDENCE_BYTES, reportFile } from './evidence-files.ts';
import { showVerbs } from './idblock.ts';
import { toJson } from './json.ts';
import { fileLabel, fileOption, productOption } from './options.ts';
import { EXIT_OK, EXIT_USAGE, type Output, processOutput, type Verb } from './run.ts';
import { certificateJson, revocationListJson } from './verdict-text.ts';

const JSON_ARG = { json: { type: 'boolean', description: 'Print one JSON object' } } as const;

/** `softsnp show`, writing to `output`. */
export function showVerb(output: Output): Verb {
  // One reading of ID blocks and keys: that of `softsnp idblock show`.
  const idblock = showVerbs(output);
  return defineCommand({
    meta: { name: 'show', description: 'Show a report, certificates, a table, a key or an ID block' },
    subCommands: {
      report: reportVerb(output),
      certs: certsVerb(output),
      table: tableVerb(output),
      key: idblock.key,
      'id-block': idblock.block,
    },
  });
}

export const showCommand: Verb = showVerb(processOutput);

function reportVerb(output: Output): Verb {
  return defineCommand({
    meta: { name: 'report', description: 'Show every field of a report' },
    args: {
      file: {
        type: 'positional',
        required: true,
        valueHint: 'FILE',
        description: 'Report in any form `softsnp verify report` reads; "-" is standard input',
      },
      product: {
        type: 'string',
        valueHint: 'milan|genoa|turin',
        description: 'Product line of a version 2 report, to read its TCBs by',
      },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const { report: bytes, forms } = reportFile(args.file);
      const { report, findings } = decodeReport(bytes);
      if (report === null) {
        throw new InputError('REPORT_INPUT_INVALID', `${findings[0]!.message} (${findings[0]!.actual})`, {
          where: fileLabel(args.file),
        });
      }
      const own = productOfReport(report);
      const product = args.product === undefined ? own : productOption('product', args.product);
      const tcbs = product === null ? {} : tcbTexts(report, product);
      if (args.json === true) {
        const document = { read_as: forms, product, report, tcbs, findings };
        output.stdout(toJson(document));
        return EXIT_OK;
      }
      if (forms.length > 0) {
        output.stdout(`read as  ${forms.join(', ')}\n`);
      }
      const fields = Object.entries(reportLayout(report.version)!.fields);
      for (const [name, [offset]] of fields.sort(([, [a]], [, [b]]) => a - b)) {
        const value = showValue(report[name as keyof Report]);
        const note = name in tcbs ? `  (${tcbs[name]})` : '';
        output.stdout(`0x${offset.toString(16).padStart(3, '0')}  ${name.padEnd(18)}  ${value}${note}\n`);
      }
      for (const { code, where, message } of findings) {
        output.stdout(`! ${code} at ${where}: ${message}\n`);
      }
      return EXIT_OK;
    },
  });
}

const TCB_FIELDS = ['current_tcb', 'reported_tcb', 'committed_tcb', 'launch_tcb'] as const;

function tcbTexts(
  report: Report,
  product: NonNullable<ReturnType<typeof productOfReport>>,
): Record<string, string> {
  const names = tcbComponents(product).join(',');
  return Object.fromEntries(
    TCB_FIELDS.map((field) => [field, `${names} = ${formatTcb(decodeTcb(report[field], product), product)}`]),
  );
}

function certsVerb(output: Output): Verb {
  return defineCommand({
    meta: { name: 'certs', description: 'Show certificates: names, validity, TCB, chip' },
    args: {
      path: {
        type: 'positional',
        required: true,
        valueHint: 'PATH',
        description: 'File (PEM, DER, table) or folder; "-" is standard input',
      },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const { certificates: given } = certificatesIn(certificateFiles('PATH', args.path));
      const certificates = certificateRows(given);
      const crls = listRows(given);
      const rows = [...certificates, ...crls];
      // One that is unreadable among others is told; a file with nothing else is not what was asked for.
      const code = rows.every((row) => 'malformed' in row) ? EXIT_USAGE : EXIT_OK;
      if (args.json === true) {
        output.stdout(toJson({ certificates, crls }));
        return code;
      }
      if (rows.length === 0) {
        throw new InputError('OPTION_INVALID', 'holds no certificates and no revocation lists', {
          where: fileLabel(args.path),
          action: 'Name a file or folder with certificates or lists: DER, PEM or a certificate table.',
        });
      }
      for (const row of rows) {
        for (const [name, value] of Object.entries(row)) {
          output.stdout(`${name.padEnd(13)}  ${printable(showValue(value))}\n`);
        }
        output.stdout('\n');
      }
      return code;
    },
  });
}

interface Row {
  readonly file: string;
  readonly [field: string]: unknown;
}

function certificateRows({
  table,
  certificates = [],
  labels = {},
}: Omit<Evidence, 'report'>): readonly Row[] {
  const cache = new VerifyCache();
  const crypto = nodeVerifyCrypto();
  const fromTable = table === undefined ? [] : tableCertificates(table, labels.table!);
  const loose = certificates.map((der, i) => ({ file: labels.certificates![i]!, der }));
  return [...fromTable, ...loose].map(({ file: name, der }) => {
    const file = printable(name);
    const known = runSync(crypto, cache.certificate(der));
    return 'malformed' in known
      ? { file, malformed: known.malformed, is: formOf(der).is, sha256: known.fingerprint }
      : { file, ...certificateJson(known) };
  });
}

function listRows({ table, crls = [], labels = {} }: Omit<Evidence, 'report'>): readonly Row[] {
  const fromTable =
    table === undefined ? [] : decodeCertificateTable(table).filter(({ guid }) => guid === CRL_GUID);
  return [
    ...fromTable.map(({ data }) => ({ file: `${labels.table}.CRL`, der: data })),
    ...crls.map((der, i) => ({ file: labels.crls![i]!, der })),
  ].map(({ file: name, der }) => {
    const file = printable(name);
    const known = runSync(nodeVerifyCrypto(), new VerifyCache().revocationList(der));
    return 'malformed' in known
      ? { file, malformed: known.malformed, sha256: known.fingerprint }
      : { file, ...revocationListJson(known) };
  });
}

const CERTIFICATE_GUIDS: readonly string[] = [VCEK_GUID, VLEK_GUID, ASK_GUID, ARK_GUID];

const tableCertificates = (
  table: Uint8Array,
  name: string,
): readonly { readonly file: string; readonly der: Uint8Array }[] =>
  decodeCertificateTable(table)
    .filter(({ guid }) => CERTIFICATE_GUIDS.includes(guid))
    .flatMap(({ guid, data }) =>
      certificatesOf(data).map((der) => ({ file: `${name}.${CERT_GUIDS[guid]}`, der })),
    );

function tableVerb(output: Output): Verb {
  return defineCommand({
    meta: { name: 'table', description: 'Show the entries of a certificate table (auxblob)' },
    args: {
      file: {
        type: 'positional',
        required: true,
        valueHint: 'FILE',
        description: 'Certificate table; "-" is standard input',
      },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const table = readTableInput(fileOption('FILE', args.file, MAX_EVIDENCE_BYTES));
      const entries = decodeCertificateTable(table).map(({ guid, offset, length, data }) => ({
        guid,
        kind: CERT_GUIDS[guid] ?? 'unknown',
        offset,
        length,
        starts: toHex(data.subarray(0, 8)),
      }));
      if (args.json === true) {
        output.stdout(toJson({ size: table.length, entries }));
        return EXIT_OK;
      }
      for (const { guid, kind, offset, length } of entries) {
        output.stdout(`${guid}  ${kind.padEnd(19)}  ${length} bytes at ${offset}\n`);
      }
      return EXIT_OK;
    },
  });
}
