// SPDX-License-Identifier: Apache-2.0
/** The key distribution service: test authorities and what they issue in AMD's form. */
export { type CertificateAuthority, embeddedAuthority } from './authority.ts';
export { CA_ROLES, CA_ROWS, type CaRole, caName } from './ca-certificate.ts';
export {
  type CrlRequest,
  issueCrl,
  issueVcek,
  issueVlek,
  type RevokedSerial,
  type VcekRequest,
  type VlekRequest,
} from './issue.ts';
export { TEST_ROOT_COMMENT } from './x509.ts';
