// SPDX-License-Identifier: Apache-2.0
/** softsnp/machine: one SNP host in software and its guests. Cryptography for it: softsnp/machine/node. */
export { type Clock, VirtualClock } from '../lib/clock.ts';
export type { MachineCrypto, Random } from '../lib/crypto.ts';
export type { TraceEvent } from '../lib/trace.ts';
export { type Attestation, type AttestOptions, attest, type Refusal } from './attest.ts';
export { type CertificateChain, certificateBlob, KeyService } from './endorsement.ts';
export { Guest, type GuestOptions, type IoctlOutcome, type LaunchAnswer } from './guest.ts';
export { Host, type HostDeps } from './host.ts';
export { type ManagementAnswer, ManagementTool } from './management.ts';
export { goBack, isAt, type PlatformPoint, pointOf } from './platform-point.ts';
export { type Processor, processorOf } from './processor.ts';
export { DEFAULT_CSP, decodeHostState, encodeHostState, type HostState, newHostState } from './state.ts';
