// SPDX-License-Identifier: Apache-2.0
/**
 * Status codes of the secure processor. [SNP-ABI] "Status Codes"; [LINUX-UAPI] psp-sev.h `sev_ret_code`.
 *
 * They come back from a command, in `fw_error`, in the low half of SW_EXITINFO2 and as STATUS of guest
 * message responses. 0x1E is not assigned.
 */

export const SevRet = Object.freeze({
  SEV_RET_SUCCESS: 0x00,
  SEV_RET_INVALID_PLATFORM_STATE: 0x01,
  SEV_RET_INVALID_GUEST_STATE: 0x02,
  SEV_RET_INVALID_CONFIG: 0x03,
  SEV_RET_INVALID_LEN: 0x04,
  SEV_RET_ALREADY_OWNED: 0x05,
  SEV_RET_INVALID_CERTIFICATE: 0x06,
  SEV_RET_POLICY_FAILURE: 0x07,
  SEV_RET_INACTIVE: 0x08,
  SEV_RET_INVALID_ADDRESS: 0x09,
  SEV_RET_BAD_SIGNATURE: 0x0a,
  SEV_RET_BAD_MEASUREMENT: 0x0b,
  SEV_RET_ASID_OWNED: 0x0c,
  SEV_RET_INVALID_ASID: 0x0d,
  SEV_RET_WBINVD_REQUIRED: 0x0e,
  SEV_RET_DFFLUSH_REQUIRED: 0x0f,
  SEV_RET_INVALID_GUEST: 0x10,
  SEV_RET_INVALID_COMMAND: 0x11,
  SEV_RET_ACTIVE: 0x12,
  SEV_RET_HWSEV_RET_PLATFORM: 0x13,
  SEV_RET_HWSEV_RET_UNSAFE: 0x14,
  SEV_RET_UNSUPPORTED: 0x15,
  SEV_RET_INVALID_PARAM: 0x16,
  SEV_RET_RESOURCE_LIMIT: 0x17,
  SEV_RET_SECURE_DATA_INVALID: 0x18,
  SEV_RET_INVALID_PAGE_SIZE: 0x19,
  SEV_RET_INVALID_PAGE_STATE: 0x1a,
  SEV_RET_INVALID_MDATA_ENTRY: 0x1b,
  SEV_RET_INVALID_PAGE_OWNER: 0x1c,
  SEV_RET_AEAD_OFLOW: 0x1d,
  SEV_RET_RB_MODE_EXITED: 0x1f,
  SEV_RET_RMP_INIT_REQUIRED: 0x20,
  SEV_RET_BAD_SVN: 0x21,
  SEV_RET_BAD_VERSION: 0x22,
  SEV_RET_SHUTDOWN_REQUIRED: 0x23,
  SEV_RET_UPDATE_FAILED: 0x24,
  SEV_RET_RESTORE_REQUIRED: 0x25,
  SEV_RET_RMP_INITIALIZATION_FAILED: 0x26,
  SEV_RET_INVALID_KEY: 0x27,
} as const);

export type SevRetName = keyof typeof SevRet;

/** A 16-bit firmware status; any number can arrive in a fault-injected world. */
export type SevStatus = number;

/** Linux's own value: the firmware was never reached. */
export const SEV_RET_NO_FW_CALL = 0xffffffff;

const MEANINGS: Readonly<Record<SevRetName, string>> = {
  SEV_RET_SUCCESS: 'The command did what was asked.',
  SEV_RET_INVALID_PLATFORM_STATE: 'The platform is in a state that does not accept the command.',
  SEV_RET_INVALID_GUEST_STATE: 'The guest is in a state that does not accept the command.',
  SEV_RET_INVALID_CONFIG: 'The platform configuration is invalid: SYSCFG, RMP MSRs or VM_HSAVE_PA.',
  SEV_RET_INVALID_LEN: 'A buffer is too small; the needed length is written back.',
  SEV_RET_ALREADY_OWNED: 'The platform already has an owner (legacy SEV).',
  SEV_RET_INVALID_CERTIFICATE: 'A certificate is invalid (legacy SEV).',
  SEV_RET_POLICY_FAILURE: 'The guest policy forbids it, or the ID block asks for another policy.',
  SEV_RET_INACTIVE: 'The guest is not active: it has no ASID.',
  SEV_RET_INVALID_ADDRESS: 'An address is misaligned, out of range or used twice.',
  SEV_RET_BAD_SIGNATURE: 'A signature does not verify.',
  SEV_RET_BAD_MEASUREMENT: 'A measurement or authentication tag does not match.',
  SEV_RET_ASID_OWNED: 'The ASID belongs to another guest.',
  SEV_RET_INVALID_ASID: 'The ASID is zero or outside the range for this kind of guest.',
  SEV_RET_WBINVD_REQUIRED: 'The caches must be written back on all cores first.',
  SEV_RET_DFFLUSH_REQUIRED: 'The data fabric must be flushed first (SNP_DF_FLUSH).',
  SEV_RET_INVALID_GUEST: 'The address names no guest context page.',
  SEV_RET_INVALID_COMMAND: 'There is no command of this number.',
  SEV_RET_ACTIVE: 'The guest already has an ASID.',
  SEV_RET_HWSEV_RET_PLATFORM: 'A hardware error; the platform stays usable.',
  SEV_RET_HWSEV_RET_UNSAFE: 'A hardware error; the platform must be reset.',
  SEV_RET_UNSUPPORTED: 'The feature or command is known but not offered.',
  SEV_RET_INVALID_PARAM: 'A parameter is out of range or a reserved bit is set.',
  SEV_RET_RESOURCE_LIMIT: 'The firmware has run out of a resource.',
  SEV_RET_SECURE_DATA_INVALID: 'Non-volatile data failed its integrity check.',
  SEV_RET_INVALID_PAGE_SIZE: 'The RMP entry has another page size.',
  SEV_RET_INVALID_PAGE_STATE: 'The page is in a state that does not allow it.',
  SEV_RET_INVALID_MDATA_ENTRY: 'A page-swap metadata entry is invalid.',
  SEV_RET_INVALID_PAGE_OWNER: 'The page belongs to another guest.',
  SEV_RET_AEAD_OFLOW: 'The message counter would overflow.',
  SEV_RET_RB_MODE_EXITED: 'Ring-buffer mode was left (legacy SEV).',
  SEV_RET_RMP_INIT_REQUIRED: 'The RMP is not initialised and INIT_RMP is 0.',
  SEV_RET_BAD_SVN: 'The image has a lower security version than the committed one.',
  SEV_RET_BAD_VERSION: 'The image has an unacceptable version.',
  SEV_RET_SHUTDOWN_REQUIRED: 'The image cannot be applied live; shut SNP down first.',
  SEV_RET_UPDATE_FAILED: 'A guest context could not be brought to the new firmware’s form.',
  SEV_RET_RESTORE_REQUIRED: 'The new image is installed but unusable; install the committed one again.',
  SEV_RET_RMP_INITIALIZATION_FAILED: 'Setting up the RMP failed.',
  SEV_RET_INVALID_KEY: 'The selected key is not available.',
};

export interface SevRetRow {
  readonly value: number;
  readonly name: SevRetName;
  readonly meaning: string;
}

/** Every status, in ascending order of value. */
export const SEV_RET_TABLE: readonly SevRetRow[] = Object.freeze(
  (Object.entries(SevRet) as [SevRetName, number][]).map(([name, value]) => ({
    value,
    name,
    meaning: MEANINGS[name],
  })),
);

const NAMES: ReadonlyMap<number, string> = new Map(SEV_RET_TABLE.map((row) => [row.value, row.name]));

/** The name of a status, SEV_RET_NO_FW_CALL included; "SEV_RET 0x.." for a number without one. */
export function sevRetName(status: SevStatus): string {
  return (
    NAMES.get(status) ??
    (status === SEV_RET_NO_FW_CALL ? 'SEV_RET_NO_FW_CALL' : `SEV_RET 0x${status.toString(16)}`)
  );
}
