// SPDX-License-Identifier: Apache-2.0
/** What is to be in the certificate blobs that a host keeps for its guests. */
import type { EndorsementKind } from '../keys/index.ts';
import { EnvironmentError } from '../lib/errors.ts';
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

/**
 * Loads the provider's VLEK for the reported TCB when guests have its certificates and it is gone: without it
 * none of their reports would be signed by the key they have certificates for.
 *
 * Errors   MACHINE_REFUSED
 */
export function provideVlek(host: Host, guests: Iterable<ServedGuest>): void {
  if (signingKeyOf(host) === 'VLEK' || ![...guests].some(({ spec }) => spec.key === 'vlek')) {
    return;
  }
  const loaded = host.loadVlek();
  if (!loaded.ok) {
    throw new EnvironmentError('MACHINE_REFUSED', loaded.message, { where: 'SNP_VLEK_LOAD' });
  }
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

/** Which key a guest's certificates are for now. */
export function kindFor(host: Host, key: GuestKey): EndorsementKind {
  return key === 'auto' ? signingKeyOf(host) : key === 'vcek' ? 'VCEK' : 'VLEK';
}
