// SPDX-License-Identifier: Apache-2.0
/** What is to be in the certificate blobs that a host keeps for its guests. */
import type { EndorsementKind } from '../keys/index.ts';
import { certificateBlob, type Host } from '../machine/index.ts';
import type { GuestKey, ServedGuest } from './served-guest.ts';

/** The key that signs a report whose client does not choose. */
export function signingKeyOf({ psp }: Host): EndorsementKind {
  return psp.wrappedVlek === null ? 'VCEK' : 'VLEK';
}

/** Kind and TCB of the key that a guest's certificates are to be for. */
export function keyFor(host: Host, key: GuestKey): string {
  return `${kindFor(host, key)} ${host.psp.exportState().reported_tcb}`;
}

/** Contents for each of these guests: one certificate for all guests of a kind. */
export function blobsOf(
  host: Host,
  guests: readonly ServedGuest[],
): (readonly [served: ServedGuest, bytes: Uint8Array])[] {
  const made = new Map<EndorsementKind, Uint8Array>();
  return guests.map((served) => {
    const kind = kindFor(host, served.spec.key);
    const bytes = made.get(kind) ?? certificateBlob(host.chain(kind));
    made.set(kind, bytes);
    return [served, bytes];
  });
}

function kindFor(host: Host, key: GuestKey): EndorsementKind {
  return key === 'auto' ? signingKeyOf(host) : key === 'vcek' ? 'VCEK' : 'VLEK';
}
