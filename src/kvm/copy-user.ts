// SPDX-License-Identifier: Apache-2.0
/** copy_from_user and copy_to_user for declared structures. */
import type { DecodedFields, FieldTable, Layout } from '../lib/struct.ts';
import type { HostProcess } from './host-process.ts';

/** The structure at a user address; null where that faults. Its padding is not judged, as in KVM. */
export function copyIn<F extends FieldTable>(
  process: HostProcess,
  layout: Layout<F>,
  at: bigint,
): DecodedFields<F> | null {
  const bytes = process.memory.read(at, layout.size);
  return bytes === null ? null : layout.decodeLoose(bytes);
}

/** False where the write faults. */
export function copyOut<F extends FieldTable>(
  process: HostProcess,
  layout: Layout<F>,
  at: bigint,
  value: Partial<DecodedFields<F>>,
): boolean {
  return process.memory.write(at, layout.encode(value));
}
