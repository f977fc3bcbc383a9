// SPDX-License-Identifier: Apache-2.0
/** What is loaded into a guest before it runs, and what that measures to. */
export * from './cpuid-table.ts';
export * from './default-image.ts';
export * from './digest.ts';
export * from './guid.ts';
export * from './idblock.ts';
export * from './kernel-hashes.ts';
export * from './ledger.ts';
export * from './legacy.ts';
export * from './ovmf.ts';
export * from './plan.ts';
export * from './qemu.ts';
export * from './shell-words.ts';
export * from './suspects.ts';
export * from './vcpu-types.ts';
export * from './vmsa.ts';
