// SPDX-License-Identifier: Apache-2.0
/** Why a verifier's verdict differs from softsnp's; each id is a heading of docs/interop-verifiers.md. */
import type { Peer } from './peers.ts';

export interface Explanation {
  readonly id: string;
  /** What the other verifier does where softsnp does the opposite. */
  readonly peerAccepts: boolean;
  readonly cases: RegExp;
}

const accepts = (id: string, cases: RegExp): Explanation => ({ id, peerAccepts: true, cases });
const refuses = (id: string, cases: RegExp): Explanation => ({ id, peerAccepts: false, cases });

/** Tried in order; a disagreement that none fits, and one that fits nothing, fail the comparison. */
export const EXPLANATIONS: Readonly<Record<Peer['id'], readonly Explanation[]>> = {
  'go-sev-guest': [
    refuses('check-turin', /turin/),
    refuses(
      'check-genoa-without-stepping',
      /genoa\/good-v2|genoa\/report-v3-without-cpuid-told|report-v2-genoa/,
    ),
    refuses('check-provisional-firmware', /confidential-containers-trustee\/report-v2-milan/),
    accepts('check-product-of-the-caller', /milan\/report-v3-without-cpuid$/),
    accepts('check-mitigation-vectors', /report-reserved-(1f8|200)$/),
    accepts('check-launch-tcb', /report-launch-tcb-above-current/),
    accepts('check-authorities-are-trusted', /\/(ask|ark)-/),
    accepts('check-leaf-profile', /\/leaf-/),
    accepts('check-encodings', /\/der-/),
    accepts('check-table', /\/table-/),
  ],
  snpguest: [
    refuses('snpguest-masked-chip-id', /report-v2-milan-vlek-affb92f91b8f/),
    refuses('snpguest-unknown-cpu', /report-v3-without-cpuid-told/),
    refuses('snpguest-turin-version-2', /turin\/good-v2/),
    refuses('snpguest-root-of-the-folder', /-in-evidence|ark-signed-by-another|ark-pss-salt-32-as-48/),
    accepts('snpguest-root', /\/root-/),
    accepts('snpguest-chip-id', /\/chip-|-hwid|vlek-(empty|no)-csp/),
    accepts('snpguest-key-kind', /-claimed-as-|report-signing-key/),
    accepts(
      'snpguest-report-form',
      /report-(version-|signature-algo|key-info|reserved-tail|policy-bit|launch-tcb|committed-)/,
    ),
    accepts('snpguest-product', /report-cpu-of-|report-v.-told-/),
    accepts('snpguest-policy', /report-debug/),
    accepts('snpguest-dates', /(ark|ask|leaf|vlek)-(expired|not-yet-valid|after-last|before-first)/),
    accepts('snpguest-authorities', /\/(ask|ark)-|leaf-under-|leaf-issuer|leaf-pss|leaf-pkcs1/),
    accepts('snpguest-leaf-profile', /\/leaf-/),
    accepts('snpguest-encodings', /\/der-/),
  ],
  tinfoil: [
    refuses('tinfoil-mitigation-vectors', /genoa\/good-v5|report-v5-genoa/),
    refuses('tinfoil-masked-chip-id', /good-masked-chip-id/),
    refuses('tinfoil-product-of-the-caller', /report-v3-without-cpuid-told/),
    accepts('tinfoil-versions', /report-version-/),
    accepts('tinfoil-length-and-padding', /report-trailing-|signature-.-padding/),
    accepts('tinfoil-launch-tcb', /report-launch-tcb-above-current/),
  ],
};
