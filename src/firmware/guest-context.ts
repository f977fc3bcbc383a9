// SPDX-License-Identifier: Apache-2.0
import type { Asid, Pfn } from '../lib/addresses.ts';
import type { Random } from '../lib/crypto.ts';
import type { GuestState } from './states.ts';

/** Plain rate of the guest's TSC: 8.32 fixed point. */
export const TSC_SCALE_ONE = 1n << 32n;

/** A response that the next request writes its own part into. */
export interface KeptReport {
  /** State of the platform it shows. */
  readonly epoch: number;
  readonly payload: Uint8Array;
  /** The report inside the payload, and as much of it as is signed. */
  readonly report: Uint8Array;
  readonly signed: Uint8Array;
  /** KEY_INFO without the signing key. */
  readonly keyInfo: number;
}

/**
 * What firmware knows about one guest.
 *
 * Source   [SNP-ABI] "Guest Context"
 * Differs  kept beside the context page rather than encrypted inside it (docs/limitations.md#guest-context)
 */
export interface GuestContext {
  readonly pfn: Pfn;
  state: GuestState;
  /** 0 until SNP_ACTIVATE. */
  asid: Asid;
  policy: bigint;
  /** Memory encryption key. */
  readonly vek: Uint8Array;
  vmpcks: readonly Uint8Array[];
  /** MsgCount0..3. */
  readonly msgCounts: BigUint64Array;
  /** Tag of the last request accepted under each VMPCK: tells a repeated message from a reused nonce. */
  readonly lastTags: (Uint8Array | null)[];
  vmrk: Uint8Array;
  launchDigest: Uint8Array;
  /** Pages may belong to an initial migration image. */
  imiEn: boolean;
  reportId: Uint8Array;
  familyId: Uint8Array;
  imageId: Uint8Array;
  guestSvn: number;
  idKeyDigest: Uint8Array;
  authorKeyEn: boolean;
  authorKeyDigest: Uint8Array;
  vcekDis: boolean;
  hostData: Uint8Array;
  gosvw: Uint8Array;
  tscScale: bigint;
  launchTcb: bigint;
  launchMitVector: bigint;
  /** The last MSG_REPORT_RSP with this guest's report in it; made anew when the platform changed. */
  reportKept: KeptReport | null;
}

/** A guest in GSTATE_INIT. */
export function newGuestContext(pfn: Pfn, random: Random): GuestContext {
  return {
    pfn,
    state: 'GSTATE_INIT',
    asid: 0 as Asid,
    policy: 0n,
    vek: random.bytes(32),
    vmpcks: [],
    msgCounts: new BigUint64Array(4),
    lastTags: [null, null, null, null],
    vmrk: new Uint8Array(32),
    launchDigest: new Uint8Array(48),
    imiEn: false,
    reportId: new Uint8Array(32),
    familyId: new Uint8Array(16),
    imageId: new Uint8Array(16),
    guestSvn: 0,
    idKeyDigest: new Uint8Array(48),
    authorKeyEn: false,
    authorKeyDigest: new Uint8Array(48),
    vcekDis: false,
    hostData: new Uint8Array(32),
    gosvw: new Uint8Array(16),
    tscScale: TSC_SCALE_ONE,
    launchTcb: 0n,
    launchMitVector: 0n,
    reportKept: null,
  };
}
