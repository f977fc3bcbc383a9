// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { GUEST_BUFFERS, platformBuffer } from '../../test/firmware/valid-buffers.ts';
import { SEV_RET_TABLE, SevRet, type SevStatus, sevRetName } from '../abi/sev-status.ts';
import { SevCmd, SevDataInit, SevDataSnpGuestStatus, SnpGuestStatusOut } from '../abi/snp-commands.ts';
import { type Spa, spaOf } from '../lib/addresses.ts';
import {
  GUEST_STATES,
  GUEST_TRANSITIONS,
  type GuestCmdName,
  type GuestState,
  LEGACY_TRANSITIONS,
  type LegacyCmdName,
  PLATFORM_STATES,
  PLATFORM_TRANSITIONS,
  type SnpCmdName,
  STATUSES_NEVER_RETURNED,
} from './states.ts';

/** A guest context in the wanted state. */
function guestIn(host: TestHost, state: GuestState, policy = 0xb0000n): TestGuest {
  if (state === 'GSTATE_INIT') {
    const gctx = host.gctx();
    return { gctx, asid: 0, request: host.alloc(), response: host.firmwarePage(), next: [1n], vmpcks: [] };
  }
  return state === 'GSTATE_LAUNCH' ? host.launching(policy) : host.running({ policy });
}

function stateOf(host: TestHost, gctx: bigint): GuestState | 'GONE' {
  const page = host.firmwarePage();
  const status = host.issue(
    'SEV_CMD_SNP_GUEST_STATUS',
    SevDataSnpGuestStatus.encode({ gctx_paddr: gctx, status_paddr: spaOf(page) }),
  );
  return status === SevRet.SEV_RET_INVALID_GUEST
    ? 'GONE'
    : GUEST_STATES[SnpGuestStatusOut.decode(host.hw.hostRead(spaOf(page), SnpGuestStatusOut.size)).state]!;
}

const isGuestCommand = (name: string): name is GuestCmdName => name in GUEST_TRANSITIONS;

describe('platform state machine', () => {
  const rows = (Object.keys(PLATFORM_TRANSITIONS) as SnpCmdName[])
    .filter((command) => !isGuestCommand(command))
    .flatMap((command) => PLATFORM_STATES.map((state) => [command, state] as const));

  it.each(rows)('%s in %s does what the table says', (command, state) => {
    const host = new TestHost('Turin');
    if (state === 'INIT') {
      host.init();
    }
    const expected = PLATFORM_TRANSITIONS[command][state];
    const status = host.issue(command, platformBuffer(host, command, state));
    if (typeof expected === 'number') {
      expect(sevRetName(status)).toBe(sevRetName(expected));
      return;
    }
    const offered = ![SevRet.SEV_RET_UNSUPPORTED, SevRet.SEV_RET_INVALID_PAGE_STATE].includes(
      status as never,
    );
    // SNP_PAGE_UNSMASH has nothing to join here; everything else offered succeeds.
    if (command !== 'SEV_CMD_SNP_PAGE_UNSMASH' && offered) {
      expect(sevRetName(status)).toBe('SEV_RET_SUCCESS');
    }
    const now = host.issue('SEV_CMD_SNP_INIT') === SevRet.SEV_RET_SUCCESS ? 'UNINIT' : 'INIT';
    expect(now).toBe(status === SevRet.SEV_RET_SUCCESS ? expected : state);
  });

  it.each(Object.keys(GUEST_TRANSITIONS) as GuestCmdName[])('%s needs INIT', (command) => {
    const host = new TestHost();
    expect(host.issue(command, new Uint8Array(64))).toBe(SevRet.SEV_RET_INVALID_PLATFORM_STATE);
  });

  it('answers INVALID_COMMAND for every number that is no command', () => {
    const host = TestHost.up('Turin');
    const known = new Set<number>(Object.values(SevCmd));
    for (let id = 0; id < 0x400; id++) {
      const status = host.psp.command(id, 0n as Spa);
      if (!known.has(id)) {
        expect(status, `0x${id.toString(16)}`).toBe(SevRet.SEV_RET_INVALID_COMMAND);
      } else {
        expect(status, `0x${id.toString(16)}`).not.toBe(SevRet.SEV_RET_INVALID_COMMAND);
      }
    }
    for (const id of [-1, 0x10081, 2 ** 32 + 0x81, 0.5, Number.NaN]) {
      expect(host.psp.command(id, 0n as Spa)).toBe(SevRet.SEV_RET_INVALID_COMMAND);
    }
  });
});

describe('guest state machine', () => {
  const rows = (Object.keys(GUEST_TRANSITIONS) as GuestCmdName[]).flatMap((command) =>
    GUEST_STATES.map((state) => [command, state] as const),
  );

  it.each(rows)('%s in %s does what the table says', (command, state) => {
    const host = TestHost.up();
    const guest = guestIn(host, state);
    const expected = GUEST_TRANSITIONS[command][state];
    const status = host.issue(command, GUEST_BUFFERS[command](host, guest));
    if (typeof expected === 'number') {
      expect(sevRetName(status)).toBe(sevRetName(expected));
      expect(stateOf(host, guest.gctx)).toBe(state);
      return;
    }
    // Helpers activate their guests, so a second ACTIVATE is refused for that.
    const wanted: SevStatus =
      command === 'SEV_CMD_SNP_ACTIVATE' ? SevRet.SEV_RET_ACTIVE : SevRet.SEV_RET_SUCCESS;
    expect(sevRetName(status)).toBe(sevRetName(wanted));
    expect(stateOf(host, guest.gctx)).toBe(expected);
  });

  it.each(Object.keys(GUEST_TRANSITIONS) as GuestCmdName[])(
    '%s answers INVALID_ADDRESS for an unaligned context and INVALID_GUEST for another page',
    (command) => {
      const host = TestHost.up();
      const guest = guestIn(host, 'GSTATE_LAUNCH');
      const at = command === 'SEV_CMD_SNP_HV_REPORT_REQ' ? 8 : 0;
      const withContext = (address: bigint): SevStatus => {
        const buffer = GUEST_BUFFERS[command](host, guest);
        new DataView(buffer.buffer).setBigUint64(at, address, true);
        return host.issue(command, buffer);
      };
      expect(withContext(guest.gctx + 8n)).toBe(SevRet.SEV_RET_INVALID_ADDRESS);
      expect(withContext(0xffff_ffff_ffff_f000n)).toBe(SevRet.SEV_RET_INVALID_ADDRESS);
      expect(withContext(spaOf(host.alloc()))).toBe(SevRet.SEV_RET_INVALID_GUEST);
      expect(withContext(spaOf(host.firmwarePage()))).toBe(SevRet.SEV_RET_INVALID_GUEST);
    },
  );
});

describe('legacy state machine', () => {
  const rows = (Object.keys(LEGACY_TRANSITIONS) as LegacyCmdName[]).flatMap((command) =>
    PLATFORM_STATES.map((state) => [command, state] as const),
  );

  it.each(rows)('%s in %s does what the table says', (command, state) => {
    const host = new TestHost();
    if (state === 'INIT') {
      host.done('SEV_CMD_INIT', SevDataInit.encode({}));
    }
    const expected = LEGACY_TRANSITIONS[command][state];
    const status = host.issue(command, platformBuffer(host, command, 'UNINIT'));
    if (typeof expected === 'number') {
      expect(sevRetName(status)).toBe(sevRetName(expected));
      return;
    }
    expect([SevRet.SEV_RET_SUCCESS, SevRet.SEV_RET_UNSUPPORTED, SevRet.SEV_RET_INVALID_GUEST]).toContain(
      status,
    );
    const now = host.issue('SEV_CMD_FACTORY_RESET') === SevRet.SEV_RET_SUCCESS ? 'UNINIT' : 'INIT';
    expect(now).toBe(status === SevRet.SEV_RET_SUCCESS ? expected : state);
  });
});

describe('status codes', () => {
  it('that are never returned are all in the table of the specification', () => {
    const names = new Set<string>(SEV_RET_TABLE.map((row) => row.name));
    expect(Object.keys(STATUSES_NEVER_RETURNED).filter((name) => !names.has(name))).toEqual([]);
  });
});
