// SPDX-License-Identifier: Apache-2.0
/** A report as the firmware of a chip would sign it, without running a guest. */
import {
  AttestationReportV3,
  PlatformInfo,
  REPORT_SIGNED_SIZE,
  SIGNATURE_ALGO_ECDSA_P384_SHA384,
  SigningKeySelect,
} from '../../src/abi/attestation-report.ts';
import { GuestPolicy } from '../../src/abi/guest-policy.ts';
import type { ProductLine } from '../../src/abi/product.ts';
import { encodeTcb, type TcbParts } from '../../src/abi/tcb-version.ts';
import type { FleetChip } from '../../src/kds/index.ts';
import { descend, type EndorsementKind, endorsementKey, topStick } from '../../src/keys/index.ts';
import { reversed } from '../../src/lib/bytes.ts';
import { nodeCrypto } from '../../src/os/node-crypto.ts';

const CPUID: Readonly<Record<ProductLine, readonly [family: number, model: number, stepping: number]>> = {
  Milan: [0x19, 0x01, 1],
  Genoa: [0x19, 0x11, 1],
  Turin: [0x1a, 0x02, 1],
};

const crypto = nodeCrypto({ deterministic: true });

/** A version 3 report of a chip for one TCB, signed by its VCEK or by a VLEK from `secret`. */
export function reportOf(
  product: ProductLine,
  { chipId, secret }: Pick<FleetChip, 'chipId' | 'secret'>,
  tcb: TcbParts,
  kind: EndorsementKind = 'VCEK',
): Uint8Array {
  const [family, model, stepping] = CPUID[product];
  const word = encodeTcb(tcb, product);
  const report = AttestationReportV3.encode({
    version: 3,
    policy: GuestPolicy.fromWord(0x3_0000n),
    signature_algo: SIGNATURE_ALGO_ECDSA_P384_SHA384,
    key_info: { author_key_en: 0, mask_chip_key: 0, signing_key: SigningKeySelect[kind] },
    platform_info: PlatformInfo.fromWord(1n),
    current_tcb: word,
    reported_tcb: word,
    committed_tcb: word,
    launch_tcb: word,
    cpuid_fam_id: family,
    cpuid_mod_id: model,
    cpuid_step: stepping,
    chip_id: chipId,
    measurement: new Uint8Array(48).fill(0x5a),
    report_data: new Uint8Array(64).fill(0xa5),
    report_id: new Uint8Array(32).fill(0x11),
    report_id_ma: new Uint8Array(32).fill(0xff),
    current_major: 1,
    current_minor: 55,
    current_build: 21,
    committed_major: 1,
    committed_minor: 55,
    committed_build: 21,
  });
  const stick = descend(crypto, topStick(crypto, secret, product), tcb)!;
  const { r, s } = endorsementKey(crypto, stick, kind).sign(report.subarray(0, REPORT_SIGNED_SIZE));
  const padded = (value: Uint8Array): Uint8Array => {
    const field = new Uint8Array(72);
    field.set(reversed(value));
    return field;
  };
  AttestationReportV3.set(report, 'signature_r', padded(r));
  AttestationReportV3.set(report, 'signature_s', padded(s));
  return report;
}
