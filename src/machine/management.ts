// SPDX-License-Identifier: Apache-2.0
/** A host administrator's tool: a process with /dev/sev open for writing, and nothing else. */
import {
  SEV_ISSUE_CMD,
  SevIssueCmd,
  SevPlatformState,
  SevUserCmd,
  SevUserDataSnpVlekLoad,
  SevUserDataStatus,
} from '../abi/dev-sev.ts';
import { errnoName } from '../abi/errno.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { SevDataSnpConfig, SevUserDataSnpStatus } from '../abi/snp-commands.ts';
import type { HostProcess } from '../kvm/host-kernel.ts';
import { type Uaddr, uaddr } from '../lib/addresses.ts';
import { invariant } from '../lib/errors.ts';

/** What /dev/sev answered: nothing, or why not. */
export type ManagementAnswer =
  | { readonly ok: true }
  | { readonly ok: false; readonly errno: number; readonly fwStatus: number; readonly message: string };

const DATA_AT = 64;

export class ManagementTool {
  readonly #process: HostProcess;
  readonly #fd: number;
  readonly #page: Uaddr;

  constructor(process: HostProcess) {
    this.#process = process;
    this.#fd = process.openDevSev({ write: true });
    this.#page = process.mmap(4096);
  }

  platformStatus(): SevUserDataSnpStatus {
    const answer = this.#issue(SevUserCmd.SNP_PLATFORM_STATUS, new Uint8Array(SevUserDataSnpStatus.size));
    invariant(answer.ok, 'SNP_PLATFORM_STATUS is answered in every state');
    return SevUserDataSnpStatus.decode(this.#read(DATA_AT, SevUserDataSnpStatus.size));
  }

  /** Whether legacy SEV is up. */
  legacyInitialized(): boolean {
    const answer = this.#issue(SevUserCmd.SEV_PLATFORM_STATUS, new Uint8Array(SevUserDataStatus.size));
    invariant(answer.ok, 'SEV_PLATFORM_STATUS is answered in every state');
    const status = this.#read(DATA_AT, SevUserDataStatus.size);
    return SevUserDataStatus.get(status, 'state') !== SevPlatformState.SEV_STATE_UNINIT;
  }

  commit(): ManagementAnswer {
    return this.#issue(SevUserCmd.SNP_COMMIT, new Uint8Array(0));
  }

  setConfig(config: {
    readonly reportedTcb: bigint;
    readonly maskChipId: boolean;
    readonly maskChipKey: boolean;
  }): ManagementAnswer {
    const data = SevDataSnpConfig.encode({
      reported_tcb: config.reportedTcb,
      flags: { mask_chip_id: Number(config.maskChipId), mask_chip_key: Number(config.maskChipKey) },
    });
    return this.#issue(SevUserCmd.SNP_SET_CONFIG, data);
  }

  /** Shape  432 bytes from the key service, wrapped for this chip and its reported TCB */
  vlekLoad(wrapped: Uint8Array): ManagementAnswer {
    const blobAt = DATA_AT + SevUserDataSnpVlekLoad.size;
    this.#write(blobAt, wrapped);
    const data = SevUserDataSnpVlekLoad.encode({
      len: SevUserDataSnpVlekLoad.size,
      vlek_wrapped_version: 0,
      vlek_wrapped_address: this.#page + BigInt(blobAt),
    });
    return this.#issue(SevUserCmd.SNP_VLEK_LOAD, data);
  }

  #issue(cmd: number, data: Uint8Array): ManagementAnswer {
    this.#write(DATA_AT, data);
    this.#write(0, SevIssueCmd.encode({ cmd, data: this.#page + BigInt(DATA_AT) }));
    const ret = this.#process.ioctl(this.#fd, SEV_ISSUE_CMD, this.#page);
    if (ret === 0) {
      return { ok: true };
    }
    const fwStatus = SevIssueCmd.decode(this.#read(0, SevIssueCmd.size)).error;
    const message = `${errnoName(-ret)}, firmware status ${sevRetName(fwStatus)}`;
    return { ok: false, errno: -ret, fwStatus, message };
  }

  #write(at: number, data: Uint8Array): void {
    const stored = this.#process.write(uaddr(this.#page + BigInt(at)), data);
    invariant(stored, 'the tool writes its own memory');
  }

  #read(at: number, length: number): Uint8Array {
    const bytes = this.#process.read(uaddr(this.#page + BigInt(at)), length);
    invariant(bytes !== null, 'the tool reads its own memory');
    return bytes;
  }
}
