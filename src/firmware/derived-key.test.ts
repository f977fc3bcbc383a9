// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { MsgKeyReqV1, MsgKeyReqV2, MsgKeyRsp, SnpMsg } from '../abi/guest-message.ts';
import { PageType } from '../abi/page-info.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import { SevDataSnpConfig } from '../abi/snp-commands.ts';
import { encodeTcb } from '../abi/tcb-version.ts';
import { toHex } from '../lib/bytes.ts';
import type { ChipConfig } from './chip.ts';

const NONE = { guest_policy: 0, image_id: 0, family_id: 0, measurement: 0, guest_svn: 0, tcb_version: 0 };
const VCEK_ROOT = { root_key_select: 0, key_sel: 0 };
const VMRK_ROOT = { root_key_select: 1, key_sel: 0 };

function ask(host: TestHost, guest: TestGuest, request: Partial<MsgKeyReqV1>, vmpck = 0): string {
  const { payload } = host.key(guest, { vmpl: vmpck, ...request }, { vmpck });
  const { status, derived_key } = MsgKeyRsp.decode(payload!);
  if (status !== 0) {
    expect(toHex(derived_key)).toBe('00'.repeat(32));
    return sevRetName(status);
  }
  return toHex(derived_key);
}

const up = (overrides: Partial<ChipConfig> = {}): { host: TestHost; guest: TestGuest } => {
  const host = TestHost.up('Milan', { reportVersion: 5, ...overrides });
  return { host, guest: host.running() };
};

describe('derived keys', () => {
  it('are the same for the same request, also of a guest launched again the same way', () => {
    const first = up();
    const second = up();
    const request = { guest_field_select: { ...NONE, measurement: 1 } };
    const key = ask(first.host, first.guest, request);
    expect(ask(first.host, first.guest, request)).toBe(key);
    expect(ask(second.host, second.guest, request)).toBe(key);
  });

  it('are all different for different selections, VMPLs, roots and requested values', () => {
    const { host, guest } = up();
    const keys = new Set<string>();
    let count = 0;
    const add = (request: Partial<MsgKeyReqV1>): void => {
      keys.add(ask(host, guest, request));
      count += 1;
    };
    for (let bits = 0; bits < 64; bits++) {
      add({
        guest_field_select: {
          guest_policy: bits & 1,
          image_id: (bits >> 1) & 1,
          family_id: (bits >> 2) & 1,
          measurement: (bits >> 3) & 1,
          guest_svn: (bits >> 4) & 1,
          tcb_version: (bits >> 5) & 1,
        },
      });
    }
    add({ vmpl: 1 });
    add({ vmpl: 3 });
    add({ flags: VMRK_ROOT });
    add({ guest_field_select: { ...NONE, tcb_version: 1 }, tcb_version: 1n });
    add({ guest_field_select: { ...NONE, tcb_version: 1 }, tcb_version: 2n });
    expect(keys.size).toBe(count);
  });

  it('do not depend on requested values that are not selected', () => {
    const { host, guest } = up();
    expect(ask(host, guest, { tcb_version: 3n })).toBe(ask(host, guest, {}));
  });

  it('differ by HOST_DATA, and by measurement and policy only where selected', () => {
    const keys = (finish: Uint8Array, policy: bigint, page: number): readonly string[] => {
      const host = TestHost.up();
      const guest = host.launching(policy);
      host.takeVmpcks(guest);
      host.launchUpdate(guest, host.preGuest(guest, 0n), page);
      host.launchFinish(guest, { host_data: finish });
      return [
        ask(host, guest, {}),
        ask(host, guest, { guest_field_select: { ...NONE, measurement: 1 } }),
        ask(host, guest, { guest_field_select: { ...NONE, guest_policy: 1 } }),
      ];
    };
    const base = keys(new Uint8Array(32), 0x30000n, PageType.ZERO);
    const otherHost = keys(new Uint8Array(32).fill(1), 0x30000n, PageType.ZERO);
    expect(base.filter((key, i) => key === otherHost[i])).toEqual([]);
    const otherDigest = keys(new Uint8Array(32), 0x30000n, PageType.UNMEASURED);
    expect(base.map((key, i) => key === otherDigest[i])).toEqual([true, false, true]);
    const otherPolicy = keys(new Uint8Array(32), 0x30001n, PageType.ZERO);
    expect(base.map((key, i) => key === otherPolicy[i])).toEqual([true, true, false]);
  });

  it('with root VCEK follow ReportedTcb, and come back with it; with root VMRK they stay', () => {
    const { host, guest } = up();
    const before = [ask(host, guest, { flags: VCEK_ROOT }), ask(host, guest, { flags: VMRK_ROOT })];
    const lower = { ...host.chip.reportedTcb, microcode: host.chip.reportedTcb.microcode - 1 };
    const report = (word: bigint): void =>
      host.done('SEV_CMD_SNP_CONFIG', SevDataSnpConfig.encode({ reported_tcb: word }));
    report(encodeTcb(lower, 'Milan'));
    const during = [ask(host, guest, { flags: VCEK_ROOT }), ask(host, guest, { flags: VMRK_ROOT })];
    expect(during[0]).not.toBe(before[0]);
    expect(during[1]).toBe(before[1]);
    report(0n);
    expect([ask(host, guest, { flags: VCEK_ROOT }), ask(host, guest, { flags: VMRK_ROOT })]).toEqual(before);
  });

  it('differ between two guests with root VMRK, and not with root VCEK', () => {
    const host = TestHost.up();
    const [one, two] = [host.running(), host.running()];
    expect(ask(host, one, { flags: VMRK_ROOT })).not.toBe(ask(host, two, { flags: VMRK_ROOT }));
    expect(ask(host, one, { flags: VCEK_ROOT })).toBe(ask(host, two, { flags: VCEK_ROOT }));
  });
});

describe('MSG_KEY_REQ', () => {
  it('is answered for the requester’s VMPL and less privileged ones only', () => {
    const { host, guest } = up();
    for (const vmpck of [0, 1, 2, 3]) {
      for (const vmpl of [0, 1, 2, 3, 4]) {
        const answer = ask(host, guest, { vmpl }, vmpck);
        expect(answer === 'SEV_RET_INVALID_PARAM', `VMPCK${vmpck}, VMPL ${vmpl}`).toBe(
          vmpl < vmpck || vmpl > 3,
        );
      }
    }
  });

  it.each<[string, Partial<MsgKeyReqV1>]>([
    ['a GUEST_SVN above that of the ID block', { guest_svn: 1 }],
    ['a TCB_VERSION with a component above CommittedTcb', { tcb_version: 220n << 56n }],
    ['a TCB_VERSION with a reserved byte', { tcb_version: 1n << 16n }],
    ['the reserved KEY_SEL', { flags: { root_key_select: 0, key_sel: 3 } }],
    ['the reserved KEY_SEL with root VMRK', { flags: { root_key_select: 1, key_sel: 3 } }],
  ])('with %s is STATUS INVALID_PARAM', (_, request) => {
    const { host, guest } = up();
    expect(ask(host, guest, request)).toBe('SEV_RET_INVALID_PARAM');
  });

  it('with any reserved bit is STATUS INVALID_PARAM', () => {
    const { host, guest } = up();
    for (const [at, bit] of [
      [0, 3],
      [3, 7],
      [4, 0],
      [8, 6],
      [15, 7],
    ] as const) {
      const payload = MsgKeyReqV1.encode({});
      payload[at]! |= 1 << bit;
      const { payload: answer } = host.request(guest, SnpMsg.SNP_MSG_KEY_REQ, payload);
      expect(MsgKeyRsp.decode(answer!).status, `bit ${bit} of byte ${at}`).toBe(SevRet.SEV_RET_INVALID_PARAM);
    }
  });

  it('is STATUS INVALID_KEY where the selected key is not to be had', () => {
    const { host, guest } = up();
    expect(ask(host, guest, { flags: { root_key_select: 0, key_sel: 2 } })).toBe('SEV_RET_INVALID_KEY');
    const disabled = host.running({ finish: { flags: { id_block_en: 0, auth_key_en: 0, vcek_dis: 1 } } });
    expect(ask(host, disabled, {})).toBe('SEV_RET_INVALID_KEY');
    expect(ask(host, disabled, { flags: VMRK_ROOT })).toMatch(/^[0-9a-f]{64}$/);
    host.done(
      'SEV_CMD_SNP_CONFIG',
      SevDataSnpConfig.encode({ flags: { mask_chip_id: 0, mask_chip_key: 1 } }),
    );
    expect(ask(host, guest, {})).toBe('SEV_RET_INVALID_KEY');
  });

  it('in version 2 mixes a subset of the launch mitigation vector in, and refuses any other', () => {
    const { host, guest } = up({ mitigations: { supported: 0xfn, verified: 0x5n } });
    const askV2 = (vector: bigint, select: number): string => {
      const payload = MsgKeyReqV2.encode({
        guest_field_select: { ...NONE, launch_mit_vector: select },
        launch_mit_vector: vector,
      });
      const answer = MsgKeyRsp.decode(
        host.request(guest, SnpMsg.SNP_MSG_KEY_REQ, payload, { version: 2 }).payload!,
      );
      return answer.status === 0 ? toHex(answer.derived_key) : sevRetName(answer.status);
    };
    expect(askV2(2n, 1)).toBe('SEV_RET_INVALID_PARAM');
    expect(askV2(2n, 0)).toBe('SEV_RET_INVALID_PARAM');
    expect(new Set([askV2(0n, 1), askV2(1n, 1), askV2(4n, 1), askV2(5n, 1)]).size).toBe(4);
    expect(askV2(0n, 0)).toBe(ask(host, guest, {}));
  });
});
