// SPDX-License-Identifier: Apache-2.0
/**
 * A program in the guest that asks for reports, one after another: node device-client.js DEVICE. For each
 * message {count} from its parent it sends back {seconds: [...]}, how long each ioctl took; it ends with its parent.
 */
import { openSync } from 'node:fs';
import { SnpGuestIoctl, SnpGuestRequestIoctl, SnpReportReq } from '../dist/abi/dev-sev-guest.js';
import { addressOf, ioctl } from '../dist/os/libc.js';

// The kernel is told where they are, so they must stay referenced: by the handler below.
const pinned = (size) => new Uint8Array(new ArrayBuffer(size));
const request = pinned(SnpReportReq.size);
const response = pinned(4000);
const argument = pinned(SnpGuestRequestIoctl.size);
argument.set(
  SnpGuestRequestIoctl.encode({
    msg_version: 1,
    req_data: addressOf(request),
    resp_data: addressOf(response),
  }),
);
const fd = openSync(process.argv[2], 'r');

process.on('message', ({ count }) => {
  const seconds = new Array(count);
  for (let i = 0; i < count; i++) {
    request[0] = i;
    const start = process.hrtime.bigint();
    const ret = ioctl(fd, SnpGuestIoctl.SNP_GET_REPORT, argument);
    seconds[i] = Number(process.hrtime.bigint() - start) / 1e9;
    if (ret !== 0 || response[4] === 0) {
      throw new TypeError(`SNP_GET_REPORT: ${ret}`);
    }
  }
  process.send({ seconds });
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
