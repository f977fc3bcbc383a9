// SPDX-License-Identifier: Apache-2.0
/** The key distribution service: test authorities, what they issue in AMD's form, a server and a client. */
export { TEST_ROOT_COMMENT } from '../certs/test-root.ts';
export type { Clock } from '../lib/clock.ts';
export { type CertificateAuthority, embeddedAuthority } from './authority.ts';
export { CA_ROLES, CA_ROWS, type CaRole, caName } from './ca-certificate.ts';
export {
  DEFAULT_TIMING,
  type KdsCache,
  type KdsChain,
  KdsClient,
  type KdsClientOptions,
  type KdsFetch,
  type KdsJudge,
  type KdsTiming,
  MemoryCache,
} from './client.ts';
export {
  FAULTS,
  type Fault,
  type FaultKind,
  FaultPlan,
  type FaultRule,
  type FaultScope,
  formatFaultRule,
  parseFaultRule,
  parseFaultRules,
} from './faults.ts';
export {
  AMD_REVOCATIONS,
  Fleet,
  type FleetChip,
  type FleetProvider,
  type FleetRevocation,
  type HostSecrets,
  MAX_FLEET_BYTES,
  parseFleet,
} from './fleet.ts';
export {
  type CrlRequest,
  issueCrl,
  issueVcek,
  issueVlek,
  type RevokedSerial,
  type VcekRequest,
  type VlekRequest,
} from './issue.ts';
export { AMD_RATE, parseRate, type Rate } from './rate-limit.ts';
export {
  DEFAULT_LIMITS,
  type KdsLimits,
  type KdsLogEntry,
  type KdsServer,
  type KdsServerOptions,
  type ListenAddress,
  startKdsServer,
} from './server.ts';
export {
  type KdsAnswer,
  type KdsAnswerer,
  type KdsRequest,
  KdsService,
  type KdsServiceOptions,
} from './service.ts';
export { issueCek, issueSevCa } from './sev-certificates.ts';
export {
  isKeyPair,
  issueClientCertificate,
  isTlsKey,
  KDS_HOST,
  makeTlsAuthority,
  makeTlsIdentity,
  makeTlsKey,
  type TlsAuthorityKind,
  type TlsIdentity,
  type TlsKeyPair,
  termOf,
} from './tls.ts';
export {
  AMD_KDS,
  formatKdsTarget,
  hwidOfChipId,
  isRefusal,
  type KdsName,
  type KdsRefusal,
  parseKdsTarget,
  RESOURCE_LABELS,
  type ResourceLabel,
  resourceLabel,
} from './url.ts';
