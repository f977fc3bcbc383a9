// SPDX-License-Identifier: Apache-2.0
import type { GuestContext } from '../guest-context.ts';
import type { Platform } from '../platform.ts';

/** A guest message whose seal and sequence number were good. */
export interface Message {
  readonly platform: Platform;
  readonly guest: GuestContext;
  /** MSG_VERSION. */
  readonly version: number;
  /** VMPL of the requester: that of the VMPCK it used. */
  readonly vmpl: number;
  readonly payload: Uint8Array;
}
