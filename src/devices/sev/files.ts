// SPDX-License-Identifier: Apache-2.0
/** /dev/sev and what else programs look for on an SNP host, as files. */
import { SEV_ISSUE_CMD, SevIssueCmd } from '../../abi/dev-sev.ts';
import { utf8 } from '../../lib/bytes.ts';
import {
  accessMode,
  type FileNode,
  type FsNode,
  fixedDirectory,
  type IoctlAnswer,
  type IoctlRequest,
  refuse,
  renderedFile,
} from '../fuse/filesystem.ts';
import type { SevDevice } from './device.ts';

/** The device node: any open succeeds, and the access mode decides what the descriptor may command. */
export function sevFile(device: SevDevice): FileNode {
  return {
    kind: 'file',
    mode: 0o600,
    open(flags) {
      const fd = device.open(accessMode(flags) !== 'read');
      if (fd < 0) {
        return refuse(-fd);
      }
      return {
        ioctl: (request) => ioctl(device, fd, request),
        release: () => device.close(fd),
      };
    },
  };
}

function ioctl(device: SevDevice, fd: number, { cmd, input, memory }: IoctlRequest): IoctlAnswer {
  if (cmd !== SEV_ISSUE_CMD || input.length !== SevIssueCmd.size) {
    return { result: device.otherIoctl(fd, cmd) };
  }
  const { ret, argument } = device.issueCmd(fd, memory, input);
  return argument === null ? { result: ret } : { result: ret, output: argument };
}

/** What an SNP host has, by absolute path. */
export function sevPlaces(device: SevDevice): Readonly<Record<string, FsNode>> {
  const yes = (): FileNode => renderedFile(() => utf8('Y\n'));
  return {
    '/dev/sev': sevFile(device),
    '/sys/module/kvm_amd': fixedDirectory({
      parameters: fixedDirectory({ sev: yes(), sev_es: yes(), sev_snp: yes() }),
    }),
  };
}
