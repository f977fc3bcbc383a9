// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev for clients outside the modelled machine. The ccp driver (kvm/dev-sev.ts) judges and executes
 * every command in the memory of a process of the modelled host; here the client's structures are carried
 * there and back, so that each pointer faults there exactly if it faults for the client.
 *
 * Source   [DEVICES] "/dev/sev (host)"; [LINUX-UAPI] linux/psp-sev.h
 */
import {
  SEV_ISSUE_CMD,
  SevIssueCmd,
  SevUserCmd,
  SevUserDataGetId,
  SevUserDataGetId2,
  SevUserDataPdhCertExport,
  SevUserDataPekCertImport,
  SevUserDataPekCsr,
  SevUserDataSnpVlekLoad,
  SevUserDataStatus,
} from '../../abi/dev-sev.ts';
import { Errno } from '../../abi/errno.ts';
import { SevDataSnpConfig, SevUserDataSnpStatus, WrappedVlekHashstick } from '../../abi/snp-commands.ts';
import { type Uaddr, uaddr } from '../../lib/addresses.ts';
import { readU32, readU64, writeU64 } from '../../lib/bytes.ts';
import { invariant } from '../../lib/errors.ts';
import type { CallerMemory } from '../../os/process-memory.ts';

/** What carrying needs of a process of the modelled host. */
export interface SevProcess {
  mmap(size: number): Uaddr;
  read(at: Uaddr, length: number): Uint8Array | null;
  write(at: Uaddr, data: Uint8Array): boolean;
  openDevSev(mode: { readonly write: boolean }): number;
  close(fd: number): number;
  ioctl(fd: number, nr: number, arg: bigint): number;
}

/** What becomes of one SEV_ISSUE_CMD. */
export interface SevAnswer {
  /** 0 or -errno. */
  readonly ret: number;
  /** What replaces the caller's structure; null leaves it as it is. */
  readonly argument: Uint8Array | null;
}

/** A pointer inside a structure. */
interface Blob {
  /** Offset of the pointer. */
  readonly address: number;
  /** Offset of the length, or a length that is always the same. */
  readonly length: { readonly at: number } | number;
}

/** What `data` points at. The driver reads the blobs of a structure that goes in, and fills the others. */
interface DataShape {
  readonly size: number;
  readonly copied: 'in' | 'out' | 'both';
  readonly blobs: readonly Blob[];
}

const shape = (
  { size }: { readonly size: number },
  copied: DataShape['copied'],
  ...blobs: readonly Blob[]
): DataShape => ({ size, copied, blobs });

/** By command; null: the driver never looks at `data`. */
const SHAPES: ReadonlyMap<number, DataShape | null> = new Map([
  [SevUserCmd.SEV_FACTORY_RESET, null],
  [SevUserCmd.SEV_PLATFORM_STATUS, shape(SevUserDataStatus, 'out')],
  [SevUserCmd.SEV_PEK_GEN, null],
  [SevUserCmd.SEV_PEK_CSR, shape(SevUserDataPekCsr, 'both', { address: 0, length: { at: 8 } })],
  [SevUserCmd.SEV_PDH_GEN, null],
  [
    SevUserCmd.SEV_PDH_CERT_EXPORT,
    shape(
      SevUserDataPdhCertExport,
      'both',
      { address: 0, length: { at: 8 } },
      { address: 12, length: { at: 20 } },
    ),
  ],
  [
    SevUserCmd.SEV_PEK_CERT_IMPORT,
    shape(
      SevUserDataPekCertImport,
      'in',
      { address: 0, length: { at: 8 } },
      { address: 12, length: { at: 20 } },
    ),
  ],
  [SevUserCmd.SEV_GET_ID, shape(SevUserDataGetId, 'out')],
  [SevUserCmd.SEV_GET_ID2, shape(SevUserDataGetId2, 'both', { address: 0, length: { at: 8 } })],
  [SevUserCmd.SNP_PLATFORM_STATUS, shape(SevUserDataSnpStatus, 'out')],
  [SevUserCmd.SNP_COMMIT, null],
  [SevUserCmd.SNP_SET_CONFIG, shape(SevDataSnpConfig, 'in')],
  [
    SevUserCmd.SNP_VLEK_LOAD,
    shape(SevUserDataSnpVlekLoad, 'in', { address: 8, length: WrappedVlekHashstick.size }),
  ],
]);

/** SEV_FW_BLOB_MAX_SIZE: the driver refuses a longer blob before it looks at it, and fills no longer one. */
const BLOB_MAX_SIZE = 0x4000;

/** Places in the one mapping of the process: the argument, what `data` points at, and up to two blobs. */
const ARGUMENT_AT = 0;
const DATA_AT = 64;
const BLOBS_AT = 4096;
const MAPPING_SIZE = BLOBS_AT + 2 * BLOB_MAX_SIZE;

const EMPTY = new Uint8Array(0);
/** Not null, and mapped nowhere. */
const NOWHERE = 1n;

export class SevDevice {
  readonly #process: SevProcess;
  readonly #mapping: Uaddr;

  /** Nobody else may use what this maps and opens in the process. */
  constructor({ process }: { readonly process: SevProcess }) {
    this.#process = process;
    this.#mapping = process.mmap(MAPPING_SIZE);
  }

  /** A descriptor in the modelled process, or -errno. Write permission decides what it may command. */
  open(write: boolean): number {
    return this.#process.openDevSev({ write });
  }

  close(fd: number): void {
    this.#process.close(fd);
  }

  /** Any ioctl but SEV_ISSUE_CMD: no argument is looked at. */
  otherIoctl(fd: number, nr: number): number {
    return this.#process.ioctl(fd, nr, 0n);
  }

  /**
   * One SEV_ISSUE_CMD, from after the copy of its argument.
   *
   * Shape    argument: the 16 bytes of SevIssueCmd
   */
  issueCmd(fd: number, memory: CallerMemory, argument: Uint8Array): SevAnswer {
    const { cmd, data, error } = SevIssueCmd.decodeLoose(argument);
    const dataShape = SHAPES.get(cmd);
    const given = dataShape ? this.#carryIn(memory, dataShape, data) : null;
    const pointer = given !== null ? this.#at(DATA_AT) : data === 0n ? 0n : NOWHERE;
    this.#write(ARGUMENT_AT, SevIssueCmd.encode({ cmd, data: pointer, error }));
    const result = this.#process.ioctl(fd, SEV_ISSUE_CMD, this.#at(ARGUMENT_AT));
    const delivered = !dataShape || given === null || this.#carryOut(memory, dataShape, data, given, result);
    const ret = delivered ? result : -Errno.EFAULT;
    if (dataShape === undefined) {
      return { ret, argument: null };
    }
    const written = argument.slice();
    SevIssueCmd.set(written, 'error', SevIssueCmd.get(this.#read(ARGUMENT_AT, SevIssueCmd.size), 'error'));
    return { ret, argument: written };
  }

  /** Puts the client's structure and blobs into the process; null when it has no structure there. */
  #carryIn(memory: CallerMemory, dataShape: DataShape, data: bigint): Uint8Array | null {
    if (data === 0n) {
      return null;
    }
    if (dataShape.copied === 'out') {
      const room = new Uint8Array(dataShape.size);
      this.#write(DATA_AT, room);
      return room;
    }
    const given = memory.read(data, dataShape.size);
    if (!(given instanceof Uint8Array)) {
      return null;
    }
    const carried = given.slice();
    for (const [i, blob] of dataShape.blobs.entries()) {
      if (readU64(given, blob.address) !== 0n) {
        const place = BLOBS_AT + i * BLOB_MAX_SIZE;
        const bytes = blobGiven(memory, dataShape, given, blob);
        this.#write(place, bytes ?? EMPTY);
        writeU64(carried, blob.address, bytes === null ? NOWHERE : this.#at(place));
      }
    }
    this.#write(DATA_AT, carried);
    return given;
  }

  /** Gives the client what the driver wrote: structure first, then blobs. False when one of them faults. */
  #carryOut(
    memory: CallerMemory,
    dataShape: DataShape,
    data: bigint,
    given: Uint8Array,
    result: number,
  ): boolean {
    // Lengths come back from a firmware that refused, too; a structure that is output only does not.
    const wrote = result === 0 || (result === -Errno.EIO && dataShape.copied === 'both');
    if (dataShape.copied === 'in' || !wrote) {
      return true;
    }
    const returned = this.#read(DATA_AT, dataShape.size);
    for (const { address } of dataShape.blobs) {
      writeU64(returned, address, readU64(given, address));
    }
    if (memory.write(data, returned) !== null) {
      return false;
    }
    const rooms = dataShape.blobs.map((blob) =>
      readU64(given, blob.address) === 0n ? 0 : Math.min(lengthOf(blob, given), BLOB_MAX_SIZE),
    );
    // One buffer left out makes it a question for the lengths, and the driver fills none.
    return (
      rooms.includes(0) ||
      dataShape.blobs.every((blob, i) => {
        const size = Math.min(rooms[i]!, lengthOf(blob, returned));
        const bytes = this.#read(BLOBS_AT + i * BLOB_MAX_SIZE, size);
        return memory.write(readU64(given, blob.address), bytes) === null;
      })
    );
  }

  #at(offset: number): Uaddr {
    return uaddr(this.#mapping + BigInt(offset));
  }

  #write(offset: number, bytes: Uint8Array): void {
    invariant(this.#process.write(this.#at(offset), bytes), 'the process writes its own memory');
  }

  #read(offset: number, length: number): Uint8Array {
    const bytes = this.#process.read(this.#at(offset), length);
    invariant(bytes !== null, 'the process reads its own memory');
    return bytes;
  }
}

/** What lies at a pointer before the command: null where that faults, zeros where the driver is to fill it. */
function blobGiven(
  memory: CallerMemory,
  { copied }: DataShape,
  given: Uint8Array,
  blob: Blob,
): Uint8Array | null {
  const length = lengthOf(blob, given);
  if (copied === 'both') {
    // Whatever is not filled is copied out as well: another client's bytes must not be there.
    return new Uint8Array(Math.min(length, BLOB_MAX_SIZE));
  }
  if (length > BLOB_MAX_SIZE) {
    // The driver refuses the length before it looks.
    return EMPTY;
  }
  const bytes = memory.read(readU64(given, blob.address), length);
  return bytes instanceof Uint8Array ? bytes : null;
}

function lengthOf({ length }: Blob, structure: Uint8Array): number {
  return typeof length === 'number' ? length : readU32(structure, length.at);
}
