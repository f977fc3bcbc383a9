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
  SevDataSnpCommit,
  SevDataSnpConfig,
  SevDataSnpVlekLoad,
  WrappedVlekHashstick,
} from '../abi/snp-commands.ts';
import { PAGE_SIZE, spaOf } from '../lib/addresses.ts';
import type { Ccp, PspResult } from './ccp.ts';
import { copyIn } from './copy-user.ts';
import type { KernelFile } from './files.ts';
import type { HostFrames } from './host-frames.ts';
import type { HostProcess } from './host-process.ts';

/** SEV_FW_BLOB_MAX_SIZE: certificates of the legacy commands are no longer. */
const BLOB_MAX_SIZE = 0x4000;
/** KMALLOC_MAX_SIZE. */
const KMALLOC_MAX_SIZE = 4 * 1024 * 1024;

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
        return this.#writable ? this.#issueInInit(op, SevCmd.SEV_CMD_PEK_GEN) : -Errno.EPERM;
      case SevUserCmd.SEV_PDH_GEN:
        return this.#writable ? this.#issueInInit(op, SevCmd.SEV_CMD_PDH_GEN) : -Errno.EPERM;
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

  /** For commands that want legacy SEV up: it is brought up for their duration where it is not. */
  #issueInInit(op: IssueCmd, cmd: number, buffer: Uint8Array | null = null): number {
    if (this.#ccp.sevInitialized) {
      return this.#issue(op, cmd, buffer);
    }
    const up = this.#finish(op, this.#ccp.platformInit());
    if (up !== 0) {
      return up;
    }
    const errno = this.#issue(op, cmd, buffer);
    this.#ccp.legacyShutdown();
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

  #pekCsr(op: IssueCmd): number {
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    const request = op.process.memory.read(op.data, SevUserDataPekCsr.size);
    if (request === null || SevUserDataPekCsr.get(request, 'length') > BLOB_MAX_SIZE) {
      return -Errno.EFAULT;
    }
    return this.#issueInInit(op, SevCmd.SEV_CMD_PEK_CSR, new Uint8Array(SevUserDataPekCsr.size));
  }

  #pdhCertExport(op: IssueCmd): number {
    if (!this.#ccp.sevInitialized && !this.#writable) {
      return -Errno.EPERM;
    }
    const request = copyIn(op.process, SevUserDataPdhCertExport, op.data);
    if (request === null || Math.max(request.pdh_cert_len, request.cert_chain_len) > BLOB_MAX_SIZE) {
      return -Errno.EFAULT;
    }
    return this.#issueInInit(
      op,
      SevCmd.SEV_CMD_PDH_CERT_EXPORT,
      new Uint8Array(SevUserDataPdhCertExport.size),
    );
  }

  #pekCertImport(op: IssueCmd): number {
    if (!this.#writable) {
      return -Errno.EPERM;
    }
    const request = copyIn(op.process, SevUserDataPekCertImport, op.data);
    if (request === null) {
      return -Errno.EFAULT;
    }
    const blobs = [
      [request.pek_cert_address, request.pek_cert_len],
      [request.oca_cert_address, request.oca_cert_len],
    ] as const;
    for (const [address, length] of blobs) {
      if (address === 0n || length === 0 || length > BLOB_MAX_SIZE) {
        return -Errno.EINVAL;
      }
      if (op.process.memory.read(address, length) === null) {
        return -Errno.EFAULT;
      }
    }
    return this.#issueInInit(
      op,
      SevCmd.SEV_CMD_PEK_CERT_IMPORT,
      new Uint8Array(SevUserDataPekCertImport.size),
    );
  }

  #getId(op: IssueCmd): number {
    const { errno, bytes } = this.#readIds(op, SevUserDataGetId.size);
    if (errno !== 0) {
      return errno;
    }
    return op.process.memory.write(op.data, bytes) ? 0 : -Errno.EFAULT;
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
    const { errno, bytes, needed } = this.#readIds(op, room);
    if (errno !== 0 && errno !== -Errno.EIO) {
      return errno;
    }
    SevUserDataGetId2.set(request, 'length', needed);
    if (!op.process.memory.write(op.data, request)) {
      return -Errno.EFAULT;
    }
    if (room > 0 && !op.process.memory.write(address, bytes.subarray(0, needed))) {
      return -Errno.EFAULT;
    }
    return errno;
  }

  /** GET_ID into pages of the kernel; `needed` is the length the firmware names. */
  #readIds(op: IssueCmd, room: number): { errno: number; bytes: Uint8Array; needed: number } {
    const pages = Math.ceil(room / PAGE_SIZE);
    const failed = (errno: number) => ({ errno, bytes: new Uint8Array(room), needed: 0 });
    const first = pages === 0 ? null : this.#ccp.allocOutputPages(pages);
    if (pages !== 0 && first === null) {
      return failed(-Errno.ENOMEM);
    }
    const command = SevDataGetId.encode({ address: first === null ? 0n : spaOf(first), len: room });
    const errno = this.#issue(op, SevCmd.SEV_CMD_GET_ID, command);
    const bytes = first === null ? new Uint8Array(0) : this.#ccp.takeOutputPages(first, pages, room);
    return { errno, bytes: bytes ?? new Uint8Array(room), needed: SevDataGetId.get(command, 'len') };
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
