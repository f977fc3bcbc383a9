// SPDX-License-Identifier: Apache-2.0
/** Why evidence is refused, in words for people: one row for every cause that is looked for. */

export interface CauseRow {
  readonly cause: string;
  readonly cure: string;
}

/** Every cause that is looked for. `docs/howto/did-not-verify.md` is made from this table. */
export const CAUSES = {
  REPORT_IS_TEXT: {
    cause: 'The report is text (hexadecimal, base64 or JSON) where the binary is wanted.',
    cure: 'Decode it first; the command line does so by itself.',
  },
  REPORT_IS_WRAPPED: {
    cause:
      'The report is inside something else: a firmware response, an Azure HCL report, report and table in one.',
    cure: 'Take the 1184 bytes of the report out of it; the command line does so by itself.',
  },
  REPORT_IS_TRUNCATED: {
    cause: 'The end of the report is missing.',
    cure: 'Copy the whole file: 1184 bytes. Reading outblob in pieces gives pieces.',
  },
  REPORT_HAS_MORE_BYTES: {
    cause: 'There are bytes after the report.',
    cure: 'Give the 1184 bytes of the report and nothing else; a line break at the end is one byte too many.',
  },
  REPORT_WENT_THROUGH_TEXT: {
    cause: 'A program took the report for text on its way: it has changed line ends, or the encoding.',
    cure: 'Carry the report as bytes: binary mode, no strings in between; or as hexadecimal or base64 text.',
  },
  REPORT_IS_DUMP: {
    cause: 'The report is a dump for people to read.',
    cure: 'Turn it back into bytes (xxd -r), or take the file it was made from.',
  },
  OTHER_HARDWARE: {
    cause: 'The evidence is of other hardware than SEV-SNP.',
    cure: 'Give it to a verifier of that hardware: Intel’s quotes have nothing to do with AMD’s keys.',
  },
  REPORT_IS_SOMETHING_ELSE: {
    cause: 'What was given as the report is something else.',
    cure: 'Give the report: 1184 bytes in binary, hexadecimal or base64, or what delivered it.',
  },
  SIGNATURE_BIG_ENDIAN: {
    cause: 'R and S are in big-endian byte order; the firmware writes them in little-endian.',
    cure: 'Keep the report as the firmware made it; some tool has turned its signature around.',
  },
  SIGNATURE_PARTS_SWAPPED: {
    cause: 'R and S have changed places.',
    cure: 'Keep the report as the firmware made it; some tool has written its signature anew.',
  },
  REPORT_LOST_CPUID: {
    cause:
      'A tool that knows only version 2 has read the report and written it again without its CPUID bytes.',
    cure: 'Keep the bytes the guest received; do not decode and encode a report on its way.',
  },
  REPORT_CHANGED: {
    cause:
      'Chip, TCB and kind of key fit, yet the key did not sign: the report was changed after it was made.',
    cure: 'Ask the guest for a new report and carry it unchanged; compare both copies byte by byte.',
  },
  SIGNER_UNKNOWN: {
    cause:
      'The key did not sign, and the report does not say which key did: it was another one, or the report was changed.',
    cure: 'Ask the guest for report and certificates in one (extended report), and carry both unchanged.',
  },
  CERT_OF_CURRENT_TCB: {
    cause: 'The certificate is for CURRENT_TCB; reports are signed by the key of REPORTED_TCB.',
    cure: 'Fetch the certificate for REPORTED_TCB.',
  },
  CERT_OF_COMMITTED_TCB: {
    cause: 'The certificate is for COMMITTED_TCB; reports are signed by the key of REPORTED_TCB.',
    cure: 'Fetch the certificate for REPORTED_TCB.',
  },
  CERT_OF_LAUNCH_TCB: {
    cause: 'The certificate is for LAUNCH_TCB: the host has updated its firmware since the guest started.',
    cure: 'Fetch the certificate for REPORTED_TCB; the host must renew the blob it hands to guests.',
  },
  CERT_IS_STALE: {
    cause:
      'The certificate is for an older TCB: the blob was not renewed after SNP_COMMIT or SNP_SET_CONFIG.',
    cure: 'The host must fetch the certificate for REPORTED_TCB and write it into the blob.',
  },
  CERT_IS_AHEAD: {
    cause: 'The certificate is for a newer TCB: the blob was renewed, the firmware is not committed yet.',
    cure: 'The host must run SNP_COMMIT, or put back the certificate for REPORTED_TCB until it does.',
  },
  CERT_OF_ANOTHER_TCB: {
    cause: 'The certificate is for another TCB, which is neither older nor newer than that of the report.',
    cure: 'Fetch the certificate for REPORTED_TCB.',
  },
  CERT_OF_ANOTHER_CHIP: {
    cause: 'The certificate is for another chip: it was fetched for another host, or the guest has moved.',
    cure: 'Fetch the certificate for the CHIP_ID of this report.',
  },
  PRODUCT_OPTION_WRONG: {
    cause: 'The product line that was given as an option is not the one of the report.',
    cure: 'Leave the option out: report or certificate tell the product line.',
  },
  CERT_OF_ANOTHER_LINE: {
    cause: 'The certificate is of another product line than the report.',
    cure: 'Fetch the certificate under the product line of the report.',
  },
  VLEK_FOR_VCEK_REPORT: {
    cause: 'The certificate is a VLEK; the report was signed by the VCEK of the chip.',
    cure: 'Fetch the VCEK, or ask the guest for a report signed by the VLEK (KEY_SEL 2).',
  },
  VCEK_FOR_VLEK_REPORT: {
    cause: 'The certificate is a VCEK; the report was signed by the VLEK of the cloud.',
    cure: 'Ask the cloud for the VLEK certificate (extended report); the key service does not give it out.',
  },
  CHAIN_MISSING: {
    cause:
      'The certificates that vouch for the leaf are missing: ASK and ARK of a VCEK, ASVK and ARK of a VLEK.',
    cure: 'Fetch cert_chain of the product line of the report.',
  },
  INTERMEDIATE_OF_ANOTHER_LINE: {
    cause: 'The intermediate certificate is of another product line.',
    cure: 'Fetch cert_chain of the product line of the report.',
  },
  ASK_FOR_VLEK: {
    cause: 'The intermediate is the ASK, which issues VCEKs; VLEKs are issued by the ASVK.',
    cure: 'Fetch cert_chain from /vlek/v1/ instead of /vcek/v1/.',
  },
  ASVK_FOR_VCEK: {
    cause: 'The intermediate is the ASVK, which issues VLEKs; VCEKs are issued by the ASK.',
    cure: 'Fetch cert_chain from /vcek/v1/ instead of /vlek/v1/.',
  },
  INTERMEDIATE_REPLACED: {
    cause:
      'The intermediate has the right name and another key: AMD revoked one SEV-Genoa and issued another.',
    cure: 'Fetch cert_chain again, or give both: the one that fits is found.',
  },
  NO_CERTIFICATE: {
    cause: 'No endorsement certificate (VCEK or VLEK) is among what was given.',
    cure: 'Fetch the VCEK from the key service; a VLEK comes only from the cloud, with an extended report.',
  },
  CHIP_ID_MASKED: {
    cause: 'The host masks CHIP_ID, so that nobody can fetch the VCEK with what the report says.',
    cure: 'Ask the host for the VCEK (extended report), or have it clear MASK_CHIP_ID.',
  },
  CERT_IS_ERROR_PAGE: {
    cause: 'An error page was saved as a certificate: the key service did not answer with one.',
    cure: 'Look at the file. 404: wrong chip, TCB or product line in the URL; 429: wait and ask again.',
  },
  TURIN_URL: {
    cause: 'On Turin the key service wants the first 8 bytes of CHIP_ID and fmcSPL in the URL.',
    cure: 'Fetch with 16 hexadecimal digits and fmcSPL; with 128 digits it answers 404.',
  },
  CERT_IS_PEM: {
    cause: 'A certificate is in PEM where DER is wanted.',
    cure: 'Decode it first (fromPem of softsnp/certs); the command line does so by itself.',
  },
  CERT_IS_OTHER_PEM: {
    cause: 'A certificate is in PEM under another label than CERTIFICATE, and in another encoding.',
    cure: 'Write it anew: openssl x509 -in FILE; for PKCS7: openssl pkcs7 -print_certs -in FILE.',
  },
  CERT_IS_TEXT: {
    cause: 'A certificate is in hexadecimal or base64 where DER is wanted.',
    cure: 'Decode it first; the command line does so by itself.',
  },
  CERT_IS_TRUNCATED: {
    cause: 'The end of a certificate is missing, or the whole of it.',
    cure: 'Fetch it again, and look whether there was space left to write it.',
  },
  CERT_IS_PRIVATE_KEY: {
    cause: 'What was given as a certificate is a private key.',
    cure: 'Take the key out of here, look who could read it, and give the certificate instead.',
  },
  CERT_IS_SOMETHING_ELSE: {
    cause: 'What was given as a certificate is something else.',
    cure: 'Give certificates in DER or PEM, or the table that holds them.',
  },
  TABLE_GUIDS_SWAPPED: {
    cause: 'The GUIDs of the table are in EFI byte order; the table has them in the order they are written.',
    cure: 'The host must write the table with the GUID bytes in textual order.',
  },
  TABLE_IS_TRUNCATED: {
    cause:
      'The table ends before the contents that it promises: it was cut, or copied into too small a buffer.',
    cure: 'Read all of auxblob: up to four pages. The host must offer the guest as many pages as the table needs.',
  },
  TABLE_IS_DAMAGED: {
    cause: 'The table contradicts itself: whoever wrote it got its offsets and lengths wrong.',
    cure: 'The host must write the table again.',
  },
  TABLE_IS_SOMETHING_ELSE: {
    cause: 'What was given as the certificate table is something else.',
    cure: 'Give auxblob as the guest received it.',
  },
  CRL_IS_SOMETHING_ELSE: {
    cause: 'What was given as the revocation list is something else.',
    cure: 'Fetch crl from the key service: it is DER.',
  },
  SOFTSNP_ROOT: {
    cause:
      'The root calls itself a test root of softsnp: it proves nothing about hardware, and nothing vouches for it.',
    cure: 'For tests, name your own root of softsnp with --trust. Never do so where it matters.',
  },
  AMD_ROOT_NOT_NAMED: {
    cause: 'The root is AMD’s, but only other roots are trusted: whoever names roots trusts AMD’s no longer.',
    cure: 'Leave --trust out: AMD’s roots are pinned.',
  },
  EXPIRED_VLEK: {
    cause: 'The VLEK certificate has run out: it lives one year.',
    cure: 'Get the current one from the cloud; for an old report give the time it was made with --at.',
  },
} as const satisfies Record<string, CauseRow>;

export type CauseCode = keyof typeof CAUSES;
