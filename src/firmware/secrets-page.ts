// SPDX-License-Identifier: Apache-2.0
import { cpuidFms } from '../abi/product.ts';
import { SECRETS_PAGE_VERSION, SecretsPage } from '../abi/secrets-page.ts';
import type { GuestContext } from './guest-context.ts';
import type { Platform } from './platform.ts';
import { TSC_FACTOR } from './tsc.ts';

/** Layout without TSC_FACTOR, from firmware older than report version 3. */
const SECRETS_PAGE_VERSION_OLD = 2;

/**
 * The page that hands a guest its message keys. [SNP-ABI] "Secrets Page"
 *
 * Differs  which firmware writes which VERSION is not published (docs/limitations.md#secrets-page)
 */
export function secretsPage(platform: Platform, guest: GuestContext): Uint8Array {
  const { family, model, stepping } = platform.chip.cpuid;
  const hasTscFactor = platform.reportVersion >= 3;
  const [vmpck0, vmpck1, vmpck2, vmpck3] = guest.vmpcks;
  return SecretsPage.encode({
    version: hasTscFactor ? SECRETS_PAGE_VERSION : SECRETS_PAGE_VERSION_OLD,
    flags: { imi_en: Number(guest.imiEn) },
    fms: cpuidFms(family, model, stepping),
    gosvw: guest.gosvw,
    vmpck0: vmpck0!,
    vmpck1: vmpck1!,
    vmpck2: vmpck2!,
    vmpck3: vmpck3!,
    tsc_factor: hasTscFactor ? TSC_FACTOR : 0,
  });
}
