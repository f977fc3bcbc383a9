// SPDX-License-Identifier: Apache-2.0
/** What is to be in the certificate blobs that a host keeps for its guests. */
import type { EndorsementKind } from '../keys/index.ts';
import { certificateBlob, type Host } from '../machine/index.ts';
import type { GuestKey, ServedGuest } from './served-guest.ts';

/** The key that signs a report whose client does not choose. */
export function signingKeyOf(host: Host): EndorsementKind {
  return host.management.platformStatus().features.vlek_en === 1 ? 'VLEK' : 'VCEK';
}

export function blobFor(host: Host, key: GuestKey): Uint8Array {
  return certificateBlob(host.chain(kindFor(host, key)));
}

/** Path and contents for each of these guests: one certificate for all guests of a kind. */
export function blobsOf(
  host: Host,
  guests: readonly ServedGuest[],
): (readonly [path: string, bytes: Uint8Array])[] {
  const made = new Map<EndorsementKind, Uint8Array>();
  return guests.map(({ spec, blob }) => {
    const kind = kindFor(host, spec.key);
    const bytes = made.get(kind) ?? blobFor(host, spec.key);
    made.set(kind, bytes);
    return [blob.name, bytes];
  });
}

function kindFor(host: Host, key: GuestKey): EndorsementKind {
  return key === 'auto' ? signingKeyOf(host) : key === 'vcek' ? 'VCEK' : 'VLEK';
}
