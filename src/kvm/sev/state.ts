// SPDX-License-Identifier: Apache-2.0
/** What KVM keeps about a VM whose memory is encrypted, and how it goes away. */
import { KvmVmType } from '../../abi/kvm.ts';
import { SevCmd, SevDataSnpAddr } from '../../abi/snp-commands.ts';
import type { Asid, Pfn } from '../../lib/addresses.ts';
import { PAGE_SIZE, spaOf } from '../../lib/addresses.ts';
import type { Vm } from '../vm.ts';

export interface SevState {
  /** The VM's type wants KVM_SEV_INIT2 before KVM_RUN. */
  needsInit: boolean;
  /** KVM_SEV_INIT2 has succeeded. */
  active: boolean;
  /** Active, and registers are encrypted. */
  es: boolean;
  /** Active, and an SNP guest: "SNP guest" in every check of KVM. */
  snp: boolean;
  asid: Asid;
  vmsaFeatures: bigint;
  ghcbVersion: number;
  /** The /dev/sev descriptor SNP_LAUNCH_START was given: a number, looked up again at each use. */
  fd: number;
  /** Guest context page: there is one from SNP_LAUNCH_START on. */
  context: Pfn | null;
  /** Bounce pages of guest requests; the response page belongs to the firmware. */
  /** A guest message on its way between guest memory and the bounce pages. */
  readonly message: Uint8Array;
  requestPage: Pfn | null;
  responsePage: Pfn | null;
  /** KVM_SEV_SNP_ENABLE_REQ_CERTS was given. */
  certsEnabled: boolean;
  apJumpTable: bigint;
  readonly pinnedRegions: { readonly addr: bigint; readonly size: bigint }[];
}

/** Types whose registers the host cannot see. */
export const hasEncryptedState = (type: number): boolean =>
  type === KvmVmType.KVM_X86_SEV_ES_VM || type === KvmVmType.KVM_X86_SNP_VM;

export const isSevType = (type: number): boolean =>
  type === KvmVmType.KVM_X86_SEV_VM || hasEncryptedState(type);

export function newSevState(type: number): SevState {
  return {
    needsInit: isSevType(type),
    active: false,
    es: false,
    snp: false,
    asid: 0 as Asid,
    vmsaFeatures: 0n,
    ghcbVersion: 0,
    fd: -1,
    context: null,
    message: new Uint8Array(PAGE_SIZE),
    requestPage: null,
    responsePage: null,
    certsEnabled: false,
    apJumpTable: 0n,
    pinnedRegions: [],
  };
}

/**
 * Takes everything from the guest when its VM goes: bounce pages, VMSAs, context, ASID. What cannot be
 * reclaimed is leaked. guest_memfd pages went with their files, which keep the VM alive.
 */
export function destroySev(vm: Vm): void {
  const { sev } = vm;
  const { frames, asids } = vm.services;
  if (!sev.active) {
    return;
  }
  freeBouncePages(vm);
  for (const { vmsaFrame } of vm.vcpus) {
    if (vmsaFrame !== null) {
      if (frames.makeShared(vmsaFrame)) {
        frames.free(vmsaFrame, 1);
      } else {
        frames.leak(vmsaFrame);
      }
    }
  }
  if (sev.context === null || decommission(vm)) {
    asids.release(sev.asid);
  }
  sev.active = false;
}

export function freeBouncePages(vm: Vm): void {
  const { sev } = vm;
  if (sev.requestPage !== null) {
    vm.services.frames.free(sev.requestPage, 1);
    sev.requestPage = null;
  }
  if (sev.responsePage !== null) {
    vm.services.ccp.freeFirmwarePages(sev.responsePage, 1);
    sev.responsePage = null;
  }
}

/** SNP_DECOMMISSION and the end of the context page; false: the ASID must not be used again. */
export function decommission(vm: Vm): boolean {
  const { sev } = vm;
  const { ccp } = vm.services;
  const page = sev.context!;
  const command = SevDataSnpAddr.encode({ address: spaOf(page) });
  if (ccp.issue(SevCmd.SEV_CMD_SNP_DECOMMISSION, command).errno !== 0) {
    return false;
  }
  sev.context = null;
  ccp.freeFirmwarePages(page, 1);
  return true;
}
