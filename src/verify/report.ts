// SPDX-License-Identifier: Apache-2.0
/** The report: decoding it, and what can be said about it before any certificate is seen. */
import {
  type AttestationReportV2,
  type AttestationReportV3,
  type AttestationReportV5,
  REPORT_SIGNED_SIZE,
  REPORT_SIZE,
  REPORT_VERSIONS,
  reportLayout,
  reportVersionRefusal,
  SIGNATURE_ALGO_ECDSA_P384_SHA384,
  SigningKeySelect,
} from '../abi/attestation-report.ts';
import { type ProductLine, productOfCpuid } from '../abi/product.ts';
import { readU32, readU64, reversed } from '../lib/bytes.ts';
import { type Finding, finding } from './findings.ts';

/** A report of any supported version; fields a version lacks are absent. */
export type Report = AttestationReportV2 & Partial<AttestationReportV3> & Partial<AttestationReportV5>;

/** What decoding a report gave: the report is null when its bytes have no known layout. */
export interface DecodedReport {
  readonly report: Report | null;
  readonly findings: readonly Finding[];
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

// Genuine reports set bit 6 (0x65, 0x67), which has no name; those above it have never been seen.
const PLATFORM_INFO_SEEN = 0xffn;

/** Decodes a report; reserved bytes that are set are findings and do not stop the decoding. */
export function decodeReport(bytes: Uint8Array): DecodedReport {
  if (bytes.length !== REPORT_SIZE) {
    return {
      report: null,
      findings: [
        finding('REPORT_LENGTH_MISMATCH', {
          where: 'report',
          expected: `${REPORT_SIZE} bytes`,
          actual: `${bytes.length} bytes`,
        }),
      ],
    };
  }
  const version = readU32(bytes, 0);
  const layout = reportLayout(version);
  if (layout === null) {
    return {
      report: null,
      findings: [
        finding('REPORT_VERSION_UNSUPPORTED', {
          where: 'report[0x000].version',
          expected: REPORT_VERSIONS.join(', '),
          actual: String(version),
          message: reportVersionRefusal(version)!,
        }),
      ],
    };
  }
  const report: Report = layout.decodeLoose(bytes);
  return { report, findings: fieldFindings(bytes, report, layout) };
}

function fieldFindings(
  bytes: Uint8Array,
  report: Report,
  layout: NonNullable<ReturnType<typeof reportLayout>>,
): Finding[] {
  const found: Finding[] = [];
  for (const violation of layout.violations(bytes)) {
    if (violation.where === 'policy') {
      found.push(
        finding('REPORT_GUEST_POLICY_RESERVED', {
          where: 'report[0x008].policy',
          expected: 'bit 17 set, bits 63:26 clear',
          actual: hex(readU64(bytes, violation.offset)),
        }),
      );
    } else if (violation.where !== 'platform_info') {
      found.push(
        finding('REPORT_RESERVED_NOT_ZERO', {
          where: `report[${hex(violation.offset)}].${violation.where}`,
          expected: 'zero',
          message: `${violation.message} in a version ${report.version} report.`,
        }),
      );
    }
  }
  const platformInfo = readU64(bytes, layout.offsetOf('platform_info'));
  if (platformInfo > PLATFORM_INFO_SEEN) {
    found.push(
      finding('REPORT_PLATFORM_INFO_UNKNOWN', {
        where: 'report[0x040].platform_info',
        actual: hex(platformInfo),
      }),
    );
  }
  if (report.signature_algo !== SIGNATURE_ALGO_ECDSA_P384_SHA384) {
    found.push(
      finding('REPORT_SIGNATURE_ALGO_UNSUPPORTED', {
        where: 'report[0x034].signature_algo',
        expected: '1',
        actual: String(report.signature_algo),
      }),
    );
  }
  const { signing_key } = report.key_info;
  if (signing_key === SigningKeySelect.NONE) {
    found.push(
      finding('REPORT_UNSIGNED', {
        where: 'report[0x048].key_info.signing_key',
        expected: '0 or 1',
        actual: '7',
      }),
    );
  } else if (signing_key !== SigningKeySelect.VCEK && signing_key !== SigningKeySelect.VLEK) {
    found.push(
      finding('REPORT_SIGNING_KEY_UNSUPPORTED', {
        where: 'report[0x048].key_info.signing_key',
        expected: '0 (VCEK) or 1 (VLEK)',
        actual: String(signing_key),
      }),
    );
  }
  return found;
}

/** Which kind of certificate the report wants; null when no key can have signed it. */
export function wantedKind(report: Report): 'VCEK' | 'VLEK' | null {
  switch (report.key_info.signing_key) {
    case SigningKeySelect.VCEK:
      return 'VCEK';
    case SigningKeySelect.VLEK:
      return 'VLEK';
    default:
      return null;
  }
}

/**
 * The product line the report itself names.
 *
 * Returns  null for version 2, which names none, and for a CPU that belongs to no known line
 */
export function productOfReport(report: Report): ProductLine | null {
  return report.cpuid_fam_id === undefined || report.cpuid_mod_id === undefined
    ? null
    : productOfCpuid(report.cpuid_fam_id, report.cpuid_mod_id);
}

/** The bytes the firmware signed, in place: what identifies a report, whatever its signature bytes. */
export const signedBytesOf = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, REPORT_SIGNED_SIZE);

/** Significant bytes of R and S in the report's 72. */
export const SIGNATURE_PART_SIZE = 48;

/** R or S of a report as other software takes it: 48 bytes, big-endian. */
export const signaturePart = (field: Uint8Array): Uint8Array => reversed(field, SIGNATURE_PART_SIZE);
