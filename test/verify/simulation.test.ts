// SPDX-License-Identifier: Apache-2.0
/**
 * A host that commits firmware, sets its reported TCB, swaps keys and renews its blob, in any order and with faults in
 * between, and a guest that fetches report and blob meanwhile. The verifier must accept exactly what fits together and
 * is whole. Each run follows from its seed; SOFTSNP_LONG=1 runs thirty thousand.
 */
import { describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeTcb, type TcbParts } from '../../src/abi/tcb-version.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { explain, parsePolicy, VerifyCache } from '../../src/verify/index.ts';
import { type Draw, drawOf } from './draw.ts';
import { AT_MS, crypto, errorsOf, flipped, forge, judge, LONG, say } from './soft.ts';

const SEEDS = LONG ? 30_000 : 300;

const milan = forge('Milan');
const other = forge('Milan', 2);
const trust = [milan.authority.ark];

/** Firmware that is installed one after the other. */
const TCBS: readonly TcbParts[] = [22, 23, 24, 25].map((snp) => ({ ...milan.tcb, snp }));
const KINDS = ['VCEK', 'VLEK'] as const;
type Kind = (typeof KINDS)[number];

/** What the host's firmware and its certificate blob stand at. */
interface State {
  readonly tcb: number;
  readonly kind: Kind;
}

const nameOf = ({ tcb, kind }: State): string => `${kind} ${tcb}`;

interface Made {
  readonly report: Uint8Array;
  readonly blob: Uint8Array;
}

// Signed once: what is random is when which of them is met.
const MADE: ReadonlyMap<string, Made> = new Map(
  TCBS.flatMap((parts, tcb) =>
    KINDS.map((kind) => {
      const word = encodeTcb(parts, 'Milan');
      const fields = { reported_tcb: word, committed_tcb: word, current_tcb: word, launch_tcb: word };
      const [intermediate, root] = milan.chain(kind);
      return [
        nameOf({ tcb, kind }),
        {
          report: milan.report({ kind, fields, keyTcb: parts }),
          blob: encodeCertificateTable([
            { guid: kind === 'VCEK' ? VCEK_GUID : VLEK_GUID, data: milan.leaf(kind, { tcb: parts }) },
            { guid: ASK_GUID, data: intermediate! },
            { guid: ARK_GUID, data: root! },
          ]),
        },
      ] as const;
    }),
  ),
);

const blobOfAnotherHost = encodeCertificateTable([
  { guid: VCEK_GUID, data: other.leaf() },
  { guid: ASK_GUID, data: milan.authority.ask },
  { guid: ARK_GUID, data: milan.authority.ark },
]);

interface Host {
  firmware: State;
  /** What the blob was made for; null when a fault has left something else there. */
  blobFor: State | null;
  blob: Uint8Array;
}

/** Each changes the host as a management tool, an operator or a crash does. */
const EVENTS: readonly ((host: Host, draw: Draw) => void)[] = [
  // SNP_COMMIT or SNP_SET_CONFIG: the key changes, the blob does not.
  (host, draw) => {
    host.firmware = { ...host.firmware, tcb: draw(TCBS.length) };
  },
  // SNP_VLEK_LOAD, or the VLEK taken away.
  (host, draw) => {
    host.firmware = { ...host.firmware, kind: KINDS[draw(2)]! };
  },
  // The tool renews the blob.
  (host) => {
    host.blobFor = host.firmware;
    host.blob = MADE.get(nameOf(host.firmware))!.blob;
  },
  // It is cut short by a crash.
  (host, draw) => {
    host.blob = host.blob.subarray(0, draw(host.blob.length));
    host.blobFor = null;
  },
  // A bit of it falls over.
  (host, draw) => {
    host.blob = flipped(host.blob, draw(8 * Math.max(1, host.blob.length)));
    host.blobFor = null;
  },
  // Somebody copies that of another host.
  (host) => {
    host.blob = blobOfAnotherHost;
    host.blobFor = null;
  },
];

const policy = parsePolicy({ provisional_firmware: 'forbidden' });

describe('a host that changes while guests ask', () => {
  it(`is believed exactly when report and blob fit, in ${SEEDS} runs`, () => {
    const cache = new VerifyCache();
    const counts = { accepted: 0, refused: 0 };
    for (let seed = 0; seed < SEEDS; seed++) {
      const draw = drawOf(seed);
      const firmware = { tcb: draw(TCBS.length), kind: KINDS[draw(2)]! };
      const host: Host = { firmware, blobFor: firmware, blob: MADE.get(nameOf(firmware))!.blob };
      for (let step = 0; step < 3; step++) {
        // Mostly an orderly change, sometimes a fault; and whatever happens, the tool may come after it or not.
        EVENTS[draw(4) === 0 ? draw(EVENTS.length) : draw(3)]!(host, draw);
        if (draw(2) === 0) {
          EVENTS[2]!(host, draw);
        }
        const made = MADE.get(nameOf(host.firmware))!;
        // On its way the report may be damaged as well.
        const isDamaged = draw(8) === 0;
        const report = isDamaged ? flipped(made.report, draw(8 * made.report.length)) : made.report;
        const evidence = { report, table: host.blob };
        const result = judge(evidence, { trust, cache, policy, atMs: AT_MS });
        const fits = host.blobFor !== null && nameOf(host.blobFor) === nameOf(host.firmware);
        if (host.blobFor !== null) {
          expect(result.ok, `seed ${seed}, step ${step}: ${errorsOf(result)}`).toBe(fits && !isDamaged);
        } else if (result.ok) {
          // A bit that fell over where nobody needs to read: the entry of the root, which the verifier has itself.
          expect(result.chain.leaf!.endorsement!.tcb).toEqual({ ...TCBS[host.firmware.tcb] });
          expect(isDamaged).toBe(false);
        }
        counts[result.ok ? 'accepted' : 'refused'] += 1;
        if (!result.ok && draw(64) === 0) {
          expect(explain(evidence, result, crypto).every(({ cure }) => cure.length > 0)).toBe(true);
        }
      }
    }
    say(`${SEEDS} runs: ${counts.accepted} accepted, ${counts.refused} refused`);
    expect(counts.accepted).toBeGreaterThan(SEEDS / 2);
    expect(counts.refused).toBeGreaterThan(SEEDS / 2);
  });
});
