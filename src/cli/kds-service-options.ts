// SPDX-License-Identifier: Apache-2.0
/** The options that say how the key service of a host that exec or up runs misbehaves. */
import type { ArgsDef } from 'citty';
import { FaultPlan, type KdsServiceOptions, parseFaultRules, parseRate } from '../kds/index.ts';

export const KDS_ARGS = {
  'kds-fault': {
    type: 'string',
    valueHint: 'RULES',
    description: 'Wrong answers of its key service, such as vcek=500*2,crl=slow: docs/reference/kds-http.md',
  },
  'kds-rate': {
    type: 'string',
    valueHint: 'N/TIME',
    description: '429 beyond this many requests per client and VCEK: 1/10s, or amd for what AMD does',
  },
} as const satisfies ArgsDef;

export type KdsOptions = Required<Pick<KdsServiceOptions, 'faults'>> & Pick<KdsServiceOptions, 'rate'>;

/** Errors   OPTION_INVALID */
export function readKdsOptions(args: {
  readonly 'kds-fault'?: string | undefined;
  readonly 'kds-rate'?: string | undefined;
}): KdsOptions {
  const { 'kds-fault': rules, 'kds-rate': rate } = args;
  return {
    faults: new FaultPlan(rules === undefined ? [] : parseFaultRules(rules)),
    ...(rate === undefined ? {} : { rate: parseRate(rate) }),
  };
}
