// SPDX-License-Identifier: Apache-2.0
/**
 * The key service's URLs, read and written. Whoever sends one controls every character of it, so reading
 * never throws; and whatever its spelling, one thing has one name. [KDS] chapter 4.
 */
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import {
  SPL_PARAMETERS,
  splQuery,
  type TcbComponent,
  type TcbParts,
  tcbComponents,
} from '../abi/tcb-version.ts';
import { HWID_SIZE } from '../keys/index.ts';
import { isZero, toHex } from '../lib/bytes.ts';

/** AMD's service; a softsnp one answers under the same paths. */
export const AMD_KDS = 'https://kdsintf.amd.com';

export type EndorsementPath = 'vcek' | 'vlek';

/** A certificate of one chip and TCB. */
export interface VcekName {
  readonly type: 'vcek';
  readonly product: ProductLine;
  /** Lower-case hexadecimal: 128 digits, on Turin 16. */
  readonly hwid: string;
  readonly tcb: TcbParts;
}

/** The intermediate and the root, or the root's revocation list. */
export interface AuthorityName {
  readonly type: 'cert_chain' | 'crl';
  readonly path: EndorsementPath;
  readonly product: ProductLine;
}

/** What a cloud provider gets with its client certificate. */
export interface VlekName {
  readonly type: 'vlek' | 'hash_sticks';
  readonly product: ProductLine;
  readonly tcb: TcbParts;
}

/** The certificate of a chip's CEK, the key of legacy SEV. */
export interface CekName {
  readonly type: 'cek';
  /** As in a VcekName; which product line the chip is of, the id does not say. */
  readonly hwid: string;
}

/** ASK and ARK in legacy SEV's form. */
export interface SevCaName {
  readonly type: 'sev_ca';
  readonly product: ProductLine;
}

/** One thing the service has. */
export type KdsName = VcekName | AuthorityName | VlekName | CekName | SevCaName;

/** Why a request target names nothing: 404 for what does not exist, 400 for a name that is malformed. */
export interface KdsRefusal {
  readonly status: 400 | 404;
  readonly why: string;
}

/** A VCEK's target has some 215 characters; nothing sensible is longer than this. */
const MAX_TARGET_LENGTH = 512;

const CHIP_ID_DIGITS = 128;

const refuse = (status: 400 | 404, why: string): KdsRefusal => ({ status, why });

/**
 * What a request target (path and query, as on the request line) names.
 *
 * Percent-encoding is refused and dot segments are ordinary unknown names: nothing is decoded, so nothing
 * can mean one thing here and another thing to a proxy in front.
 *
 * Source   [KDS] chapter 4; 404 for a full-length Turin id as users report it
 */
export function parseKdsTarget(target: string): KdsName | KdsRefusal {
  if (target.length > MAX_TARGET_LENGTH) {
    return refuse(400, `a target of more than ${MAX_TARGET_LENGTH} characters`);
  }
  if (/[^\w\-./?=&]/.test(target)) {
    return refuse(400, 'a character that no name here has; percent-encoding is not needed either');
  }
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  const query = at < 0 ? null : target.slice(at + 1);
  const legacy = parseLegacy(path, query);
  if (legacy !== null) {
    return legacy;
  }
  const segments = path.split('/');
  const [root, kind, version, line, resource] = segments;
  const product = PRODUCT_LINES.find((known) => known === line);
  if (segments.length !== 5 || root !== '' || version !== 'v1' || (kind !== 'vcek' && kind !== 'vlek')) {
    return refuse(404, 'no such resource');
  }
  if (product === undefined) {
    return refuse(404, 'no such product line');
  }
  if (resource === 'cert_chain' || resource === 'crl') {
    return query === null
      ? { type: resource, path: kind, product }
      : refuse(400, `${resource} takes no parameters`);
  }
  if (kind === 'vlek') {
    return resource === 'cert' || resource === 'hash_sticks'
      ? withTcb(product, query, (tcb) => ({ type: resource === 'cert' ? 'vlek' : resource, product, tcb }))
      : refuse(404, 'no such resource');
  }
  const hwid = hwidOfDigits(product, resource!);
  return typeof hwid === 'string'
    ? withTcb(product, query, (tcb) => ({ type: 'vcek', product, hwid, tcb }))
    : hwid;
}

/** What is not of one product line's folder; null for any other path. */
function parseLegacy(path: string, query: string | null): KdsName | KdsRefusal | null {
  const cek = /^\/cek\/id\/([^/]+)$/.exec(path)?.[1];
  const line = /^\/developer\/eula\/sev\/ask_ark_([a-z]+)\.cert$/.exec(path)?.[1];
  if (cek === undefined && line === undefined) {
    return null;
  }
  if (cek !== undefined && !/^[0-9a-fA-F]+$/.test(cek)) {
    return refuse(404, 'no such resource');
  }
  if (query !== null) {
    return refuse(400, 'certificates of legacy SEV take no parameters');
  }
  if (cek !== undefined) {
    const hwid = anyHwid(cek.toLowerCase());
    return hwid === null
      ? refuse(400, `the id of a chip has ${CHIP_ID_DIGITS} digits, not ${cek.length}`)
      : { type: 'cek', hwid };
  }
  const product = PRODUCT_LINES.find((known) => known.toLowerCase() === line);
  return product === undefined ? refuse(404, 'no such product line') : { type: 'sev_ca', product };
}

/** SEV_GET_ID2 gives the whole CHIP_ID of every product line, of which Turin's has eight bytes and zeros. */
function anyHwid(digits: string): string | null {
  const short = 2 * HWID_SIZE.Turin;
  if (digits.length === short) {
    return digits;
  }
  if (digits.length !== CHIP_ID_DIGITS) {
    return null;
  }
  return /^0*$/.test(digits.slice(short)) ? digits.slice(0, short) : digits;
}

export const isRefusal = (parsed: KdsName | KdsRefusal): parsed is KdsRefusal => 'status' in parsed;

function hwidOfDigits(product: ProductLine, digits: string): string | KdsRefusal {
  const expected = 2 * HWID_SIZE[product];
  if (!/^[0-9a-fA-F]+$/.test(digits)) {
    return refuse(404, 'no such resource');
  }
  if (digits.length === expected) {
    return digits.toLowerCase();
  }
  return digits.length === CHIP_ID_DIGITS
    ? refuse(404, `the id of a ${product} chip has ${expected} digits here, not the whole CHIP_ID`)
    : refuse(400, `the id of a ${product} chip has ${expected} digits, not ${digits.length}`);
}

function withTcb(
  product: ProductLine,
  query: string | null,
  name: (tcb: TcbParts) => KdsName,
): KdsName | KdsRefusal {
  const components = tcbComponents(product);
  const tcb = { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
  const seen = new Set<TcbComponent>();
  for (const pair of (query ?? '').split('&')) {
    const [key = '', value = '', ...more] = pair.split('=');
    const component = components.find((known) => SPL_PARAMETERS[known] === key);
    if (component === undefined) {
      const wanted = components.map((known) => SPL_PARAMETERS[known]).join(', ');
      return refuse(400, `${product} takes exactly the parameters ${wanted}`);
    }
    if (seen.has(component)) {
      return refuse(400, `${key} is given twice`);
    }
    seen.add(component);
    if (!/^[0-9]{1,3}$/.test(value) || Number(value) > 255 || more.length > 0) {
      return refuse(400, `${key} is not a number from 0 to 255`);
    }
    tcb[component] = Number(value);
  }
  const missing = components.find((component) => !seen.has(component));
  return missing === undefined ? name(tcb) : refuse(400, `${SPL_PARAMETERS[missing]} is missing`);
}

/**
 * The one target of a name: what clients send, and what caches and limits know it by.
 *
 * Shape    lower-case id; fmc, bl, tee, snp, ucode in this order with at least two digits, as AMD's
 *          publication and most clients write them
 */
export function formatKdsTarget(name: KdsName): string {
  switch (name.type) {
    case 'cert_chain':
    case 'crl':
      return `/${name.path}/v1/${name.product}/${name.type}`;
    case 'vcek':
      return `/vcek/v1/${name.product}/${name.hwid}?${splQuery(name.tcb, name.product)}`;
    case 'vlek':
      return `/vlek/v1/${name.product}/cert?${splQuery(name.tcb, name.product)}`;
    case 'hash_sticks':
      return `/vlek/v1/${name.product}/hash_sticks?${splQuery(name.tcb, name.product)}`;
    case 'cek':
      return `/cek/id/${name.hwid}`;
    case 'sev_ca':
      return `/developer/eula/sev/ask_ark_${name.product.toLowerCase()}.cert`;
  }
}

/**
 * The digits by which the service knows the chip of a CHIP_ID.
 *
 * Shape    chipId 64 bytes, as in reports
 * Returns  null for an id that no chip of the product line has: all zero (masked), or with more than the
 *          eight bytes of Turin
 */
export function hwidOfChipId(product: ProductLine, chipId: Uint8Array): string | null {
  const size = HWID_SIZE[product];
  return isZero(chipId.subarray(0, size)) || !isZero(chipId.subarray(size))
    ? null
    : toHex(chipId.subarray(0, size));
}

/** What people call a name: in logs, fault plans and messages. */
export type ResourceLabel =
  | 'vcek'
  | 'vcek-chain'
  | 'vcek-crl'
  | 'vlek-chain'
  | 'vlek-crl'
  | 'vlek-cert'
  | 'hash-sticks'
  | 'cek'
  | 'sev-ca';

export const RESOURCE_LABELS: readonly ResourceLabel[] = Object.freeze([
  'vcek',
  'vcek-chain',
  'vcek-crl',
  'vlek-chain',
  'vlek-crl',
  'vlek-cert',
  'hash-sticks',
  'cek',
  'sev-ca',
]);

export function resourceLabel(name: KdsName): ResourceLabel {
  switch (name.type) {
    case 'vcek':
      return 'vcek';
    case 'vlek':
      return 'vlek-cert';
    case 'hash_sticks':
      return 'hash-sticks';
    case 'cert_chain':
      return `${name.path}-chain`;
    case 'crl':
      return `${name.path}-crl`;
    case 'cek':
      return 'cek';
    case 'sev_ca':
      return 'sev-ca';
  }
}
