// SPDX-License-Identifier: Apache-2.0
/**
 * The GHCB page of one VMGEXIT, from the exit to the next entry.
 *
 * Everything the guest put in is copied once, here. What KVM answers goes straight to the page, with the
 * valid bit set, so that the VMM sees it too.
 *
 * Source   [GHCB] "What KVM takes from the page and puts back"
 */
import {
  GHCB_SHARED_BUFFER_END,
  GHCB_SHARED_BUFFER_OFFSET,
  GHCB_USAGE_OFFSET,
  GHCB_VALID_BITMAP_OFFSET,
  GHCB_VALID_BITMAP_SIZE,
  type GhcbField,
  GhcbMalformed,
  GhcbOffset,
  type GhcbQuad,
  GhcbResponse,
  ghcbFieldIsValid,
  ghcbGet,
  ghcbMarkValid,
} from '../../abi/ghcb.ts';
import { PAGE_SIZE, type Pfn } from '../../lib/addresses.ts';
import { readU32, writeU64 } from '../../lib/bytes.ts';
import type { HostFrames } from '../host-frames.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Scratch } from './scratch.ts';

/** Resume the guest. */
export const RESUME = 1;
/** Leave to userspace; KVM_RUN returns 0. */
export const EXIT = 0;

const CLEAR_BITMAP = new Uint8Array(GHCB_VALID_BITMAP_SIZE);
/** The one copy of the page; nothing of it is looked at after mapGhcb. */
const INPUT = new Uint8Array(PAGE_SIZE);
const INFO = new Uint8Array(16);
const QUAD = new Uint8Array(8);

export interface GhcbMapping {
  readonly gpa: bigint;
  readonly frame: Pfn;
  /** Which fields the guest filled. */
  readonly valid: Uint8Array;
  readonly usage: number;
  readonly exitCode: bigint;
  readonly exitInfo1: bigint;
  readonly exitInfo2: bigint;
  readonly scratchGpa: bigint;
  /** Which fields KVM has filled since. */
  readonly answered: Uint8Array;
  /** Set by events that use one. */
  scratch: Scratch | null;
}

/** Maps the page and takes the guest's input from it; null when it has no memory behind it. */
export function mapGhcb(vcpu: Vcpu, gpa: bigint): GhcbMapping | null {
  const { memory, services } = vcpu.vm;
  const found = memory.sharedFrame(Number(gpa >> 12n));
  if (found === -1) {
    return null;
  }
  const frame = found as Pfn;
  const page = INPUT;
  services.frames.readInto(page, 0, frame, 0, PAGE_SIZE);
  const valid = page.slice(GHCB_VALID_BITMAP_OFFSET, GHCB_VALID_BITMAP_OFFSET + GHCB_VALID_BITMAP_SIZE);
  const take = (field: GhcbQuad): bigint => (ghcbFieldIsValid(valid, field) ? ghcbGet(page, field) : 0n);
  const { shadow } = vcpu;
  shadow.rax = take('rax');
  shadow.rbx = take('rbx');
  shadow.rcx = take('rcx');
  shadow.rdx = take('rdx');
  shadow.rsi = take('rsi');
  shadow.cpl = ghcbFieldIsValid(valid, 'cpl') ? page[GhcbOffset.cpl]! : 0;
  if (ghcbFieldIsValid(valid, 'xcr0')) {
    shadow.xcr0 = ghcbGet(page, 'xcr0');
  }
  services.frames.write(frame, GHCB_VALID_BITMAP_OFFSET, CLEAR_BITMAP);
  return {
    gpa,
    frame,
    valid,
    usage: readU32(page, GHCB_USAGE_OFFSET),
    exitCode: ghcbGet(page, 'sw_exit_code'),
    exitInfo1: ghcbGet(page, 'sw_exit_info_1'),
    exitInfo2: ghcbGet(page, 'sw_exit_info_2'),
    scratchGpa: take('sw_scratch'),
    answered: new Uint8Array(GHCB_VALID_BITMAP_SIZE),
    scratch: null,
  };
}

/** What the guest finds at the next entry: the scratch area and the registers; then the page is let go. */
export function unmapGhcb(vcpu: Vcpu): void {
  const { ghcb, shadow } = vcpu;
  vcpu.resetHold = 'none';
  if (ghcb === null) {
    return;
  }
  ghcb.scratch?.finish();
  const { frames } = vcpu.vm.services;
  putField(frames, ghcb, 'rax', shadow.rax);
  putField(frames, ghcb, 'rbx', shadow.rbx);
  putField(frames, ghcb, 'rcx', shadow.rcx);
  putField(frames, ghcb, 'rdx', shadow.rdx);
  writeBitmap(frames, ghcb);
  vcpu.ghcb = null;
}

/** SW_EXITINFO1 and SW_EXITINFO2 together. */
export function setExitInfo(vcpu: Vcpu, ghcb: GhcbMapping, info1: number, info2: bigint): void {
  const { frames } = vcpu.vm.services;
  writeU64(INFO, 0, BigInt(info1));
  writeU64(INFO, 8, info2);
  frames.write(ghcb.frame, GhcbOffset.sw_exit_info_1, INFO);
  mark(ghcb, 'sw_exit_info_1');
  mark(ghcb, 'sw_exit_info_2');
  writeBitmap(frames, ghcb);
}

/** The event succeeded, with this result. */
export function succeed(vcpu: Vcpu, ghcb: GhcbMapping, info2: bigint): number {
  setExitInfo(vcpu, ghcb, GhcbResponse.GHCB_HV_RESP_NO_ACTION, info2);
  return RESUME;
}

/** The guest asked wrongly; `reason` says how. */
export function malformed(vcpu: Vcpu, ghcb: GhcbMapping, reason: keyof typeof GhcbMalformed): number {
  setExitInfo(vcpu, ghcb, GhcbResponse.GHCB_HV_RESP_MALFORMED_INPUT, BigInt(GhcbMalformed[reason]));
  return RESUME;
}

export const isValid = (ghcb: GhcbMapping, field: GhcbField): boolean => ghcbFieldIsValid(ghcb.valid, field);

/** True when [gpa, gpa + length) lies in the shared buffer of the page. */
export function inSharedBuffer(ghcb: GhcbMapping, gpa: bigint, length: number): boolean {
  return (
    gpa >= ghcb.gpa + BigInt(GHCB_SHARED_BUFFER_OFFSET) &&
    gpa + BigInt(length) <= ghcb.gpa + BigInt(GHCB_SHARED_BUFFER_END)
  );
}

function putField(frames: HostFrames, ghcb: GhcbMapping, field: GhcbQuad, value: bigint): void {
  writeU64(QUAD, 0, value);
  frames.write(ghcb.frame, GhcbOffset[field], QUAD);
  mark(ghcb, field);
}

function mark(ghcb: GhcbMapping, field: GhcbField): void {
  ghcbMarkValid(ghcb.answered, field);
}

function writeBitmap(frames: HostFrames, ghcb: GhcbMapping): void {
  frames.write(ghcb.frame, GHCB_VALID_BITMAP_OFFSET, ghcb.answered);
}
