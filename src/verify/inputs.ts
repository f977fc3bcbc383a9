// SPDX-License-Identifier: Apache-2.0
/**
 * Evidence as people have it: the report in binary, as text, inside what delivers it; certificates in
 * PEM, DER or a table. `verifyEvidence` takes bytes and guesses nothing; what guessing there is, is here,
 * and says what it took the input for.
 */
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import { fromPem, isOneDerSequence, otherCertificateBlocks } from '../certs/pem.ts';
import { readCertificateTable } from '../certs/table.ts';
import { copyOf, fromHex, isZero, readU32, startsWith, utf8 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { decodedText } from '../lib/text.ts';
import { decodeDer, Tag } from './der.ts';
import {
  base64Bytes,
  HCL_DATA_AT,
  HCL_MAGIC,
  isHclOfTdx,
  startsWithVersion,
  tsmBlob,
  tsmField,
} from './form.ts';
import type { RuntimeData } from './runtime-data.ts';

/** Larger than any evidence: an Azure HCL report has 2600 bytes, four pages of table in base64 22,000. */
const MAX_INPUT_BYTES = 1 << 20;

export interface ReportInput {
  readonly report: Uint8Array;
  /** What the input was taken for, innermost last: base64, configfs-tsm JSON ... */
  readonly forms: readonly string[];
  /** Certificate table that came along, or null. */
  readonly table: Uint8Array | null;
  /** What an Azure HCL report says beside the report, or null; whoever uses it hands it to the verifier. */
  readonly runtimeData: RuntimeData | null;
  /** What configfs-tsm calls the device the report is from, or null. */
  readonly provider: string | null;
}

/** MSG_REPORT_RSP: status, size and 24 reserved bytes before the report. */
const RESPONSE_HEADER_SIZE = 0x20;
/** IGVM_REQUEST_DATA: size, version, type of report, type of hash, size of what follows. */
const HCL_DATA_HEADER_SIZE = 20;

/**
 * Finds the report in whatever it came in.
 *
 * Shape    binary; hexadecimal or base64 text; JSON with outblob and auxblob, in the case of configfs-tsm or of
 *          go-configfs-tsm; MSG_REPORT_RSP; Azure's HCL report; report and certificate table one after the other
 * Returns  bytes that are none of these as they are: the verifier says what is wrong with them
 * Errors   REPORT_INPUT_INVALID for a response that carries an error instead of a report
 */
export function readReportInput(input: Uint8Array): ReportInput {
  const found = unwrap(input, []);
  return found ?? { ...ALONE, report: input, forms: [] };
}

/** A report and nothing beside it. */
const ALONE = { table: null, runtimeData: null, provider: null } as const;

function unwrap(input: Uint8Array, forms: readonly string[]): ReportInput | null {
  // Two layers of text around one of binary is as deep as tools go.
  if (input.length > MAX_INPUT_BYTES || forms.length > 3) {
    return null;
  }
  if (input.length === REPORT_SIZE) {
    return { ...ALONE, report: input, forms };
  }
  if (startsWith(input, HCL_MAGIC) && input.length >= RESPONSE_HEADER_SIZE + REPORT_SIZE) {
    // Of another processor: what is at the place of the report is none.
    return isHclOfTdx(input)
      ? null
      : {
          ...ALONE,
          report: reportAt(input),
          forms: [...forms, 'Azure HCL report'],
          runtimeData: hclRuntimeData(input),
        };
  }
  if (isResponse(input)) {
    return unwrapResponse(input, forms);
  }
  if (startsWithVersion(input) && input.length > REPORT_SIZE) {
    const table = input.subarray(REPORT_SIZE);
    if (isTableAlone(table)) {
      return {
        ...ALONE,
        report: copyOf(input, 0, REPORT_SIZE),
        forms: [...forms, 'report and table'],
        table: copyOf(table),
      };
    }
    return null;
  }
  const text = decodedText(input);
  return text === null || text === '' ? null : unwrapText(text, forms);
}

/**
 * What the guest's paravisor has put beside the report; one that is cut short is what there is of it.
 *
 * Returns  null where there is none, and nothing that says what it would be hashed with
 */
function hclRuntimeData(input: Uint8Array): RuntimeData | null {
  const at = HCL_DATA_AT + HCL_DATA_HEADER_SIZE;
  if (input.length < at) {
    return null;
  }
  const hashType = readU32(input, HCL_DATA_AT + 12);
  const size = readU32(input, HCL_DATA_AT + 16);
  return hashType === 0 && size === 0 ? null : { hashType, data: copyOf(input, at, at + size) };
}

/**
 * A table with certificates and at most zeros up to the end of its pages. Zeros alone are an empty table for a reader
 * of tables; after a report they are bytes that do not belong there.
 */
function isTableAlone(bytes: Uint8Array): boolean {
  const reading = readCertificateTable(bytes);
  const ends = 'entries' in reading ? reading.entries.map(({ offset, length }) => offset + length) : [];
  return ends.length > 0 && isZero(bytes.subarray(Math.max(...ends)));
}

const reportAt = (input: Uint8Array): Uint8Array =>
  copyOf(input, RESPONSE_HEADER_SIZE, RESPONSE_HEADER_SIZE + REPORT_SIZE);

function isResponse(input: Uint8Array): boolean {
  return (
    input.length >= RESPONSE_HEADER_SIZE &&
    isZero(input.subarray(8, RESPONSE_HEADER_SIZE)) &&
    (readU32(input, 4) === REPORT_SIZE
      ? input.length >= RESPONSE_HEADER_SIZE + REPORT_SIZE
      : readU32(input, 4) === 0 && [0x16, 0x27].includes(readU32(input, 0)))
  );
}

function unwrapResponse(input: Uint8Array, forms: readonly string[]): ReportInput {
  const status = readU32(input, 0);
  if (status !== 0) {
    const why = status === 0x16 ? 'invalid parameters (a VMPL below the guest’s own?)' : 'no such key';
    throw new InputError(
      'REPORT_INPUT_INVALID',
      `the firmware answered status 0x${status.toString(16)}: ${why}`,
      {
        where: 'MSG_REPORT_RSP.status',
      },
    );
  }
  return { ...ALONE, report: reportAt(input), forms: [...forms, 'MSG_REPORT_RSP'] };
}

function unwrapText(text: string, forms: readonly string[]): ReportInput | null {
  if (text.startsWith('{')) {
    return unwrapJson(text, forms);
  }
  const coded = codedText(text);
  return coded === null ? null : unwrap(coded.bytes, [...forms, coded.form]);
}

function unwrapJson(text: string, forms: readonly string[]): ReportInput | null {
  const outer = tsmBlob(text, 'outblob');
  const report = outer === null ? null : unwrap(outer, [...forms, 'configfs-tsm JSON']);
  return report === null
    ? null
    : {
        ...report,
        table: tsmBlob(text, 'auxblob') ?? report.table,
        provider: tsmField(text, 'provider')?.trim() ?? null,
      };
}

export interface CertificateInput {
  readonly certificates: readonly Uint8Array[];
  readonly crls: readonly Uint8Array[];
  /** The bytes of a certificate table, when it is one. */
  readonly table: Uint8Array | null;
  readonly form: 'DER' | 'PEM' | 'table' | 'base64' | 'hexadecimal' | 'unknown';
}

/**
 * Finds the certificates and revocation lists in a file.
 *
 * Returns  a file that is nothing of the kind as one certificate: the verifier says what is wrong with it
 */
export function readCertificateInput(input: Uint8Array): CertificateInput {
  const none = { certificates: [], crls: [], table: null } as const;
  if (input.length <= MAX_INPUT_BYTES) {
    if (isOneDerSequence(input)) {
      return isRevocationList(input)
        ? { ...none, crls: [input], form: 'DER' }
        : { ...none, certificates: [input], form: 'DER' };
    }
    const text = decodedText(input);
    if (text?.includes('-----BEGIN ') === true) {
      return readPem(input, text);
    }
    const coded = text === null ? null : codedText(text);
    if (coded !== null && isOneDerSequence(coded.bytes)) {
      return { ...readCertificateInput(coded.bytes), form: coded.form };
    }
    const table = readTableInput(input);
    if ('entries' in readCertificateTable(table)) {
      return { ...none, table, form: 'table' };
    }
  }
  return { ...none, certificates: [input], form: 'unknown' };
}

/**
 * The bytes of a certificate table in binary, hexadecimal or base64.
 *
 * Returns  what is none of these as it is: the verifier says what is wrong with it
 */
export function readTableInput(input: Uint8Array): Uint8Array {
  const text = input.length <= MAX_INPUT_BYTES ? decodedText(input) : null;
  const coded = text === null ? null : codedText(text);
  return coded !== null && 'entries' in readCertificateTable(coded.bytes) ? coded.bytes : input;
}

interface CodedText {
  readonly bytes: Uint8Array;
  readonly form: 'hexadecimal' | 'base64';
}

/** What hexadecimal or base64 text stands for; null for other text. */
function codedText(text: string): CodedText | null {
  const compact = text.replace(/\s+/g, '');
  if (compact.length % 2 === 0 && /^(0x)?[0-9a-fA-F]+$/.test(compact)) {
    return { bytes: fromHex(compact), form: 'hexadecimal' };
  }
  const bytes = base64Bytes(compact);
  return bytes === null ? null : { bytes, form: 'base64' };
}

function readPem(input: Uint8Array, text: string): CertificateInput {
  try {
    const certificates = fromPem(text);
    const crls = fromPem(text, 'X509 CRL');
    if (certificates.length + crls.length > 0) {
      // Skipped, they would be missed later and nobody would know why.
      const others = otherCertificateBlocks(text).map((block) => utf8(block.text));
      return { certificates: [...certificates, ...others], crls, table: null, form: 'PEM' };
    }
  } catch (error) {
    if (!(error instanceof InputError)) {
      throw error;
    }
  }
  return { certificates: [input], crls: [], table: null, form: 'unknown' };
}

/**
 * A TBSCertList begins with a version, algorithm and issuer, and a time is the fourth; a TBSCertificate begins with
 * [0], or in version 1 with serial number, algorithm and issuer, and the fourth holds two times.
 */
function isRevocationList(der: Uint8Array): boolean {
  try {
    const root = decodeDer(der, { what: 'file', maxBytes: MAX_INPUT_BYTES, maxNodes: 1 << 16 });
    const [version, , , time] = root.children[0]?.children ?? [];
    return version?.tag === Tag.INTEGER && (time?.tag === Tag.UTC_TIME || time?.tag === Tag.GENERALIZED_TIME);
  } catch {
    return false;
  }
}
