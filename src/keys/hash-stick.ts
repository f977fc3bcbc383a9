// SPDX-License-Identifier: Apache-2.0
/**
 * Hash sticks: one secret value per TCB component and version, each the hash of the next higher one.
 *
 * Whoever holds the value of version n reaches every version below n by hashing, and none above it. That
 * is why firmware can sign for an older TCB_VERSION and never for a newer one, and it holds here because
 * a Stick carries nothing but the values of its own TCB.
 */
import type { ProductLine } from '../abi/product.ts';
import { type TcbParts, tcbAtMost, tcbComponents } from '../abi/tcb-version.ts';
import { concat, utf8 } from '../lib/bytes.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import { expand } from './derive.ts';

/** Highest security patch level of a component: TCB_VERSION has one byte for each. */
export const TOP_LEVEL = 255;

/** Bytes of one component's value. */
export const STICK_VALUE_SIZE = 48;

/** What firmware of one TCB knows of a chip's (VCEK) or a cloud provider's (VLEK) secret. */
export interface Stick {
  readonly product: ProductLine;
  readonly tcb: TcbParts;
  /** 48 bytes per component, in the order of `tcbComponents`. */
  readonly values: readonly Uint8Array[];
}

/**
 * The stick of the highest TCB there can be; only the key service and the fuses of the chip have it.
 *
 * Shape    secret 48 bytes
 * Differs  AMD does not publish its derivation (docs/limitations.md)
 */
export function topStick(crypto: MachineCrypto, secret: Uint8Array, product: ProductLine): Stick {
  const top = { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
  const values = tcbComponents(product).map((component) => {
    top[component] = TOP_LEVEL;
    return expand(crypto, secret, 'softsnp hash stick', `${product} ${component}`, STICK_VALUE_SIZE);
  });
  return { product, tcb: top, values };
}

/**
 * The stick of an older TCB.
 *
 * Returns  null when any component of `tcb` is above the stick's: that value cannot be computed from it
 */
export function descend(crypto: MachineCrypto, stick: Stick, tcb: TcbParts): Stick | null {
  if (!tcbAtMost(tcb, stick.tcb, stick.product)) {
    return null;
  }
  const reached = { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
  const values = tcbComponents(stick.product).map((component, i) => {
    reached[component] = tcb[component];
    return walk(crypto, component, stick.values[i]!, stick.tcb[component], tcb[component]);
  });
  return { product: stick.product, tcb: reached, values };
}

function walk(
  crypto: MachineCrypto,
  component: string,
  value: Uint8Array,
  from: number,
  to: number,
): Uint8Array {
  invariant(Number.isInteger(to) && to >= 0, `${component} = ${to} is no security patch level`);
  const prefix = utf8(`step ${component} `);
  let reached: Uint8Array = value.slice();
  for (let level = from; level > to; level--) {
    reached = crypto.sha384(concat(prefix, reached));
  }
  return reached;
}
