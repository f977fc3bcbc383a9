// SPDX-License-Identifier: Apache-2.0
/**
 * Branded addresses, so that a guest address never passes for a host one.
 *
 * Byte addresses are bigint: a hostile guest chooses all 64 bits. Page numbers are number: 2^52 of them
 * cover any address, exactly, and page state changes run at millions a second.
 */
declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** Guest physical address in bytes. */
export type Gpa = Branded<bigint, 'Gpa'>;
/** System physical address in bytes. */
export type Spa = Branded<bigint, 'Spa'>;
/** Address in the memory of the VMM process, in bytes. */
export type Uaddr = Branded<bigint, 'Uaddr'>;
/** Guest frame number: Gpa / 4096. */
export type Gfn = Branded<number, 'Gfn'>;
/** Page frame number: Spa / 4096. */
export type Pfn = Branded<number, 'Pfn'>;
/** Address space identifier: selects the guest's memory key. 0 is the host. */
export type Asid = Branded<number, 'Asid'>;
/** Virtual machine privilege level, 0 (most privileged) to 3. */
export type Vmpl = 0 | 1 | 2 | 3;

export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12n;
export const PAGES_PER_2M = 512;

export const gpa = (value: bigint): Gpa => value as Gpa;
export const spa = (value: bigint): Spa => value as Spa;
export const uaddr = (value: bigint): Uaddr => value as Uaddr;
export const gfn = (value: number): Gfn => value as Gfn;
export const pfn = (value: number): Pfn => value as Pfn;
export const asid = (value: number): Asid => value as Asid;

export const gfnOf = (address: Gpa): Gfn => Number(BigInt.asUintN(64, address) >> PAGE_SHIFT) as Gfn;
export const gpaOf = (frame: Gfn): Gpa => (BigInt(frame) << PAGE_SHIFT) as Gpa;
export const pfnOf = (address: Spa): Pfn => Number(BigInt.asUintN(64, address) >> PAGE_SHIFT) as Pfn;
export const spaOf = (frame: Pfn): Spa => (BigInt(frame) << PAGE_SHIFT) as Spa;

export const isPageAligned = (address: bigint): boolean => (address & 0xfffn) === 0n;
