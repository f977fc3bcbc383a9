// SPDX-License-Identifier: Apache-2.0
/**
 * A guest context in two parts, for a host that launches the guest of a snapshot anew: what the same launch
 * gives again, and what it does not.
 */
import { equalBytes } from '../lib/bytes.ts';
import type { GuestContext } from './guest-context.ts';

const LAUNCH_FACTS = [
  'policy',
  'launchDigest',
  'hostData',
  'familyId',
  'imageId',
  'guestSvn',
  'idKeyDigest',
  'authorKeyEn',
  'authorKeyDigest',
  'vcekDis',
  'gosvw',
  'tscScale',
] as const satisfies readonly (keyof GuestContext)[];

/** What the launch of a guest and its ID block settle. */
export type LaunchFacts = Readonly<Pick<GuestContext, (typeof LAUNCH_FACTS)[number]>>;

/**
 * What is drawn for one guest alone, depends on when it was launched, or counts while it lives.
 *
 * Its VMPCKs and its memory key are not here: counts go back when a guest is resumed, and a message key must
 * never seal two different messages under one sequence number.
 */
export interface GuestLife {
  readonly reportId: Uint8Array;
  readonly vmrk: Uint8Array;
  readonly launchTcb: bigint;
  readonly launchMitVector: bigint;
  /** MsgCount0..3. */
  readonly msgCounts: readonly bigint[];
}

export function launchFactsOf(guest: GuestContext): LaunchFacts {
  return Object.fromEntries(LAUNCH_FACTS.map((fact) => [fact, guest[fact]])) as unknown as LaunchFacts;
}

/** The first fact in which two launches differ, as the specification spells it; null when it was the same launch. */
export function launchDifference(one: LaunchFacts, other: LaunchFacts): string | null {
  const differs = LAUNCH_FACTS.find((fact) => !isSame(one[fact], other[fact]));
  return differs?.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) ?? null;
}

function isSame(one: LaunchFacts[keyof LaunchFacts], other: LaunchFacts[keyof LaunchFacts]): boolean {
  return one instanceof Uint8Array && other instanceof Uint8Array ? equalBytes(one, other) : one === other;
}

export function lifeOf({ reportId, vmrk, launchTcb, launchMitVector, msgCounts }: GuestContext): GuestLife {
  return { reportId, vmrk, launchTcb, launchMitVector, msgCounts: [...msgCounts] };
}

export function resumeLife(guest: GuestContext, life: GuestLife): void {
  guest.reportId = life.reportId;
  guest.vmrk = life.vmrk;
  guest.launchTcb = life.launchTcb;
  guest.launchMitVector = life.launchMitVector;
  guest.msgCounts.set(life.msgCounts);
  // Made before it had this life.
  guest.reportKept = null;
}
