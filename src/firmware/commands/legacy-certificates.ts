// SPDX-License-Identifier: Apache-2.0
/** The legacy SEV commands about the platform's keys and its owner. [LINUX] drivers/crypto/ccp; [SEV-TOOL] */
import { SevCertificate } from '../../abi/sev-certificate.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataPdhCertExport, SevDataPekCertImport, SevDataPekCsr } from '../../abi/snp-commands.ts';
import { concat } from '../../lib/bytes.ts';
import type { Platform } from '../platform.ts';
import { cekCertificate, joined, newIdentity, signingRequest, withNewPdh } from '../sev-identity.ts';

/**
 * Forgets who the platform was: keys and owner are made anew when the next command asks for them. Legacy
 * FACTORY_RESET
 */
export function factoryReset(platform: Platform): SevStatus {
  platform.legacyEs = false;
  platform.forgetSevIdentity();
  return SevRet.SEV_RET_SUCCESS;
}

/** New OCA, PEK and PDH; the platform belongs to itself, whoever owned it. Legacy PEK_GEN */
export function pekGen(platform: Platform): SevStatus {
  platform.sevIdentity = newIdentity(platform);
  return SevRet.SEV_RET_SUCCESS;
}

/** A new PDH under the same PEK. Legacy PDH_GEN */
export function pdhGen(platform: Platform): SevStatus {
  platform.sevIdentity = withNewPdh(platform, platform.sevIdentity);
  return SevRet.SEV_RET_SUCCESS;
}

/**
 * The request that an owner signs. Legacy PEK_CSR
 *
 * Returns  SEV_RET_INVALID_LEN with the needed length written back when the buffer is too small
 */
export function pekCsr(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataPekCsr);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const bytes = signingRequest(platform, platform.sevIdentity);
  const { address, len } = buffer;
  return platform.answerSized(bufferAt, SevDataPekCsr.encode({ address, len: bytes.length }), [
    { address, room: len, bytes },
  ]);
}

/**
 * PDH, and PEK, OCA and CEK above it. Legacy PDH_CERT_EXPORT
 *
 * Returns  SEV_RET_INVALID_LEN with both needed lengths written back when a buffer is too small
 */
export function pdhCertExport(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataPdhCertExport);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const { pdh, pek, oca } = platform.sevIdentity;
  const chain = concat(pek, oca, cekCertificate(platform));
  const answer = SevDataPdhCertExport.encode({
    ...buffer,
    pdh_cert_len: pdh.length,
    cert_chain_len: chain.length,
  });
  return platform.answerSized(bufferAt, answer, [
    { address: buffer.pdh_cert_address, room: buffer.pdh_cert_len, bytes: pdh },
    { address: buffer.cert_chain_address, room: buffer.cert_chain_len, bytes: chain },
  ]);
}

/**
 * Gives the platform to an owner who has signed its PEK; the PDH changes with it. Legacy PEK_CERT_IMPORT
 *
 * Returns  SEV_RET_ALREADY_OWNED when it has one; SEV_RET_INVALID_LEN for anything but two certificates of 2084
 *          bytes; SEV_RET_INVALID_CERTIFICATE or SEV_RET_BAD_SIGNATURE
 */
export function pekCertImport(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataPekCertImport);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (platform.sevIdentity.owned) {
    return SevRet.SEV_RET_ALREADY_OWNED;
  }
  if (buffer.pek_cert_len !== SevCertificate.size || buffer.oca_cert_len !== SevCertificate.size) {
    return SevRet.SEV_RET_INVALID_LEN;
  }
  const pek = platform.readBytes(buffer.pek_cert_address, buffer.pek_cert_len);
  const oca = platform.readBytes(buffer.oca_cert_address, buffer.oca_cert_len);
  if (pek === null || oca === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const identity = joined(platform, platform.sevIdentity, pek, oca);
  if (typeof identity === 'number') {
    return identity;
  }
  platform.sevIdentity = identity;
  return SevRet.SEV_RET_SUCCESS;
}
