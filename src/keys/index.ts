// SPDX-License-Identifier: Apache-2.0
/** Secrets and what is derived from them: hash sticks, endorsement keys, wrapped VLEK sticks, keys of legacy SEV. */
export { SECRET_SIZE } from './derive.ts';
export { type EndorsementKind, endorsementKey, endorsementScalar } from './endorsement-key.ts';
export {
  descend,
  STICK_VALUE_SIZE,
  type Stick,
  TOP_LEVEL,
  topStick,
} from './hash-stick.ts';
export { CHIP_ID_SIZE, chipIdOf, chipWrappingKey, cspSecret, documentTag, HWID_SIZE } from './identity.ts';
export {
  addSevSignature,
  findSevSignature,
  sevSignature,
  unsignedSevCertificate,
} from './sev-certificate.ts';
export { chipEndorsementKey, type PlatformKeyUse, platformKey } from './sev-keys.ts';
export { unwrapHashstick, wrapHashstick, wrappedHashstickTcb } from './vlek-wrap.ts';
