// SPDX-License-Identifier: Apache-2.0
/**
 * The certificate service: steps 3 and 6 of an attestation request.
 *
 * The blob stays under a shared lock from before it is read until KVM_RUN has come back with -EINTR, that
 * is until the firmware has made the report. Whoever changes the endorsement key holds the exclusive lock
 * meanwhile, so a guest never gets certificates of another key than the one that signed.
 *
 * Source   [KVM-CERTS-V7] "KVM_SEV_SNP_ENABLE_REQ_CERTS", "KVM_EXIT_SNP_REQ_CERTS"
 */
import { SEV_FW_BLOB_MAX_SIZE } from '../abi/cert-table.ts';
import { Errno, errnoName } from '../abi/errno.ts';
import { type BlobLock, type BlobSource, tableSize, validateBlob } from '../certs/index.ts';
import { type Gpa, gpa as gpaOf, PAGE_SIZE } from '../lib/addresses.ts';
import type { Clock } from '../lib/clock.ts';
import type { Tracer, TraceValue } from '../lib/trace.ts';

export interface CertificateServiceOptions {
  readonly blob: BlobSource;
  /** Writes into memory the guest shares; null or why not. */
  readonly writeShared: (gpa: Gpa, data: Uint8Array) => string | null;
  readonly clock: Clock;
  readonly tracer?: Tracer | undefined;
  readonly onLog?: ((line: string) => void) | undefined;
  /**
   * Largest blob that is read. Linux guests offer at most four pages and can never take more: a larger blob
   * is a mistake of the host, and EIO with a line in its log says so where ENOSPC would send every guest in
   * search of a fifth page.
   */
  readonly maxBlobBytes?: number;
}

/** What goes into kvm_run, and the lock to hold until the request is done. */
export interface CertsAnswer {
  /** 0, ENOSPC, EAGAIN or EIO: the only values KVM takes. */
  readonly ret: number;
  /** Pages needed, for ENOSPC; otherwise as the guest said. */
  readonly npages: bigint;
  /** Only with ret 0. */
  readonly held: HeldCertificates | null;
}

/** Certificates handed to a guest whose report is not made yet. */
export interface HeldCertificates {
  /** Drops the lock; `because` is what KVM_RUN said. A second call changes nothing. */
  release(because: string): void;
}

const TWO_64 = 1n << 64n;
const PAGE = BigInt(PAGE_SIZE);

/** How far a request got. */
interface Outcome {
  readonly ret: number;
  readonly decided: string;
  readonly lock: 'shared' | 'held elsewhere' | 'none';
  readonly blobBytes?: number;
  readonly neededNpages?: number;
}

/** Serves one guest's certificate requests from one blob. */
export class CertificateService {
  readonly #options: CertificateServiceOptions;
  readonly #maxBlobBytes: number;
  /** The blob that was judged last: most requests meet it again. */
  #judged: { readonly bytes: Uint8Array; readonly size: number } | null = null;

  constructor(options: CertificateServiceOptions) {
    this.#options = options;
    this.#maxBlobBytes = options.maxBlobBytes ?? SEV_FW_BLOB_MAX_SIZE;
  }

  /** Answers KVM_EXIT_SNP_REQ_CERTS. The guest chose both numbers; KVM has checked the alignment alone. */
  serve(gpa: bigint, npages: bigint): CertsAnswer {
    const { blob, clock } = this.#options;
    const attempt = blob.tryLockShared();
    if (!('lock' in attempt)) {
      const outcome: Outcome =
        'busy' in attempt
          ? { ret: Errno.EAGAIN, lock: 'held elsewhere', decided: 'the blob is being changed: try again' }
          : { ret: Errno.EIO, lock: 'none', decided: attempt.error };
      return this.#answer(gpa, npages, outcome, null);
    }
    const lockedMs = clock.monotonicMs();
    let outcome: Outcome | null = null;
    try {
      outcome = this.#serveLocked(attempt.lock, gpa, npages);
    } finally {
      if (outcome?.ret !== 0) {
        attempt.lock.release();
      }
    }
    return this.#answer(gpa, npages, outcome, outcome.ret === 0 ? this.#hold(attempt.lock, lockedMs) : null);
  }

  #serveLocked(lock: BlobLock, gpa: bigint, npages: bigint): Outcome {
    const refuse = (decided: string, more: Partial<Outcome> = {}): Outcome => ({
      ret: Errno.EIO,
      lock: 'shared',
      decided,
      ...more,
    });
    const reading = lock.read(this.#maxBlobBytes);
    if ('error' in reading) {
      return refuse(reading.error);
    }
    const { bytes } = reading;
    const judged = this.#judge(bytes);
    if (typeof judged === 'string') {
      return refuse(`${this.#options.blob.name}: ${judged}`, { blobBytes: bytes.length });
    }
    const neededNpages = Math.ceil(judged / PAGE_SIZE);
    const facts = { lock: 'shared', blobBytes: bytes.length, neededNpages } as const;
    if (npages < BigInt(neededNpages)) {
      return { ...facts, ret: Errno.ENOSPC, decided: `${neededNpages} pages needed, ${npages} offered` };
    }
    const unusable =
      gpa + npages * PAGE > TWO_64
        ? 'the range wraps'
        : this.#options.writeShared(gpaOf(gpa), judged === bytes.length ? bytes : bytes.subarray(0, judged));
    if (unusable !== null) {
      return refuse(`cannot write the table to guest address 0x${gpa.toString(16)}: ${unusable}`, facts);
    }
    return { ...facts, ret: 0, decided: `locked, read and written: ${judged} bytes` };
  }

  /** Bytes of the table in a blob, or what is wrong with it. */
  #judge(bytes: Uint8Array): number | string {
    if (this.#judged !== null && sameBytes(this.#judged.bytes, bytes)) {
      return this.#judged.size;
    }
    const wrong = validateBlob(bytes);
    if (wrong !== null) {
      return wrong;
    }
    this.#judged = { bytes: bytes.slice(), size: tableSize(bytes) };
    return this.#judged.size;
  }

  #hold(lock: BlobLock, lockedMs: number): HeldCertificates {
    const { clock, tracer } = this.#options;
    let held = true;
    return {
      release: (because) => {
        if (!held) {
          return;
        }
        held = false;
        lock.release();
        const heldMs = clock.monotonicMs() - lockedMs;
        tracer?.emit('lock-scope', `drops the shared lock because KVM_RUN returned ${because}`, {
          held_ms: heldMs,
          because,
        });
      },
    };
  }

  #answer(gpa: bigint, npages: bigint, outcome: Outcome, held: HeldCertificates | null): CertsAnswer {
    const { ret, decided, lock, blobBytes, neededNpages } = outcome;
    const { blob, tracer, onLog } = this.#options;
    if (ret === Errno.EIO) {
      onLog?.(`no certificates for the guest: ${decided}`);
    }
    if (tracer !== undefined) {
      const detail: Record<string, TraceValue> = {
        blob: blob.name,
        lock,
        blob_bytes: blobBytes ?? null,
        gpa: `0x${gpa.toString(16)}`,
        npages: `0x${npages.toString(16)}`,
        npages_needed: neededNpages ?? null,
        ret: ret === 0 ? '0' : errnoName(ret),
      };
      tracer.emit('req-certs', decided, detail);
    }
    return { ret, held, npages: ret === Errno.ENOSPC ? BigInt(neededNpages ?? 0) : npages };
  }
}

/** Compares sixteen bytes at a time: this runs over a whole blob for every request. */
function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) {
    return false;
  }
  const x = viewOf(a);
  const y = viewOf(b);
  const words = a.length - (a.length % 16);
  for (let at = 0; at < words; at += 16) {
    const difference =
      (x.getInt32(at, true) ^ y.getInt32(at, true)) |
      (x.getInt32(at + 4, true) ^ y.getInt32(at + 4, true)) |
      (x.getInt32(at + 8, true) ^ y.getInt32(at + 8, true)) |
      (x.getInt32(at + 12, true) ^ y.getInt32(at + 12, true));
    if (difference !== 0) {
      return false;
    }
  }
  for (let at = words; at < a.length; at++) {
    if (a[at] !== b[at]) {
      return false;
    }
  }
  return true;
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
