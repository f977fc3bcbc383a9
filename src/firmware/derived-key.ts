// SPDX-License-Identifier: Apache-2.0
import { GuestFieldSelectV2, type MsgKeyReqV2 } from '../abi/guest-message.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { bytes, layout, u8, u32le, u64le } from '../lib/struct.ts';
import type { GuestContext } from './guest-context.ts';

/** Everything a derived key depends on besides its root. Facts that are not selected are zero. */
export const DerivedKeyInputs = layout(
  'DerivedKeyInputs',
  0x138,
  { spec: 'SOFTSNP', at: 'derived key' },
  {
    label: [0x000, bytes(16), '"softsnp key v1"'],
    root_key_select: [0x010, u8],
    author_key_en: [0x011, u8],
    vmpl: [0x014, u32le],
    guest_field_select: [0x018, GuestFieldSelectV2],
    host_data: [0x020, bytes(32)],
    id_key_digest: [0x040, bytes(48)],
    author_key_digest: [0x070, bytes(48)],
    policy: [0x0a0, u64le],
    tcb_version: [0x0a8, u64le],
    launch_mit_vector: [0x0b0, u64le],
    guest_svn: [0x0b8, u32le],
    image_id: [0x0c0, bytes(16)],
    family_id: [0x0d0, bytes(16)],
    measurement: [0x0e0, bytes(48)],
  },
);

const LABEL = Uint8Array.from('softsnp key v1', (char) => char.charCodeAt(0));
const DERIVED_KEY_SIZE = 32;

/**
 * The key for one guest and one selection of facts.
 *
 * Source   [SNP-ABI] "Key Derivation": which facts are always mixed in and which by GUEST_FIELD_SELECT
 * Differs  the derivation function is not published; here HMAC-SHA-384 over the inputs in fixed places, cut to 32
 *          bytes (docs/limitations.md#derived-keys)
 */
export function deriveKey(
  crypto: MachineCrypto,
  root: Uint8Array,
  guest: GuestContext,
  request: MsgKeyReqV2,
): Uint8Array {
  const label = new Uint8Array(16);
  label.set(LABEL);
  const select = request.guest_field_select;
  const inputs = DerivedKeyInputs.encode({
    label,
    root_key_select: request.flags.root_key_select,
    author_key_en: Number(guest.authorKeyEn),
    vmpl: request.vmpl,
    guest_field_select: select,
    host_data: guest.hostData,
    id_key_digest: guest.idKeyDigest,
    author_key_digest: guest.authorKeyDigest,
    ...(select.guest_policy === 1 ? { policy: guest.policy } : {}),
    ...(select.tcb_version === 1 ? { tcb_version: request.tcb_version } : {}),
    ...(select.launch_mit_vector === 1 ? { launch_mit_vector: request.launch_mit_vector } : {}),
    ...(select.guest_svn === 1 ? { guest_svn: request.guest_svn } : {}),
    ...(select.image_id === 1 ? { image_id: guest.imageId } : {}),
    ...(select.family_id === 1 ? { family_id: guest.familyId } : {}),
    ...(select.measurement === 1 ? { measurement: guest.launchDigest } : {}),
  });
  return crypto.hmacSha384(root, inputs).slice(0, DERIVED_KEY_SIZE);
}
