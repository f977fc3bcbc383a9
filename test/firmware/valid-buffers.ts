// SPDX-License-Identifier: Apache-2.0
/** A buffer for each command that makes it succeed where the state lets it. */
import { MsgReportReq, SnpMsg } from '../../src/abi/guest-message.ts';
import { PageType } from '../../src/abi/page-info.ts';
import {
  type SevCmdName,
  SevDataGetId,
  SevDataInit,
  SevDataPdhCertExport,
  SevDataPekCsr,
  SevDataSnpActivate,
  SevDataSnpAddr,
  SevDataSnpCommit,
  SevDataSnpConfig,
  SevDataSnpDbg,
  SevDataSnpDownloadFirmwareEx,
  SevDataSnpFeatureInfo,
  SevDataSnpGuestRequest,
  SevDataSnpGuestStatus,
  SevDataSnpHvReportReq,
  SevDataSnpInitEx,
  SevDataSnpLaunchFinish,
  SevDataSnpLaunchStart,
  SevDataSnpLaunchUpdate,
  SevDataSnpPageReclaim,
  SevDataSnpPlatformStatus,
  SevDataSnpShutdownEx,
  SevDataSnpVerifyMitigation,
  SevDataSnpVlekLoad,
} from '../../src/abi/snp-commands.ts';
import { buildFirmwareImage } from '../../src/firmware/firmware-image.ts';
import type { GuestCmdName, PlatformState } from '../../src/firmware/states.ts';
import { chipWrappingKey, descend, topStick, wrapHashstick } from '../../src/keys/index.ts';
import { asid, pfn, type Spa, spaOf } from '../../src/lib/addresses.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { askCsr, importBuffer, Owner } from './sev-owner.ts';
import { crypto, flags, SECRET, sealMessage, type TestGuest, type TestHost } from './test-host.ts';

/** Buffers that make each guest command succeed where the state lets it. */
export const GUEST_BUFFERS: Record<GuestCmdName, (host: TestHost, guest: TestGuest) => Uint8Array> = {
  SEV_CMD_SNP_DECOMMISSION: (_, guest) => SevDataSnpAddr.encode({ address: guest.gctx }),
  SEV_CMD_SNP_GUEST_STATUS: (host, guest) =>
    SevDataSnpGuestStatus.encode({ gctx_paddr: guest.gctx, status_paddr: spaOf(host.firmwarePage()) }),
  SEV_CMD_SNP_ACTIVATE: (_, guest) => SevDataSnpActivate.encode({ gctx_paddr: guest.gctx, asid: 77 }),
  SEV_CMD_SNP_LAUNCH_START: (_, guest) =>
    SevDataSnpLaunchStart.encode({ gctx_paddr: guest.gctx, policy: 0x30000n }),
  SEV_CMD_SNP_LAUNCH_UPDATE: (host, guest) =>
    SevDataSnpLaunchUpdate.encode({
      gctx_paddr: guest.gctx,
      page_paddr: spaOf(guest.asid === 0 ? host.alloc() : host.preGuest(guest, 0n)),
      flags: { page_size: 0, page_type: PageType.ZERO, imi_page: 0 },
    }),
  SEV_CMD_SNP_LAUNCH_FINISH: (_, guest) => SevDataSnpLaunchFinish.encode({ gctx_paddr: guest.gctx }),
  SEV_CMD_SNP_GUEST_REQUEST: (host, guest) => {
    const payload = MsgReportReq.encode({});
    const key = guest.vmpcks[0] ?? new Uint8Array(32);
    host.hw.memory.write(
      spaOf(guest.request),
      sealMessage(key, SnpMsg.SNP_MSG_REPORT_REQ, payload, 1n),
      asid(0),
    );
    return SevDataSnpGuestRequest.encode({
      gctx_paddr: guest.gctx,
      req_paddr: spaOf(guest.request),
      rsp_paddr: spaOf(guest.response),
    });
  },
  SEV_CMD_SNP_HV_REPORT_REQ: (host, guest) =>
    SevDataSnpHvReportReq.encode({
      length: 24,
      gctx_paddr: guest.gctx,
      report_paddr: spaOf(host.firmwarePage()),
    }),
  SEV_CMD_SNP_DBG_DECRYPT: (host, guest) =>
    SevDataSnpDbg.encode({
      gctx_paddr: guest.gctx,
      src_paddr: spaOf(guest.asid === 0 ? host.alloc() : host.preGuest(guest, 0n)),
      dst_paddr: spaOf(host.firmwarePage()),
    }),
  SEV_CMD_SNP_DBG_ENCRYPT: (host, guest) =>
    SevDataSnpDbg.encode({
      gctx_paddr: guest.gctx,
      src_paddr: spaOf(host.alloc()),
      dst_paddr: spaOf(guest.asid === 0 ? host.alloc() : host.preGuest(guest, 0n)),
    }),
};

/** Buffers that make each platform command succeed where the state lets it. */
export function platformBuffer(host: TestHost, command: SevCmdName, state: PlatformState): Uint8Array {
  const outputPage = (): Spa => spaOf(state === 'INIT' ? host.firmwarePage() : host.alloc());
  const inMemory = (bytes: Uint8Array): bigint => {
    const page = host.alloc();
    host.hw.memory.write(spaOf(page), bytes, asid(0));
    return spaOf(page);
  };
  const image = (): Uint8Array =>
    buildFirmwareImage(crypto, {
      product: host.chip.product,
      tcb: host.chip.currentTcb,
      version: host.chip.firmwareVersion,
      mitVector: 0xfn,
    });
  switch (command) {
    case 'SEV_CMD_SNP_INIT_EX':
      return SevDataSnpInitEx.encode({ flags: flags({ init_rmp: 1 }) });
    case 'SEV_CMD_SNP_SHUTDOWN_EX':
      return SevDataSnpShutdownEx.encode({ length: 8 });
    case 'SEV_CMD_SNP_PLATFORM_STATUS':
      return SevDataSnpPlatformStatus.encode({ status_paddr: outputPage() });
    case 'SEV_CMD_SNP_FEATURE_INFO':
      return SevDataSnpFeatureInfo.encode({ length: 16, feature_info_paddr: outputPage() });
    case 'SEV_CMD_SNP_COMMIT':
      return SevDataSnpCommit.encode({ length: 4 });
    case 'SEV_CMD_SNP_CONFIG':
      return SevDataSnpConfig.encode({});
    case 'SEV_CMD_SNP_VERIFY_MITIGATION':
      return SevDataSnpVerifyMitigation.encode({ length: 64 });
    case 'SEV_CMD_SNP_VLEK_LOAD': {
      const stick = descend(crypto, topStick(crypto, SECRET, host.chip.product), host.chip.reportedTcb)!;
      const wrapped = wrapHashstick(crypto, seededRandom(9), chipWrappingKey(crypto, SECRET), stick);
      return SevDataSnpVlekLoad.encode({ length: 16, vlek_wrapped_paddr: inMemory(wrapped) });
    }
    case 'SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX':
      return SevDataSnpDownloadFirmwareEx.encode({
        length: SevDataSnpDownloadFirmwareEx.size,
        fw_paddr: inMemory(image()),
        fw_len: image().length,
      });
    case 'SEV_CMD_SNP_GCTX_CREATE':
      return SevDataSnpAddr.encode({ address: outputPage() });
    case 'SEV_CMD_SNP_PAGE_RECLAIM':
      return SevDataSnpPageReclaim.encode({ paddr: outputPage() });
    case 'SEV_CMD_PEK_CSR':
      return SevDataPekCsr.encode({ address: outputPage(), len: 2084 });
    case 'SEV_CMD_PDH_CERT_EXPORT': {
      const chain = host.alloc(2);
      if (state === 'INIT') {
        host.makeFirmware(chain);
        host.makeFirmware(pfn(chain + 1));
      }
      return SevDataPdhCertExport.encode({
        pdh_cert_address: outputPage(),
        pdh_cert_len: 2084,
        cert_chain_address: spaOf(chain),
        cert_chain_len: 6252,
      });
    }
    case 'SEV_CMD_PEK_CERT_IMPORT': {
      const owner = new Owner();
      const { status, csr } = askCsr(host, 2084, state === 'INIT');
      const pek = status === 0 ? owner.sign(csr) : new Uint8Array(2084);
      return importBuffer(host, pek, owner.certificate);
    }
    case 'SEV_CMD_INIT':
      return SevDataInit.encode({});
    case 'SEV_CMD_DOWNLOAD_FIRMWARE':
    case 'SEV_CMD_GET_ID':
      return SevDataGetId.encode({ address: inMemory(image()), len: image().length });
    default:
      return new Uint8Array(64);
  }
}
