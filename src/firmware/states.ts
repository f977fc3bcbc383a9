// SPDX-License-Identifier: Apache-2.0
/**
 * The state machines of the secure processor as tables: [command][state] gives the state after success, or
 * the status that refuses the command. The dispatcher, the documentation and the tests read the same tables.
 *
 * Source   [SNP-ABI] "Platform Management", "Guest Management" (state requirements of each command)
 */

import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import type { SevCmdName } from '../abi/snp-commands.ts';

export const PLATFORM_STATES = ['UNINIT', 'INIT'] as const;
export type PlatformState = (typeof PLATFORM_STATES)[number];

export const GUEST_STATES = ['GSTATE_INIT', 'GSTATE_LAUNCH', 'GSTATE_RUNNING'] as const;
export type GuestState = (typeof GUEST_STATES)[number];
/** Where DECOMMISSION leads: there is no context any more. */
export type GuestStateAfter = GuestState | 'GONE';

/** A table of one machine: state names in, a state name or a status out. */
export type Transitions<
  Command extends string,
  State extends string,
  After extends string = State,
> = Readonly<Record<Command, Readonly<Record<State, After | SevStatus>>>>;

const NO = SevRet.SEV_RET_INVALID_PLATFORM_STATE;
const NOT_NOW = SevRet.SEV_RET_INVALID_GUEST_STATE;

const ANY = { UNINIT: 'UNINIT', INIT: 'INIT' } as const;
const ONLY_INIT = { UNINIT: NO, INIT: 'INIT' } as const;

export type SnpCmdName = Extract<SevCmdName, `SEV_CMD_SNP_${string}` | `SEV_CMD_TIO_${string}`>;

/** SNP state of the platform. */
export const PLATFORM_TRANSITIONS: Transitions<SnpCmdName, PlatformState> = {
  SEV_CMD_SNP_INIT: { UNINIT: 'INIT', INIT: NO },
  SEV_CMD_SNP_INIT_EX: { UNINIT: 'INIT', INIT: NO },
  SEV_CMD_SNP_SHUTDOWN: { UNINIT: 'UNINIT', INIT: 'UNINIT' },
  SEV_CMD_SNP_SHUTDOWN_EX: { UNINIT: 'UNINIT', INIT: 'UNINIT' },
  SEV_CMD_SNP_PLATFORM_STATUS: ANY,
  SEV_CMD_SNP_DF_FLUSH: ANY,
  SEV_CMD_SNP_FEATURE_INFO: ANY,
  SEV_CMD_SNP_COMMIT: ANY,
  SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX: ANY,
  SEV_CMD_SNP_VERIFY_MITIGATION: ANY,
  SEV_CMD_SNP_CONFIG: ONLY_INIT,
  SEV_CMD_SNP_VLEK_LOAD: ONLY_INIT,
  SEV_CMD_SNP_GCTX_CREATE: ONLY_INIT,
  SEV_CMD_SNP_DECOMMISSION: ONLY_INIT,
  SEV_CMD_SNP_ACTIVATE: ONLY_INIT,
  SEV_CMD_SNP_ACTIVATE_EX: ONLY_INIT,
  SEV_CMD_SNP_GUEST_STATUS: ONLY_INIT,
  SEV_CMD_SNP_GUEST_REQUEST: ONLY_INIT,
  SEV_CMD_SNP_HV_REPORT_REQ: ONLY_INIT,
  SEV_CMD_SNP_LAUNCH_START: ONLY_INIT,
  SEV_CMD_SNP_LAUNCH_UPDATE: ONLY_INIT,
  SEV_CMD_SNP_LAUNCH_FINISH: ONLY_INIT,
  SEV_CMD_SNP_DBG_DECRYPT: ONLY_INIT,
  SEV_CMD_SNP_DBG_ENCRYPT: ONLY_INIT,
  SEV_CMD_SNP_PAGE_SWAP_OUT: ONLY_INIT,
  SEV_CMD_SNP_PAGE_SWAP_IN: ONLY_INIT,
  SEV_CMD_SNP_PAGE_MOVE: ONLY_INIT,
  SEV_CMD_SNP_PAGE_MD_INIT: ONLY_INIT,
  SEV_CMD_SNP_PAGE_SET_STATE: ONLY_INIT,
  SEV_CMD_SNP_PAGE_RECLAIM: ONLY_INIT,
  SEV_CMD_SNP_PAGE_UNSMASH: ONLY_INIT,
  SEV_CMD_TIO_STATUS: ONLY_INIT,
  SEV_CMD_TIO_INIT: ONLY_INIT,
  SEV_CMD_TIO_DEV_CREATE: ONLY_INIT,
  SEV_CMD_TIO_DEV_RECLAIM: ONLY_INIT,
  SEV_CMD_TIO_DEV_CONNECT: ONLY_INIT,
  SEV_CMD_TIO_DEV_DISCONNECT: ONLY_INIT,
};

/** State of a guest context; commands that name no guest are not in the table. */
export const GUEST_TRANSITIONS = {
  SEV_CMD_SNP_DECOMMISSION: { GSTATE_INIT: 'GONE', GSTATE_LAUNCH: 'GONE', GSTATE_RUNNING: 'GONE' },
  SEV_CMD_SNP_GUEST_STATUS: {
    GSTATE_INIT: 'GSTATE_INIT',
    GSTATE_LAUNCH: 'GSTATE_LAUNCH',
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
  SEV_CMD_SNP_ACTIVATE: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: 'GSTATE_LAUNCH',
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
  SEV_CMD_SNP_LAUNCH_START: {
    GSTATE_INIT: 'GSTATE_LAUNCH',
    GSTATE_LAUNCH: NOT_NOW,
    GSTATE_RUNNING: NOT_NOW,
  },
  SEV_CMD_SNP_LAUNCH_UPDATE: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: 'GSTATE_LAUNCH',
    GSTATE_RUNNING: NOT_NOW,
  },
  SEV_CMD_SNP_LAUNCH_FINISH: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: 'GSTATE_RUNNING',
    GSTATE_RUNNING: NOT_NOW,
  },
  SEV_CMD_SNP_GUEST_REQUEST: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: NOT_NOW,
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
  SEV_CMD_SNP_HV_REPORT_REQ: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: NOT_NOW,
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
  SEV_CMD_SNP_DBG_DECRYPT: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: 'GSTATE_LAUNCH',
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
  SEV_CMD_SNP_DBG_ENCRYPT: {
    GSTATE_INIT: NOT_NOW,
    GSTATE_LAUNCH: 'GSTATE_LAUNCH',
    GSTATE_RUNNING: 'GSTATE_RUNNING',
  },
} as const satisfies Transitions<string, GuestState, GuestStateAfter>;
export type GuestCmdName = keyof typeof GUEST_TRANSITIONS;

export type LegacyCmdName = Exclude<SevCmdName, SnpCmdName>;

/**
 * State of the legacy SEV platform.
 *
 * Differs  WORKING (2) means that a legacy guest exists; softsnp launches none (docs/limitations.md#legacy-sev)
 */
export const LEGACY_TRANSITIONS: Transitions<LegacyCmdName, PlatformState> = {
  SEV_CMD_INIT: { UNINIT: 'INIT', INIT: NO },
  SEV_CMD_INIT_EX: { UNINIT: 'INIT', INIT: NO },
  SEV_CMD_SHUTDOWN: { UNINIT: 'UNINIT', INIT: 'UNINIT' },
  SEV_CMD_FACTORY_RESET: { UNINIT: 'UNINIT', INIT: NO },
  SEV_CMD_DOWNLOAD_FIRMWARE: { UNINIT: 'UNINIT', INIT: NO },
  SEV_CMD_PLATFORM_STATUS: ANY,
  SEV_CMD_GET_ID: ANY,
  SEV_CMD_NOP: ANY,
  SEV_CMD_RING_BUFFER: ANY,
  SEV_CMD_DF_FLUSH: ANY,
  SEV_CMD_PEK_GEN: ONLY_INIT,
  SEV_CMD_PEK_CSR: ONLY_INIT,
  SEV_CMD_PEK_CERT_IMPORT: ONLY_INIT,
  SEV_CMD_PDH_CERT_EXPORT: ONLY_INIT,
  SEV_CMD_PDH_GEN: ONLY_INIT,
  SEV_CMD_DECOMMISSION: ONLY_INIT,
  SEV_CMD_ACTIVATE: ONLY_INIT,
  SEV_CMD_DEACTIVATE: ONLY_INIT,
  SEV_CMD_GUEST_STATUS: ONLY_INIT,
  SEV_CMD_LAUNCH_START: ONLY_INIT,
  SEV_CMD_LAUNCH_UPDATE_DATA: ONLY_INIT,
  SEV_CMD_LAUNCH_UPDATE_VMSA: ONLY_INIT,
  SEV_CMD_LAUNCH_MEASURE: ONLY_INIT,
  SEV_CMD_LAUNCH_UPDATE_SECRET: ONLY_INIT,
  SEV_CMD_LAUNCH_FINISH: ONLY_INIT,
  SEV_CMD_ATTESTATION_REPORT: ONLY_INIT,
  SEV_CMD_SEND_START: ONLY_INIT,
  SEV_CMD_SEND_UPDATE_DATA: ONLY_INIT,
  SEV_CMD_SEND_UPDATE_VMSA: ONLY_INIT,
  SEV_CMD_SEND_FINISH: ONLY_INIT,
  SEV_CMD_SEND_CANCEL: ONLY_INIT,
  SEV_CMD_RECEIVE_START: ONLY_INIT,
  SEV_CMD_RECEIVE_UPDATE_DATA: ONLY_INIT,
  SEV_CMD_RECEIVE_UPDATE_VMSA: ONLY_INIT,
  SEV_CMD_RECEIVE_FINISH: ONLY_INIT,
  SEV_CMD_DBG_DECRYPT: ONLY_INIT,
  SEV_CMD_DBG_ENCRYPT: ONLY_INIT,
};

/** Statuses no command of softsnp answers with, and why. */
export const STATUSES_NEVER_RETURNED: Readonly<Record<string, string>> = {
  SEV_RET_INVALID_CONFIG:
    'SYSCFG, RMP MSRs, VM_HSAVE_PA and the IOMMU are not modelled; they are always right.',
  SEV_RET_HWSEV_RET_UNSAFE: 'The modelled hardware does not fail.',
  SEV_RET_RESOURCE_LIMIT: 'Guest contexts are limited by memory alone.',
  SEV_RET_SECURE_DATA_INVALID: 'Persistent data is checked when the state is loaded, before any command.',
  SEV_RET_INVALID_MDATA_ENTRY: 'Page swapping is not offered.',
  SEV_RET_RB_MODE_EXITED: 'The ring buffer is not offered.',
  SEV_RET_UPDATE_FAILED: 'Guest contexts have one form for all firmware versions.',
  SEV_RET_RMP_INITIALIZATION_FAILED: 'Setting up the RMP cannot fail.',
};
