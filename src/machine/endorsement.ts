// SPDX-License-Identifier: Apache-2.0
/** What AMD's key service knows of one host: it recomputes the chip's keys and certifies them. */
import { ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import type { ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { encodeCertificateTable } from '../certs/table.ts';
import { type CertificateAuthority, embeddedAuthority } from '../kds/authority.ts';
import { issueVcek, issueVlek } from '../kds/issue.ts';
import {
  chipWrappingKey,
  descend,
  type EndorsementKind,
  endorsementKey,
  topStick,
  wrapHashstick,
} from '../keys/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import type { HostState } from './state.ts';

/** Leaf, intermediate and root in DER, as they stand in a guest's certificate table. */
export interface CertificateChain {
  readonly kind: EndorsementKind;
  readonly leaf: Uint8Array;
  /** ASK for a VCEK, ASVK for a VLEK. */
  readonly intermediate: Uint8Array;
  readonly ark: Uint8Array;
}

export class KeyService {
  readonly product: ProductLine;
  readonly authority: CertificateAuthority;
  readonly #crypto: MachineCrypto;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #state: HostState;

  constructor(deps: { crypto: MachineCrypto; random: Random; clock: Clock; state: HostState }) {
    this.product = deps.state.product;
    this.authority = embeddedAuthority(deps.state.product);
    this.#crypto = deps.crypto;
    this.#random = deps.random;
    this.#clock = deps.clock;
    this.#state = deps.state;
  }

  /** A certificate for the key of this TCB, issued now, with its chain. */
  chain(kind: EndorsementKind, tcb: TcbParts): CertificateChain {
    const common = {
      authority: this.authority,
      tcb,
      publicPoint: endorsementKey(this.#crypto, this.#stick(kind, tcb), kind).publicPoint,
      notBeforeMs: this.#clock.nowMs(),
      random: this.#random,
    };
    const leaf =
      kind === 'VCEK'
        ? issueVcek({ ...common, chipId: this.#state.chipId })
        : issueVlek({ ...common, csp: this.#state.csp });
    const { ark, ask, asvk } = this.authority;
    return { kind, leaf, intermediate: kind === 'VCEK' ? ask : asvk, ark };
  }

  /** The provider's hash stick for this TCB, wrapped for this chip: 432 bytes, what SNP_VLEK_LOAD takes. */
  wrappedHashstick(tcb: TcbParts): Uint8Array {
    const wrappingKey = chipWrappingKey(this.#crypto, this.#state.chipSecret);
    return wrapHashstick(this.#crypto, this.#random, wrappingKey, this.#stick('VLEK', tcb));
  }

  #stick(kind: EndorsementKind, tcb: TcbParts) {
    const secret = kind === 'VCEK' ? this.#state.chipSecret : this.#state.cspSecret;
    const stick = descend(this.#crypto, topStick(this.#crypto, secret, this.product), tcb);
    invariant(stick !== null, 'every TCB is below the top of the stick');
    return stick;
  }
}

/** The blob a VMM hands to guests: leaf, ASK or ASVK under the ASK's GUID, ARK. */
export function certificateBlob(chain: CertificateChain): Uint8Array {
  return encodeCertificateTable([
    { guid: chain.kind === 'VCEK' ? VCEK_GUID : VLEK_GUID, data: chain.leaf },
    { guid: ASK_GUID, data: chain.intermediate },
    { guid: ARK_GUID, data: chain.ark },
  ]);
}
