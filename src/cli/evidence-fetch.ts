// SPDX-License-Identifier: Apache-2.0
/** What belongs to a report and can be had from a key service: VCEK, chain and revocation list. */
import type { ProductLine } from '../abi/product.ts';
import { decodeTcb } from '../abi/tcb-version.ts';
import type { KdsClient } from '../kds/client.ts';
import { hwidOfChipId } from '../kds/url.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { decodeReport, productOfReport, type Report, wantedKind } from '../verify/report.ts';
import { type Gathered, NOTHING } from './evidence-files.ts';

export interface Fetched extends Gathered {
  /** What could not be had, and why. */
  readonly failures: readonly string[];
}

/**
 * Fetches what a report needs.
 *
 * Returns  what came, each piece judged by the client, and what did not with the reason; a VLEK certificate
 *          is not to be had from a key service
 */
export async function fetchEvidence(
  client: KdsClient,
  bytes: Uint8Array,
  told: ProductLine | null,
): Promise<Fetched> {
  const { report } = decodeReport(bytes);
  if (report === null) {
    return { ...NOTHING, failures: [] };
  }
  const own = productOfReport(report) ?? told;
  // A version 2 report names no product line; a chip of the other line is not known there.
  const lines: readonly ProductLine[] = own === null ? ['Milan', 'Genoa'] : [own];
  const failures: string[] = [];
  for (const product of lines) {
    const fetched = await fetchLine(client, report, product);
    if (fetched.certificates.length > 0) {
      return fetched;
    }
    failures.push(...fetched.failures);
  }
  return { ...NOTHING, failures };
}

async function fetchLine(client: KdsClient, report: Report, product: ProductLine): Promise<Fetched> {
  const path = wantedKind(report) === 'VLEK' ? 'vlek' : 'vcek';
  const failures: string[] = [];
  const had = async <T>(wanted: Promise<T>): Promise<T | null> => {
    try {
      return await wanted;
    } catch (error) {
      if (error instanceof EnvironmentError || error instanceof InputError) {
        failures.push(error.message);
        return null;
      }
      throw error;
    }
  };
  const certificates: Uint8Array[] = [];
  if (path === 'vcek') {
    const hwid = hwidOfChipId(product, report.chip_id);
    if (hwid === null) {
      return { ...NOTHING, failures: [`CHIP_ID is masked, or not of a ${product} chip`] };
    }
    const leaf = await had(client.vcek(product, hwid, decodeTcb(report.reported_tcb, product)));
    if (leaf === null) {
      return { ...NOTHING, failures };
    }
    certificates.push(leaf);
  }
  const chain = await had(client.chain(path, product));
  const crl = await had(client.crl(path, product));
  return {
    certificates: [...certificates, ...(chain === null ? [] : [chain.intermediate, chain.ark])],
    crls: crl === null ? [] : [crl],
    table: null,
    failures,
  };
}
