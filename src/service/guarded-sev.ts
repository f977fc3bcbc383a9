// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev whose commands that change the endorsement key change the guests' certificates with it, and whose
 * commands that change the platform's own keys are safe before they are answered.
 */
import { SEV_ISSUE_CMD, SevIssueCmd, SevUserCmd } from '../abi/dev-sev.ts';
import { Errno } from '../abi/errno.ts';
import {
  type Eventually,
  type FileNode,
  type IoctlAnswer,
  type IoctlRequest,
  isRefusal,
} from '../devices/fuse/filesystem.ts';

/** Runs a command and rewrites what depends on it; null when the blobs could not be locked in time. */
export type GuardedChange = (
  command: string,
  work: () => Eventually<IoctlAnswer>,
) => Promise<IoctlAnswer | null>;

/** Runs a command and stores what it changed before anybody hears of it. */
export type KeptChange = (work: () => Eventually<IoctlAnswer>) => Promise<IoctlAnswer>;

/** Commands after which another key may sign. */
const CHANGES: ReadonlyMap<number, string> = new Map([
  [SevUserCmd.SNP_COMMIT, 'SNP_COMMIT'],
  [SevUserCmd.SNP_SET_CONFIG, 'SNP_SET_CONFIG'],
  [SevUserCmd.SNP_VLEK_LOAD, 'SNP_VLEK_LOAD'],
]);

/** Commands of legacy SEV after which, or after the first of which, the platform has other keys. */
const KEPT: ReadonlySet<number> = new Set([
  SevUserCmd.SEV_FACTORY_RESET,
  SevUserCmd.SEV_PEK_GEN,
  SevUserCmd.SEV_PEK_CSR,
  SevUserCmd.SEV_PDH_GEN,
  SevUserCmd.SEV_PDH_CERT_EXPORT,
  SevUserCmd.SEV_PEK_CERT_IMPORT,
]);

const commandOf = ({ cmd, input }: IoctlRequest): number | null =>
  cmd === SEV_ISSUE_CMD && input.length === SevIssueCmd.size ? SevIssueCmd.get(input, 'cmd') : null;

/**
 * The device node with that guard. An open file goes on with whichever machine is `current`.
 *
 * Differs  EBUSY, with nothing done, while a program keeps a blob locked for seconds: the driver knows
 *          nothing of blobs, and an administrator's tool would have taken the lock first
 */
export function guardedSevFile(current: () => FileNode, change: GuardedChange, keep: KeptChange): FileNode {
  return {
    ...current(),
    async open(flags, caller) {
      let file = current();
      let opened = file.open(flags, caller);
      const handle = await opened;
      if (isRefusal(handle)) {
        return handle;
      }
      const work = async (request: IoctlRequest): Promise<IoctlAnswer> => {
        if (file !== current()) {
          file = current();
          opened = file.open(flags, caller);
        }
        const now = await opened;
        return isRefusal(now) ? { result: -now.errno } : now.ioctl!(request);
      };
      return {
        ...handle,
        async ioctl(request) {
          const command = commandOf(request) ?? -1;
          const name = CHANGES.get(command);
          if (name !== undefined) {
            return (await change(name, () => work(request))) ?? { result: -Errno.EBUSY };
          }
          return KEPT.has(command) ? keep(() => work(request)) : work(request);
        },
        async release() {
          const now = await opened;
          if (!isRefusal(now)) {
            now.release?.();
          }
        },
      };
    },
  };
}
