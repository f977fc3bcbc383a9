// SPDX-License-Identifier: Apache-2.0
/** Gives what KVM and the firmware report the id of the guest request it belongs to. */
import { SnpMsg } from '../abi/guest-message.ts';
import { sevRetName } from '../abi/sev-status.ts';
import type { GuestRequestDetail } from '../firmware/secure-processor.ts';
import type { KvmEvent } from '../kvm/contract.ts';
import type { Tracer } from '../lib/trace.ts';

/** Steps 2 and 4. */
export function traceKvm(tracer: Tracer, event: KvmEvent): void {
  tracer.emit(event.step, event.decided, { vcpu: event.vcpu, ...event.detail });
}

const MESSAGE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(SnpMsg).map(([name, value]) => [value as number, name]),
);

/** Step 5. */
export function traceGuestRequest(tracer: Tracer, detail: GuestRequestDetail): void {
  const message = MESSAGE_NAMES.get(detail.msg_type) ?? `message type ${detail.msg_type}`;
  tracer.emit('guest-request', decidedOf(message, detail), {
    status: sevRetName(detail.status),
    msg_type: detail.msg_type,
    msg_vmpck: detail.vmpck,
    msg_seqno: `0x${detail.seqno.toString(16)}`,
    payload_status: detail.payload_status === null ? null : sevRetName(detail.payload_status),
    key: detail.key,
    reported_tcb: `0x${detail.reported_tcb.toString(16).padStart(16, '0')}`,
  });
}

function decidedOf(message: string, detail: GuestRequestDetail): string {
  if (detail.status !== 0) {
    return `refused ${message}: ${sevRetName(detail.status)}`;
  }
  if (detail.payload_status !== 0 && detail.payload_status !== null) {
    return `answered ${message} with status ${sevRetName(detail.payload_status)}`;
  }
  switch (detail.key) {
    case 'VCEK':
    case 'VLEK':
      return `sequence number ${detail.seqno} is the next one; report signed with the ${detail.key} of the reported TCB`;
    case 'none':
      return 'report made without a signature: the chip key is masked';
    case null:
      return `answered ${message}`;
  }
}
