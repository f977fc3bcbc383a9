// SPDX-License-Identifier: Apache-2.0
/** Certificate blobs that misbehave on demand: what a guest's driver must survive. */
import type { BlobLock, BlobSource } from '../certs/blob.ts';
import { decodeCertificateTable, encodeCertificateTable } from '../certs/table.ts';
import { InputError } from '../lib/errors.ts';

/**
 * What happens to a guest's next requests for certificates.
 *
 * busy       the blob is locked by somebody else: EAGAIN, the guest's driver tries again after 2 s
 * missing    it cannot be read: EIO
 * malformed  it holds no certificate table: EIO
 * grow:N     it has N bytes more, under a GUID nobody knows: ENOSPC where the guest offers too few pages
 */
export interface BlobFault {
  readonly kind: 'busy' | 'missing' | 'malformed' | 'grow';
  /** Bytes, for grow. */
  readonly value: number;
  /** Requests it spoils; null for every one. */
  readonly times: number | null;
}

const FORM = /^certs=(busy|missing|malformed|grow:([0-9]{1,6}))(?:\*([0-9]{1,9}))?$/;

/**
 * certs=FAULT[*TIMES], such as certs=busy*2 or certs=grow:8192.
 *
 * Errors   OPTION_INVALID
 */
export function parseBlobFault(text: string): BlobFault {
  const match = FORM.exec(text);
  const times = match?.[3] === undefined ? null : Number(match[3]);
  if (match === null || times === 0) {
    throw new InputError('OPTION_INVALID', 'not certs=busy|missing|malformed|grow:BYTES[*TIMES]', {
      where: JSON.stringify(text.slice(0, 80)),
    });
  }
  const kind = match[1]!.split(':')[0] as BlobFault['kind'];
  return { kind, value: Number(match[2] ?? 0), times };
}

export function formatBlobFault({ kind, value, times }: BlobFault): string {
  return `certs=${kind}${kind === 'grow' ? `:${value}` : ''}${times === null ? '' : `*${times}`}`;
}

/** The faults of one guest's blob, in the order they were asked for. */
export class BlobFaults {
  #faults: { readonly fault: BlobFault; left: number | null }[] = [];

  constructor(faults: readonly BlobFault[] = []) {
    faults.forEach((fault) => {
      this.add(fault);
    });
  }

  add(fault: BlobFault): void {
    this.#faults.push({ fault, left: fault.times });
  }

  clear(): void {
    this.#faults = [];
  }

  list(): BlobFault[] {
    return this.#faults.map(({ fault, left }) => ({ ...fault, times: left }));
  }

  /** A blob that is `inner` but for the faults. */
  around(inner: BlobSource): BlobSource {
    return {
      name: inner.name,
      tryLockShared: () => {
        const fault = this.#take();
        if (fault?.kind === 'busy') {
          return { busy: true };
        }
        if (fault?.kind === 'missing') {
          return { error: `${inner.name}: missing on demand` };
        }
        const attempt = inner.tryLockShared();
        return fault === null || !('lock' in attempt) ? attempt : { lock: spoiled(attempt.lock, fault) };
      },
    };
  }

  #take(): BlobFault | null {
    const first = this.#faults[0];
    if (first === undefined) {
      return null;
    }
    if (first.left !== null) {
      first.left -= 1;
      if (first.left === 0) {
        this.#faults.shift();
      }
    }
    return first.fault;
  }
}

function spoiled(lock: BlobLock, { kind, value }: BlobFault): BlobLock {
  return {
    read(maxBytes) {
      const reading = lock.read(maxBytes);
      if ('error' in reading) {
        return reading;
      }
      const bytes = kind === 'grow' ? grown(reading.bytes, value) : reading.bytes.map((byte) => ~byte);
      return bytes.length > maxBytes ? { error: `${bytes.length} bytes on demand` } : { bytes };
    },
    release: () => lock.release(),
  };
}

/** Stands for whatever else a host may put into its table. */
const FILLER_GUID = '736f6674-736e-7020-7061-6464696e6721';

function grown(table: Uint8Array, more: number): Uint8Array {
  return encodeCertificateTable([
    ...decodeCertificateTable(table),
    { guid: FILLER_GUID, data: new Uint8Array(Math.max(1, more)) },
  ]);
}
