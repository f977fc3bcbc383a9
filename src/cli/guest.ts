// SPDX-License-Identifier: Apache-2.0
/** `softsnp guest`: reports and keys of this guest through /dev/sev-guest, real or emulated. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { reportLayout } from '../abi/attestation-report.ts';
import { ARK_GUID, ASK_GUID, CERT_GUIDS, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { GuestFieldSelectV2, KeySel, RootKeySelect } from '../abi/guest-message.ts';
import { certificatesOf, toPem } from '../certs/pem.ts';
import { decodeCertificateTable, type LocatedCertificateEntry } from '../certs/table.ts';
import { concat, readU32, toHex, utf8 } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { showValue } from '../lib/struct.ts';
import { type DeviceFile, type OpenDevice, openDevice } from '../os/device-file.ts';
import { errnoCode } from '../os/errno.ts';
import { systemRandom } from '../os/node-crypto.ts';
import { toJson } from './json.ts';
import { choiceOption, hexOption, integerOption, wordOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';
import { getDerivedKey, getExtReport, getReport, type ReportRequest } from './sev-guest-client.ts';

const COMMON_ARGS = {
  device: { type: 'string', valueHint: 'PATH', description: 'Device node', default: '/dev/sev-guest' },
  json: { type: 'boolean', description: 'Print one JSON object' },
} as const satisfies ArgsDef;

const VMPL_ARG = {
  vmpl: {
    type: 'string',
    valueHint: '0-3',
    description: 'Privilege level to ask for; not below that of the kernel',
    default: '0',
  },
} as const satisfies ArgsDef;

const REPORT_ARGS = {
  'report-data': {
    type: 'string',
    valueHint: 'HEX',
    description: 'REPORT_DATA, up to 64 bytes (default zeros)',
  },
  random: { type: 'boolean', description: 'REPORT_DATA of 64 random bytes' },
  key: {
    type: 'string',
    valueHint: 'any|vcek|vlek',
    description: 'Key to sign with; any: the VLEK when one is loaded',
    default: 'any',
  },
  ...VMPL_ARG,
  ...COMMON_ARGS,
} as const satisfies ArgsDef;

const KEYS = {
  any: KeySel.KEY_SEL_DEFAULT,
  vcek: KeySel.KEY_SEL_VCEK,
  vlek: KeySel.KEY_SEL_VLEK,
} as const;

const ROOTS = { vcek: RootKeySelect.VCEK, vmrk: RootKeySelect.VMRK } as const;

/** `softsnp guest`, writing to `output`. */
export function guestVerb(output: Output, open: OpenDevice = openDevice): Verb {
  const using = async <T>(path: string, use: (device: DeviceFile) => Promise<T>): Promise<T> => {
    const device = await open(path, 'read');
    try {
      return await use(device);
    } finally {
      await device.close();
    }
  };

  const report = defineCommand({
    meta: { name: 'report', description: 'Get an attestation report' },
    args: {
      out: { type: 'string', valueHint: 'FILE', description: 'Write the report here' },
      ...REPORT_ARGS,
    },
    run: ({ args }) => {
      const request = reportRequest(args);
      return using(args.device, async (device) => {
        const bytes = await getReport(device, request);
        writeResult(args.out, bytes);
        output.stdout(args.json === true ? toJson(reportDocument(bytes)) : reportText(bytes));
        return EXIT_OK;
      });
    },
  });

  const extReport = defineCommand({
    meta: { name: 'ext-report', description: 'Get an attestation report and the host’s certificates for it' },
    args: {
      out: { type: 'string', valueHint: 'FILE', description: 'Write the report here' },
      certs: { type: 'string', valueHint: 'FILE', description: 'Write the certificate table here' },
      ...REPORT_ARGS,
    },
    run: ({ args }) => {
      const request = reportRequest(args);
      return using(args.device, async (device) => {
        const { report: bytes, table } = await getExtReport(device, request);
        writeResult(args.out, bytes);
        writeResult(args.certs, table);
        const rows = entriesOf(table).map(rowOf);
        const document = { ...reportDocument(bytes), certificates: rows };
        output.stdout(args.json === true ? toJson(document) : `${reportText(bytes)}\n${rowsText(rows)}`);
        return EXIT_OK;
      });
    },
  });

  const key = defineCommand({
    meta: { name: 'key', description: 'Derive a key that only guests like this one get: 32 bytes' },
    args: {
      root: {
        type: 'string',
        valueHint: 'vcek|vmrk',
        description: 'What it is derived from',
        default: 'vcek',
      },
      fields: {
        type: 'string',
        valueHint: 'NAMES',
        description: `What of the guest is mixed in: ${Object.keys(GuestFieldSelectV2.bits).join(',')}`,
        default: '',
      },
      'guest-svn': { type: 'string', valueHint: 'N', description: 'For guest_svn', default: '0' },
      tcb: { type: 'string', valueHint: 'WORD', description: 'TCB_VERSION, for tcb_version', default: '0' },
      'launch-mit-vector': {
        type: 'string',
        valueHint: 'WORD',
        description:
          'For launch_mit_vector: asks in message version 2, which needs firmware of ABI 1.58 and a driver that passes on 40 bytes',
      },
      out: { type: 'string', valueHint: 'FILE', description: 'Write the key here, for the owner alone' },
      ...VMPL_ARG,
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const fieldsWord = fieldsOption('fields', args.fields);
      const fields = GuestFieldSelectV2.fromWord(fieldsWord);
      const request = {
        root_key_select: ROOTS[choiceOption('root', args.root, ['vcek', 'vmrk'])],
        guest_field_select: fieldsWord,
        vmpl: integerOption('vmpl', args.vmpl, 0, 3),
        guest_svn: integerOption('guest-svn', args['guest-svn'], 0, 0xffff_ffff),
        tcb_version: wordOption('tcb', args.tcb),
        ...(args['launch-mit-vector'] === undefined
          ? {}
          : { launch_mit_vector: wordOption('launch-mit-vector', args['launch-mit-vector']) }),
      };
      if (fields.launch_mit_vector === 1 && args['launch-mit-vector'] === undefined) {
        throw new InputError('OPTION_INVALID', 'give the vector to mix in, too', {
          where: '--fields launch_mit_vector without --launch-mit-vector',
        });
      }
      return using(args.device, async (device) => {
        const derived = await getDerivedKey(device, request);
        writeResult(args.out, derived, 0o600);
        if (args.json === true) {
          output.stdout(toJson({ derived_key: derived }));
        } else if (args.out === undefined) {
          output.stdout(`${toHex(derived)}\n`);
        }
        return EXIT_OK;
      });
    },
  });

  const certificates = defineCommand({
    meta: { name: 'certificates', description: 'Get the host’s certificates' },
    args: {
      out: {
        type: 'string',
        valueHint: 'DIR',
        description: 'Write them here: ark.pem, ask.pem, vcek.pem ...',
      },
      format: { type: 'string', valueHint: 'pem|der', description: 'Encoding of the files', default: 'pem' },
      ...VMPL_ARG,
      ...COMMON_ARGS,
    },
    run: ({ args }) => {
      const format = choiceOption('format', args.format, ['pem', 'der']);
      const request = {
        reportData: new Uint8Array(64),
        vmpl: integerOption('vmpl', args.vmpl, 0, 3),
        keySel: KEYS.any,
      };
      return using(args.device, async (device) => {
        const { table } = await getExtReport(device, request);
        const entries = entriesOf(table);
        if (args.out !== undefined) {
          for (const entry of entries) {
            const { name, bytes } = certificateFile(entry, entries, format);
            writeResult(join(args.out, name), bytes);
          }
        }
        const rows = entries.map(rowOf);
        output.stdout(args.json === true ? toJson({ certificates: rows }) : rowsText(rows));
        return EXIT_OK;
      });
    },
  });

  return defineCommand({
    meta: { name: 'guest', description: 'Ask for reports and keys of this guest through /dev/sev-guest' },
    subCommands: { report, 'ext-report': extReport, key, certificates },
  });
}

export const guestCommand: Verb = guestVerb(processOutput);

function reportRequest(args: ParsedArgs<typeof REPORT_ARGS>): ReportRequest {
  if (args.random === true && args['report-data'] !== undefined) {
    throw new InputError('OPTION_INVALID', 'give --random or --report-data, not both', {
      where: '--report-data',
    });
  }
  return {
    reportData:
      args.random === true ? systemRandom.bytes(64) : hexOption('report-data', args['report-data'] ?? '', 64),
    vmpl: integerOption('vmpl', args.vmpl, 0, 3),
    keySel: KEYS[choiceOption('key', args.key, ['any', 'vcek', 'vlek'])],
  };
}

/** Names of GUEST_FIELD_SELECT bits, separated by commas. */
function fieldsOption(option: string, text: string): bigint {
  const { bits } = GuestFieldSelectV2;
  const names = text === '' ? [] : text.split(',').map((name) => name.trim().replaceAll('-', '_'));
  return names.reduce((word, name) => {
    const bit = Object.entries(bits).find(([known]) => known === name)?.[1];
    if (bit === undefined) {
      throw new InputError(
        'OPTION_INVALID',
        `${JSON.stringify(name)} is not one of ${Object.keys(bits).join(', ')}`,
        { where: `--${option}` },
      );
    }
    return word | (1n << BigInt(bit[0]));
  }, 0n);
}

/** Writes what was asked for; a secret is for its owner alone from the first byte. */
function writeResult(path: string | undefined, bytes: Uint8Array, mode = 0o666): void {
  if (path === undefined) {
    return;
  }
  try {
    writeFileSync(path, bytes, { mode });
  } catch (cause) {
    throw new EnvironmentError('FILE_UNWRITABLE', `cannot be written: ${errnoCode(cause)}`, {
      where: path,
      cause,
    });
  }
}

/** The report as it is and, of a version that is known, its fields. */
function reportDocument(report: Uint8Array): Record<string, unknown> {
  return { report, fields: fieldsOf(report) };
}

function fieldsOf(report: Uint8Array): Record<string, unknown> | null {
  const layout = report.length >= 4 ? reportLayout(readU32(report, 0)) : null;
  return layout === null || report.length !== layout.size ? null : layout.decodeLoose(report);
}

function reportText(report: Uint8Array): string {
  const fields = fieldsOf(report);
  return fields === null
    ? `${report.length} bytes of an unknown version: ${toHex(report)}\n`
    : Object.entries(fields)
        .map(([name, value]) => `${name.padEnd(18)}  ${showValue(value)}\n`)
        .join('');
}

const entriesOf = (table: Uint8Array): readonly LocatedCertificateEntry[] =>
  table.length === 0 ? [] : decodeCertificateTable(table);

interface CertificateRow {
  readonly guid: string;
  readonly kind: string;
  readonly offset: number;
  readonly length: number;
}

const rowOf = ({ guid, offset, length }: LocatedCertificateEntry): CertificateRow => ({
  guid,
  kind: CERT_GUIDS[guid] ?? 'unknown',
  offset,
  length,
});

function rowsText(rows: readonly CertificateRow[]): string {
  return rows.length === 0
    ? 'The host gives no certificates.\n'
    : rows
        .map(
          ({ guid, kind, offset, length }) => `${guid}  ${kind.padEnd(19)}  ${length} bytes at ${offset}\n`,
        )
        .join('');
}

const FILE_NAMES: Readonly<Record<string, string>> = {
  [ARK_GUID]: 'ark',
  [ASK_GUID]: 'ask',
  [VCEK_GUID]: 'vcek',
  [VLEK_GUID]: 'vlek',
};

/** Name and contents of the file for an entry; what holds no certificates is written as it is. */
function certificateFile(
  { guid, data }: LocatedCertificateEntry,
  all: readonly LocatedCertificateEntry[],
  format: 'pem' | 'der',
): { readonly name: string; readonly bytes: Uint8Array } {
  const known = FILE_NAMES[guid];
  if (known === undefined) {
    return { name: guid === CRL_GUID ? 'crl.der' : `${guid}.bin`, bytes: data };
  }
  // The ASVK has no GUID of its own: beside a VLEK and no VCEK, it is what the ASK's stands for.
  const has = (other: string): boolean => all.some((entry) => entry.guid === other);
  const name = guid === ASK_GUID && has(VLEK_GUID) && !has(VCEK_GUID) ? 'asvk' : known;
  const ders = certificatesOf(data);
  return {
    name: `${name}.${format}`,
    bytes: format === 'pem' ? utf8(ders.map((der) => toPem(der)).join('')) : concat(...ders),
  };
}
