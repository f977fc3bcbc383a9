// SPDX-License-Identifier: Apache-2.0
/** How much of each thing this KVM has. */

/** KVM_MAX_VCPUS of the largest configuration. */
export const MAX_VCPUS = 4096;
/** KVM_MAX_VCPU_IDS. */
export const MAX_VCPU_IDS = 4 * MAX_VCPUS;
/** KVM_USER_MEM_SLOTS. */
export const USER_MEM_SLOTS = 32764;
/** Sets of registers KVM_CAP_SYNC_REGS offers where KVM can see registers at all. */
export const SYNC_REGS_MASK = 0x7;
/** XCR0 bits a guest may have: x87, SSE, AVX, PKRU. */
export const SUPPORTED_XCR0 = 0x207n;
/** Bits of a guest physical address. */
export const GUEST_PHYS_BITS = 52;
