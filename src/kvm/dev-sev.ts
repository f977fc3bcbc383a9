// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev: the host administrator's ioctl.
 *
 * Source   [DEVICES] "/dev/sev (host)"; [LINUX] drivers/crypto/ccp/sev-dev.c sev_ioctl
 */
import {
  SEV_ISSUE_CMD,
  SEV_MAX,
  SevIssueCmd,
  SevPlatformState,
  SevUserCmd,
  SevUserDataGetId,
  SevUserDataGetId2,
  SevUserDataPdhCertExport,
  SevUserDataPekCertImport,
  SevUserDataPekCsr,
  SevUserDataSnpVlekLoad,
  SevUserDataStatus,
} from '../abi/dev-sev.ts';
import { Errno } from '../abi/errno.ts';
import {
  SevCmd,
  SevDataGetId,
  SevDataPdhCertExport,
  SevDataPekCertImport,
  SevDataPekCsr,
  SevDataSnpCommit,
  SevDataSnpConfig,
  SevDataSnpVlekLoad,
  WrappedVlekHashstick,
} from '../abi/snp-commands.ts';
import { PAGE_SIZE, spaOf } from '../lib/addresses.ts';
import { readU32, writeU32, writeU64 } from '../lib/bytes.ts';
import type { Ccp, PspResult } from './ccp.ts';
import { copyIn } from './copy-user.ts';
import type { KernelFile } from './files.ts';
import type { HostFrames } from './host-frames.ts';
import type { HostProcess } from './host-process.ts';

/** SEV_FW_BLOB_MAX_SIZE: certificates of the legacy commands are no longer. */
const BLOB_MAX_SIZE = 0x4000;
/** KMALLOC_MAX_SIZE. */
const KMALLOC_MAX_SIZE = 4 * 1024 * 1024;

const pagesFor = (size: number): number => Math.ceil(size / PAGE_SIZE);

const BLOB_PAGES = pagesFor(BLOB_MAX_SIZE);

/** A command and where its buffer has the address and the length of each output. */
interface Outputs {
  readonly cmd: number;
  readonly size: number;
  readonly buffers: readonly { readonly addressAt: number; readonly lengthAt: number }[];
}

const GET_ID: Outputs = {
  cmd: SevCmd.SEV_CMD_GET_ID,
  size: SevDataGetId.size,
  buffers: [{ addressAt: SevDataGetId.offsetOf('address'), lengthAt: SevDataGetId.offsetOf('len') }],
};

const PEK_CSR: Outputs = {
  cmd: SevCmd.SEV_CMD_PEK_CSR,
  size: SevDataPekCsr.size,
  buffers: [{ addressAt: SevDataPekCsr.offsetOf('address'), lengthAt: SevDataPekCsr.offsetOf('len') }],
};

const PDH_CERT_EXPORT: Outputs = {
  cmd: SevCmd.SEV_CMD_PDH_CERT_EXPORT,
  size: SevDataPdhCertExport.size,
  buffers: [
    {
      addressAt: SevDataPdhCertExport.offsetOf('pdh_cert_address'),
      lengthAt: SevDataPdhCertExport.offsetOf('pdh_cert_len'),
    },
    {
      addressAt: SevDataPdhCertExport.offsetOf('cert_chain_address'),
      lengthAt: SevDataPdhCertExport.offsetOf('cert_chain_len'),
    },
  ],
};

/** What such a command left behind. */
interface OutputAnswer {
  readonly errno: number;
  /** The lengths it names: needed or written. */
  readonly lengths: readonly number[];
  /** Empty for an output without room, and for one that the RMP keeps. */
  readonly blobs: readonly Uint8Array[];
}

const NOTHING = new Uint8Array(0);

/** A certificate of the caller's: -EINVAL for none or one too long, -EFAULT for one that is not there. */
function copyBlob({ memory }: HostProcess, address: bigint, length: number): Uint8Array | number {
  return address === 0n || length === 0 || length > BLOB_MAX_SIZE
    ? -Errno.EINVAL
    : (memory.read(address, length) ?? -Errno.EFAULT);
}

/** One SEV_ISSUE_CMD on its way. */
interface IssueCmd {
  readonly process: HostProcess;
  readonly data: bigint;
  error: number;
}

export class DevSev implements KernelFile {
  readonly #ccp: Ccp;
  readonly #frames: HostFrames;
  readonly #writable: boolean;

  constructor(ccp: Ccp, frames: HostFrames, writable: boolean) {
    this.#ccp = ccp;
    this.#frames = frames;
    this.#writable = writable;
  }

  release(): void {}

  ioctl(process: HostProcess, nr: number, arg: bigint): number {
    if (!this.#ccp.present) {
      return -Errno.ENODEV;
    }
    if (nr !== SEV_ISSUE_CMD) {
      return -Errno.EINVAL;
    }
    const envelope = process.memory.read(arg, SevIssueCmd.size);
    if (envelope === null) {
      return -Errno.EFAULT;
    }
    const { cmd, data, error } = SevIssueCmd.decodeLoose(envelope);
    if (cmd >= SEV_MAX) {
      return -Errno.EINVAL;
    }
    const op: IssueCmd = { process, data, error };
    const result = this.#command(cmd, op);
    SevIssueCmd.set(envelope, 'error', op.error);
    return process.memory.write(arg, envelope) ? result : -Errno.EFAULT;
  }

  #command(cmd: number, op: IssueCmd): number {
    switch (cmd) {
      case SevUserCmd.SEV_FACTORY_RESET:
        return this.#factoryReset(op);
      case SevUserCmd.SEV_PLATFORM_STATUS:
        return this.#platformStatus(op);
      case SevUserCmd.SEV_PEK_GEN:
        return this.#generate(op, SevCmd.SEV_CMD_PEK_GEN);
      case SevUserCmd.SEV_PDH_GEN:
        return this.#generate(op, SevCmd.SEV_CMD_PDH_GEN);
      case SevUserCmd.SEV_PEK_CSR:
        return this.#pekCsr(op);
      case SevUserCmd.SEV_PDH_CERT_EXPORT:
        return this.#pdhCertExport(op);
      case SevUserCmd.SEV_PEK_CERT_IMPORT:
        return this.#pekCertImport(op);
      case SevUserCmd.SEV_GET_ID:
        return this.#getId(op);
      case SevUserCmd.SEV_GET_ID2:
        return this.#getId2(op);
      case SevUserCmd.SNP_PLATFORM_STATUS:
        return this.#snpPlatformStatus(op);
      case SevUserCmd.SNP_COMMIT:
        return this.#issue(
          op,
          SevCmd.SEV_CMD_SNP_COMMIT,
          SevDataSnpCommit.encode({ length: SevDataSnpCommit.size }),
        );
      case SevUserCmd.SNP_SET_CONFIG:
        return this.#snpSetConfig(op);
      default:
        return this.#snpVlekLoad(op);
    }
  }

  #issue(op: IssueCmd, cmd: number, buffer: Uint8Array | null = null): number {
    return this.#finish(op, this.#ccp.issue(cmd, buffer));
  }

  /** For commands that want legacy SEV up: it is brought up for their length where it is not. */
  #withLegacySev(op: IssueCmd, work: () => number): number {
    if (this.#ccp.sevInitialized) {
      return work();
    }
    const up = this.#finish(op, this.#ccp.legacyInit());
    if (up !== 0) {
      return up;
    }
    const errno = work();
    this.#ccp.endLegacyInit();
    return errno;
  }

  #finish(op: IssueCmd, { errno, status }: PspResult): number {
    op.error = status ?? op.error;
    return errno;
  }

  #factoryReset(op: IssueCmd): number {
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    const status = new Uint8Array(SevUserDataStatus.size);
    const errno = this.#issue(op, SevCmd.SEV_CMD_PLATFORM_STATUS, status);
    if (errno !== 0) {
      return errno;
    }
    const state = SevUserDataStatus.get(status, 'state');
    if (state === SevPlatformState.SEV_STATE_WORKING) {
      return -Errno.EBUSY;
    }
    if (state === SevPlatformState.SEV_STATE_INIT) {
      const down = this.#finish(op, this.#ccp.legacyShutdown());
      if (down !== 0) {
        return down;
      }
    }
    return this.#issue(op, SevCmd.SEV_CMD_FACTORY_RESET);
  }

  #platformStatus(op: IssueCmd): number {
    const status = new Uint8Array(SevUserDataStatus.size);
    const errno = this.#issue(op, SevCmd.SEV_CMD_PLATFORM_STATUS, status);
    if (errno !== 0) {
      return errno;
    }
    return op.process.memory.write(op.data, status) ? 0 : -Errno.EFAULT;
  }

  #generate(op: IssueCmd, cmd: number): number {
    return this.#writable ? this.#withLegacySev(op, () => this.#issue(op, cmd)) : -Errno.EPERM;
  }

  #pekCsr(op: IssueCmd): number {
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    const request = op.process.memory.read(op.data, SevUserDataPekCsr.size);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const { address, length } = SevUserDataPekCsr.decodeLoose(request);
    const room = address === 0n ? 0 : length;
    if (room > BLOB_MAX_SIZE) {
      return -Errno.EFAULT;
    }
    return this.#withLegacySev(op, () => {
      const answer = this.#issueForBuffers(op, PEK_CSR, [room]);
      SevUserDataPekCsr.set(request, 'length', answer.lengths[0]!);
      return this.#copyOut(op, answer, request, [address]);
    });
  }

  #pdhCertExport(op: IssueCmd): number {
    const request = op.process.memory.read(op.data, SevUserDataPdhCertExport.size);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const { pdh_cert_address, pdh_cert_len, cert_chain_address, cert_chain_len } =
      SevUserDataPdhCertExport.decodeLoose(request);
    const addresses = [pdh_cert_address, cert_chain_address];
    const lengths = [pdh_cert_len, cert_chain_len];
    // Any pointer or length left out asks for the lengths of both.
    const rooms = addresses.includes(0n) || lengths.includes(0) ? [0, 0] : lengths;
    if (Math.max(...rooms) > BLOB_MAX_SIZE) {
      return -Errno.EFAULT;
    }
    if (!this.#ccp.sevInitialized && !this.#writable) {
      return -Errno.EPERM;
    }
    return this.#withLegacySev(op, () => {
      const answer = this.#issueForBuffers(op, PDH_CERT_EXPORT, rooms);
      SevUserDataPdhCertExport.set(request, 'pdh_cert_len', answer.lengths[0]!);
      SevUserDataPdhCertExport.set(request, 'cert_chain_len', answer.lengths[1]!);
      return this.#copyOut(op, answer, request, addresses);
    });
  }

  #pekCertImport(op: IssueCmd): number {
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    const request = copyIn(op.process, SevUserDataPekCertImport, op.data);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const pek = copyBlob(op.process, request.pek_cert_address, request.pek_cert_len);
    if (typeof pek === 'number') {
      return pek;
    }
    const oca = copyBlob(op.process, request.oca_cert_address, request.oca_cert_len);
    if (typeof oca === 'number') {
      return oca;
    }
    return this.#withLegacySev(op, () => this.#importCertificates(op, pek, oca));
  }

  #importCertificates(op: IssueCmd, pek: Uint8Array, oca: Uint8Array): number {
    const pages = 2 * BLOB_PAGES;
    const first = this.#frames.alloc(pages);
    if (first === null) {
      return -Errno.ENOMEM;
    }
    const ocaAt = BLOB_PAGES * PAGE_SIZE;
    this.#frames.write(first, 0, pek);
    this.#frames.write(first, ocaAt, oca);
    const command = SevDataPekCertImport.encode({
      pek_cert_address: spaOf(first),
      pek_cert_len: pek.length,
      oca_cert_address: spaOf(first) + BigInt(ocaAt),
      oca_cert_len: oca.length,
    });
    const errno = this.#issue(op, SevCmd.SEV_CMD_PEK_CERT_IMPORT, command);
    this.#frames.free(first, pages);
    return errno;
  }

  #getId(op: IssueCmd): number {
    const { errno, blobs } = this.#issueForBuffers(op, GET_ID, [SevUserDataGetId.size]);
    if (errno !== 0) {
      return errno;
    }
    return op.process.memory.write(op.data, blobs[0]!) ? 0 : -Errno.EFAULT;
  }

  #getId2(op: IssueCmd): number {
    const request = op.process.memory.read(op.data, SevUserDataGetId2.size);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const { address, length } = SevUserDataGetId2.decodeLoose(request);
    const room = address === 0n ? 0 : length;
    if (room > KMALLOC_MAX_SIZE) {
      return -Errno.ENOMEM;
    }
    const answer = this.#issueForBuffers(op, GET_ID, [room]);
    SevUserDataGetId2.set(request, 'length', answer.lengths[0]!);
    return this.#copyOut(op, answer, request, [address]);
  }

  /** Runs a command whose outputs go into pages of the kernel; one without room is not there. */
  #issueForBuffers(op: IssueCmd, { cmd, size, buffers }: Outputs, rooms: readonly number[]): OutputAnswer {
    const command = new Uint8Array(size);
    const places = buffers.map(({ addressAt, lengthAt }, i) => {
      const room = rooms[i]!;
      const first = room === 0 ? null : this.#ccp.allocOutputPages(pagesFor(room));
      if (first !== null) {
        writeU64(command, addressAt, spaOf(first));
      }
      writeU32(command, lengthAt, room);
      return { room, first };
    });
    const isShort = places.some(({ room, first }) => room > 0 && first === null);
    const errno = isShort ? -Errno.ENOMEM : this.#issue(op, cmd, command);
    return {
      errno,
      lengths: buffers.map(({ lengthAt }) => readU32(command, lengthAt)),
      blobs: places.map(({ room, first }) =>
        first === null ? NOTHING : (this.#ccp.takeOutputPages(first, pagesFor(room), room) ?? NOTHING),
      ),
    };
  }

  /** Lengths and outputs go to the caller whatever the firmware said, once it has been asked. */
  #copyOut(
    { process, data }: IssueCmd,
    { errno, lengths, blobs }: OutputAnswer,
    request: Uint8Array,
    addresses: readonly bigint[],
  ): number {
    if (errno === -Errno.ENOMEM) {
      return errno;
    }
    if (!process.memory.write(data, request)) {
      return -Errno.EFAULT;
    }
    const isCopied = blobs.every(
      (blob, i) => blob.length === 0 || process.memory.write(addresses[i]!, blob.subarray(0, lengths[i])),
    );
    return isCopied ? errno : -Errno.EFAULT;
  }

  #snpPlatformStatus(op: IssueCmd): number {
    if (op.data === 0n) {
      return -Errno.EINVAL;
    }
    const { result, bytes } = this.#ccp.platformStatus();
    const errno = this.#finish(op, result);
    if (errno !== 0 || bytes === null) {
      return errno;
    }
    return op.process.memory.write(op.data, bytes) ? 0 : -Errno.EFAULT;
  }

  /** The checks SNP_SET_CONFIG and SNP_VLEK_LOAD begin with. */
  #mayConfigure(op: IssueCmd): number {
    if (op.data === 0n) {
      return -Errno.EINVAL;
    }
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    return this.#ccp.snpInitialized ? 0 : -Errno.ENODEV;
  }

  #snpSetConfig(op: IssueCmd): number {
    const refused = this.#mayConfigure(op);
    if (refused !== 0) {
      return refused;
    }
    const config = op.process.memory.read(op.data, SevDataSnpConfig.size);
    return config === null ? -Errno.EFAULT : this.#issue(op, SevCmd.SEV_CMD_SNP_CONFIG, config);
  }

  #snpVlekLoad(op: IssueCmd): number {
    const refused = this.#mayConfigure(op);
    if (refused !== 0) {
      return refused;
    }
    const request = copyIn(op.process, SevUserDataSnpVlekLoad, op.data);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const { len, vlek_wrapped_version, vlek_wrapped_address } = request;
    if (len !== SevUserDataSnpVlekLoad.size || vlek_wrapped_version !== 0 || vlek_wrapped_address === 0n) {
      return -Errno.EINVAL;
    }
    const wrapped = op.process.memory.read(vlek_wrapped_address, WrappedVlekHashstick.size);
    if (wrapped === null) {
      return -Errno.EFAULT;
    }
    const page = this.#frames.alloc(1);
    if (page === null) {
      return -Errno.ENOMEM;
    }
    this.#frames.write(page, 0, wrapped);
    const command = SevDataSnpVlekLoad.encode({
      length: len,
      vlek_wrapped_version,
      vlek_wrapped_paddr: spaOf(page),
    });
    const errno = this.#issue(op, SevCmd.SEV_CMD_SNP_VLEK_LOAD, command);
    this.#frames.free(page, 1);
    return errno;
  }
}
