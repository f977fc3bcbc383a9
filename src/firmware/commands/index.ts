// SPDX-License-Identifier: Apache-2.0
/** What each command does once the state machines let it through. */

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import type { SevCmdName } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';
import { getId, init, platformStatus, shutdown } from './legacy.ts';
import { factoryReset, pdhCertExport, pdhGen, pekCertImport, pekCsr, pekGen } from './legacy-certificates.ts';
import { snpActivate } from './snp-activate.ts';
import { snpCommit } from './snp-commit.ts';
import { snpConfig } from './snp-config.ts';
import { snpDbgDecrypt, snpDbgEncrypt } from './snp-dbg.ts';
import { snpDecommission } from './snp-decommission.ts';
import { snpDfFlush } from './snp-df-flush.ts';
import { downloadFirmware, snpDownloadFirmwareEx } from './snp-download-firmware-ex.ts';
import { snpFeatureInfo } from './snp-feature-info.ts';
import { snpGctxCreate } from './snp-gctx-create.ts';
import { snpGuestRequest } from './snp-guest-request.ts';
import { snpGuestStatus } from './snp-guest-status.ts';
import { snpHvReportReq } from './snp-hv-report-req.ts';
import { snpInit, snpInitEx } from './snp-init.ts';
import { snpLaunchFinish } from './snp-launch-finish.ts';
import { snpLaunchStart } from './snp-launch-start.ts';
import { snpLaunchUpdate } from './snp-launch-update.ts';
import { snpPageReclaim } from './snp-page-reclaim.ts';
import { snpPageUnsmash } from './snp-page-unsmash.ts';
import { snpPlatformStatus } from './snp-platform-status.ts';
import { snpShutdown, snpShutdownEx } from './snp-shutdown.ts';
import { snpVerifyMitigation } from './snp-verify-mitigation.ts';
import { snpVlekLoad } from './snp-vlek-load.ts';

/** Reads its buffer at a system physical address; never throws. */
export type Command = (platform: Platform, bufferAt: bigint) => SevStatus;

/** Known, and not offered. */
const unsupported: Command = () => SevRet.SEV_RET_UNSUPPORTED;

/** Names a legacy guest by its handle; there is none, because legacy LAUNCH_START is not offered. */
const noSuchGuest: Command = () => SevRet.SEV_RET_INVALID_GUEST;

const nothing: Command = () => SevRet.SEV_RET_SUCCESS;

export const COMMANDS: Readonly<Record<SevCmdName, Command>> = {
  SEV_CMD_SNP_INIT: snpInit,
  SEV_CMD_SNP_INIT_EX: snpInitEx,
  SEV_CMD_SNP_SHUTDOWN: snpShutdown,
  SEV_CMD_SNP_SHUTDOWN_EX: snpShutdownEx,
  SEV_CMD_SNP_PLATFORM_STATUS: snpPlatformStatus,
  SEV_CMD_SNP_FEATURE_INFO: snpFeatureInfo,
  SEV_CMD_SNP_DF_FLUSH: snpDfFlush,
  SEV_CMD_SNP_CONFIG: snpConfig,
  SEV_CMD_SNP_COMMIT: snpCommit,
  SEV_CMD_SNP_VLEK_LOAD: snpVlekLoad,
  SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX: snpDownloadFirmwareEx,
  SEV_CMD_SNP_VERIFY_MITIGATION: snpVerifyMitigation,
  SEV_CMD_SNP_GCTX_CREATE: snpGctxCreate,
  SEV_CMD_SNP_DECOMMISSION: snpDecommission,
  SEV_CMD_SNP_ACTIVATE: snpActivate,
  SEV_CMD_SNP_ACTIVATE_EX: unsupported,
  SEV_CMD_SNP_GUEST_STATUS: snpGuestStatus,
  SEV_CMD_SNP_GUEST_REQUEST: snpGuestRequest,
  SEV_CMD_SNP_HV_REPORT_REQ: snpHvReportReq,
  SEV_CMD_SNP_LAUNCH_START: snpLaunchStart,
  SEV_CMD_SNP_LAUNCH_UPDATE: snpLaunchUpdate,
  SEV_CMD_SNP_LAUNCH_FINISH: snpLaunchFinish,
  SEV_CMD_SNP_DBG_DECRYPT: snpDbgDecrypt,
  SEV_CMD_SNP_DBG_ENCRYPT: snpDbgEncrypt,
  SEV_CMD_SNP_PAGE_RECLAIM: snpPageReclaim,
  SEV_CMD_SNP_PAGE_UNSMASH: snpPageUnsmash,
  SEV_CMD_SNP_PAGE_SWAP_OUT: unsupported,
  SEV_CMD_SNP_PAGE_SWAP_IN: unsupported,
  SEV_CMD_SNP_PAGE_MOVE: unsupported,
  SEV_CMD_SNP_PAGE_MD_INIT: unsupported,
  SEV_CMD_SNP_PAGE_SET_STATE: unsupported,
  SEV_CMD_TIO_STATUS: unsupported,
  SEV_CMD_TIO_INIT: unsupported,
  SEV_CMD_TIO_DEV_CREATE: unsupported,
  SEV_CMD_TIO_DEV_RECLAIM: unsupported,
  SEV_CMD_TIO_DEV_CONNECT: unsupported,
  SEV_CMD_TIO_DEV_DISCONNECT: unsupported,

  SEV_CMD_INIT: init,
  SEV_CMD_INIT_EX: unsupported,
  SEV_CMD_SHUTDOWN: shutdown,
  SEV_CMD_FACTORY_RESET: factoryReset,
  SEV_CMD_PLATFORM_STATUS: platformStatus,
  SEV_CMD_GET_ID: getId,
  SEV_CMD_DF_FLUSH: snpDfFlush,
  SEV_CMD_DOWNLOAD_FIRMWARE: downloadFirmware,
  SEV_CMD_NOP: nothing,
  SEV_CMD_RING_BUFFER: unsupported,
  SEV_CMD_PEK_GEN: pekGen,
  SEV_CMD_PEK_CSR: pekCsr,
  SEV_CMD_PEK_CERT_IMPORT: pekCertImport,
  SEV_CMD_PDH_CERT_EXPORT: pdhCertExport,
  SEV_CMD_PDH_GEN: pdhGen,
  SEV_CMD_LAUNCH_START: unsupported,
  SEV_CMD_RECEIVE_START: unsupported,
  SEV_CMD_DECOMMISSION: noSuchGuest,
  SEV_CMD_ACTIVATE: noSuchGuest,
  SEV_CMD_DEACTIVATE: noSuchGuest,
  SEV_CMD_GUEST_STATUS: noSuchGuest,
  SEV_CMD_LAUNCH_UPDATE_DATA: noSuchGuest,
  SEV_CMD_LAUNCH_UPDATE_VMSA: noSuchGuest,
  SEV_CMD_LAUNCH_MEASURE: noSuchGuest,
  SEV_CMD_LAUNCH_UPDATE_SECRET: noSuchGuest,
  SEV_CMD_LAUNCH_FINISH: noSuchGuest,
  SEV_CMD_ATTESTATION_REPORT: noSuchGuest,
  SEV_CMD_SEND_START: noSuchGuest,
  SEV_CMD_SEND_UPDATE_DATA: noSuchGuest,
  SEV_CMD_SEND_UPDATE_VMSA: noSuchGuest,
  SEV_CMD_SEND_FINISH: noSuchGuest,
  SEV_CMD_SEND_CANCEL: noSuchGuest,
  SEV_CMD_RECEIVE_UPDATE_DATA: noSuchGuest,
  SEV_CMD_RECEIVE_UPDATE_VMSA: noSuchGuest,
  SEV_CMD_RECEIVE_FINISH: noSuchGuest,
  SEV_CMD_DBG_DECRYPT: noSuchGuest,
  SEV_CMD_DBG_ENCRYPT: noSuchGuest,
};
