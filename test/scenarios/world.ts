// SPDX-License-Identifier: Apache-2.0
/** A seeded host on virtual time for scenarios, with its steps at hand. */
import { SnpExtReportReq, SnpGuestIoctl } from '../../src/abi/dev-sev-guest.ts';
import type { ProductLine } from '../../src/abi/product.ts';
import type { BlobSource } from '../../src/certs/blob.ts';
import { cpuSigOf, defaultImage, parseOvmf, planLaunch } from '../../src/launch/index.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import type { TraceEvent } from '../../src/lib/trace.ts';
import { type Guest, Host, newHostState } from '../../src/machine/index.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';

export class World {
  readonly clock = new VirtualClock(Date.UTC(2026, 0, 1));
  readonly steps: TraceEvent[] = [];
  readonly log: string[] = [];
  readonly host: Host;
  readonly sleep = (ms: number): void => this.clock.advance(ms);

  constructor(product: ProductLine = 'Milan', seed = 1) {
    const crypto = nodeCrypto({ deterministic: false });
    const random = seededRandom(seed);
    this.host = new Host(
      {
        ...{ crypto, random, clock: this.clock },
        trace: (event) => this.steps.push(event),
        log: (line) => this.log.push(line),
      },
      newHostState(crypto, random, product, { seed }),
    );
  }

  /** A guest whose system is up. */
  guest(name: string, blob: BlobSource | null, vcpus = 1): Guest {
    const plan = planLaunch({ ovmf: parseOvmf(defaultImage()), vcpus, cpuSig: cpuSigOf('EPYC-Milan-v2') });
    const answer = this.host.launch({ name, plan, memoryBytes: 64 * 2 ** 20, policy: 0x30000n, blob });
    if (!answer.ok) {
      throw new TypeError(`launch refused: ${answer.step}, errno ${answer.errno}`);
    }
    const boot = answer.guest.boot(this.sleep);
    if (boot.kind !== 'done') {
      throw new TypeError(`boot ended: ${JSON.stringify(boot)}`);
    }
    return answer.guest;
  }

  /** Names of the trace steps of one guest since the last call. */
  takeSteps(guest: string): TraceEvent[] {
    const taken = this.steps.filter((step) => step.guest === guest);
    this.steps.length = 0;
    return taken;
  }
}

/** SNP_GET_EXT_REPORT as snpguest asks, with room for `certsLen` bytes of certificates. */
export function extReportCall(certsLen = 0x4000) {
  return {
    cmd: SnpGuestIoctl.SNP_GET_EXT_REPORT,
    msg_version: 1,
    resp_data: true,
    req_data: SnpExtReportReq.encode({
      data: { user_data: new Uint8Array(64).fill(7), vmpl: 0, rsvd: new Uint8Array(28) },
      certs_address: 0x7000n,
      certs_len: certsLen,
    }),
  };
}
