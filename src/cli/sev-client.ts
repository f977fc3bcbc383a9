// SPDX-License-Identifier: Apache-2.0
/** A client of /dev/sev: SEV_ISSUE_CMD and the commands of an SNP host. [DEVICES] "/dev/sev (host)" */
import {
  SEV_ISSUE_CMD,
  SevIssueCmd,
  SevUserCmd,
  SevUserDataGetId2,
  SevUserDataSnpVlekLoad,
} from '../abi/dev-sev.ts';
import { Errno, errnoName } from '../abi/errno.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import { SevDataSnpConfig, SevUserDataSnpStatus } from '../abi/snp-commands.ts';
import { EnvironmentError } from '../lib/errors.ts';
import type { DeviceFile, PinnedMemory } from '../os/device-file.ts';

/** More sockets than any board has. */
const MAX_ID_BYTES = 4096;

/** Errors of every function here: DEVICE_REFUSED with the errno and the firmware's status. */
export async function snpPlatformStatus(device: DeviceFile): Promise<SevUserDataSnpStatus> {
  const data = device.pin(new Uint8Array(SevUserDataSnpStatus.size));
  expectSuccess('SNP_PLATFORM_STATUS', await issue(device, 'SNP_PLATFORM_STATUS', data));
  // A newer firmware may say more than this program knows.
  return SevUserDataSnpStatus.decodeLoose(data.bytes);
}

/** The chip ids of all sockets, 64 bytes each. */
export async function getId2(device: DeviceFile): Promise<Uint8Array> {
  const query = device.pin(new Uint8Array(SevUserDataGetId2.size));
  const asked = await issue(device, 'SEV_GET_ID2', query);
  if (asked.error !== SevRet.SEV_RET_INVALID_LEN) {
    expectSuccess('SEV_GET_ID2', asked);
  }
  const length = Math.min(SevUserDataGetId2.get(query.bytes, 'length'), MAX_ID_BYTES);
  const room = device.pin(new Uint8Array(length));
  const data = device.pin(SevUserDataGetId2.encode({ address: room.address, length }));
  expectSuccess('SEV_GET_ID2', await issue(device, 'SEV_GET_ID2', data));
  return room.bytes.slice(0, SevUserDataGetId2.get(data.bytes, 'length'));
}

export async function snpCommit(device: DeviceFile): Promise<void> {
  expectSuccess('SNP_COMMIT', await issue(device, 'SNP_COMMIT', null));
}

export async function snpSetConfig(device: DeviceFile, config: Partial<SevDataSnpConfig>): Promise<void> {
  const data = device.pin(SevDataSnpConfig.encode(config));
  expectSuccess('SNP_SET_CONFIG', await issue(device, 'SNP_SET_CONFIG', data));
}

/** Shape    a wrapped hash stick, 432 bytes */
export async function snpVlekLoad(device: DeviceFile, hashstick: Uint8Array): Promise<void> {
  const data = device.pin(
    SevUserDataSnpVlekLoad.encode({
      len: SevUserDataSnpVlekLoad.size,
      vlek_wrapped_version: 0,
      vlek_wrapped_address: device.pin(hashstick).address,
    }),
  );
  expectSuccess('SNP_VLEK_LOAD', await issue(device, 'SNP_VLEK_LOAD', data));
}

interface Outcome {
  readonly ret: number;
  /** Firmware status. */
  readonly error: number;
}

async function issue(
  device: DeviceFile,
  name: keyof typeof SevUserCmd,
  data: PinnedMemory | null,
): Promise<Outcome> {
  const argument = device.pin(SevIssueCmd.encode({ cmd: SevUserCmd[name], data: data?.address ?? 0n }));
  const ret = await device.ioctl(SEV_ISSUE_CMD, argument);
  return { ret, error: SevIssueCmd.get(argument.bytes, 'error') };
}

function expectSuccess(name: string, { ret, error }: Outcome): void {
  if (ret < 0) {
    const status =
      ret === -Errno.EIO ? `, firmware status ${sevRetName(error)} (0x${error.toString(16)})` : '';
    throw new EnvironmentError('DEVICE_REFUSED', `${errnoName(ret)}${status}`, { where: name });
  }
}
