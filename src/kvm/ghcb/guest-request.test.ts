// SPDX-License-Identifier: Apache-2.0
/** Guest requests and certificates: [GHCB] "SNP guest request", [KVM] "Certificate-request exits", v7. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { GuestMessageHeader, guestMessageNonce, MsgReportReq, SnpMsg } from '../../abi/guest-message.ts';
import type { GuestProgram } from '../../abi/guest-ops.ts';
import { KvmExit } from '../../abi/kvm.ts';
import { KvmRun, KvmRunSnpReqCerts } from '../../abi/kvm-run.ts';
import { KvmSevSnpPageType } from '../../abi/kvm-sev.ts';
import { SecretsPage } from '../../abi/secrets-page.ts';
import { SevCmd } from '../../abi/snp-commands.ts';
import { gpa, PAGE_SIZE, spaOf } from '../../lib/addresses.ts';
import { nodeCrypto } from '../../os/node-crypto.ts';
import {
  DATA_GPA,
  GHCB_GPA,
  type GhcbAnswer,
  type GhcbCall,
  type Guest,
  ghcbCall,
  NOTHING,
  PRIVATE_GPA,
  readShared,
  registerGhcb,
  TestHost,
  TestVm,
  writeShared,
} from '../testing.ts';
import { type KernelGeneration, KVM_6_12 } from '../uapi/generation.ts';
import { reqCertsV7 } from '../uapi/req-certs-v7.ts';

const GUEST_REQUEST = 0x80000011;
const EXT_GUEST_REQUEST = 0x80000012;
const REQUEST = DATA_GPA;
const RESPONSE = gpa(DATA_GPA + 0x1000n);
const CERTS = gpa(DATA_GPA + 0x2000n);
const SECRETS = gpa(0x80_0000n);
const RBX_IN = 3n;

const crypto = nodeCrypto({ deterministic: true });

interface Scenario {
  readonly certs?: boolean;
  readonly generation?: KernelGeneration;
  readonly calls: readonly GhcbCall[];
  readonly msgType?: number;
}

/** A guest that seals a report request under VMPCK0, then makes the calls, and what it saw. */
function scenario({ certs = true, generation, calls, msgType = SnpMsg.SNP_MSG_REPORT_REQ }: Scenario) {
  const answers: GhcbAnswer[] = [];
  const responses: Uint8Array[] = [];
  const host = new TestHost(NOTHING, generation === undefined ? {} : { generation });
  const vm = new TestVm(host.user());
  vm.init2();
  if (certs) {
    vm.enableReqCerts();
  }
  vm.addMemory();
  vm.launchStart();
  vm.launchUpdate({
    gfn_start: SECRETS >> 12n,
    uaddr: vm.ram,
    len: 0x1000n,
    type: KvmSevSnpPageType.KVM_SEV_SNP_PAGE_TYPE_SECRETS,
  });
  vm.createVcpu();
  expect(vm.launchFinish()).toBe(0);
  host.program = () =>
    (function* program(): GuestProgram {
      yield* registerGhcb();
      yield* writeShared(REQUEST, yield* sealedRequest(msgType));
      for (const call of calls) {
        answers.push(yield* ghcbCall(call));
        responses.push(yield* readShared(RESPONSE, PAGE_SIZE));
      }
    })();
  const requests = () => host.psp.commands.filter((id) => id === SevCmd.SEV_CMD_SNP_GUEST_REQUEST).length;
  return { host, vm, answers, responses, requests };
}

function* sealedRequest(msgType: number): Guest<Uint8Array> {
  const secrets = (yield { op: 'read', gpa: SECRETS, length: PAGE_SIZE, encrypted: true }) as Uint8Array;
  const key = SecretsPage.decodeLoose(secrets).vmpck0;
  const payload = MsgReportReq.encode({ report_data: new Uint8Array(64).fill(9) });
  const header = GuestMessageHeader.encode({
    msg_seqno: 1n,
    algo: 1,
    hdr_version: 1,
    hdr_size: GuestMessageHeader.size,
    msg_type: msgType,
    msg_version: 1,
    msg_size: payload.length,
  });
  const sealed = crypto.gcmSeal(key, guestMessageNonce(1n), header.subarray(0x30, 0x60), payload);
  header.set(sealed.tag);
  const page = new Uint8Array(PAGE_SIZE);
  page.set(header);
  page.set(sealed.ciphertext, header.length);
  return page;
}

const ext = (over: Partial<GhcbCall> = {}): GhcbCall => ({
  code: EXT_GUEST_REQUEST,
  info1: REQUEST,
  info2: RESPONSE,
  fields: { rax: CERTS, rbx: RBX_IN },
  ...over,
});
const plain: GhcbCall = { code: GUEST_REQUEST, info1: REQUEST, info2: RESPONSE };

/** Answers the certificate exit and goes on to the end of the program. */
function answerCerts(vm: TestVm, ret: bigint, npages?: bigint): number | undefined {
  expect(vm.enter()).toEqual({ ret: 0 });
  expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SNP_REQ_CERTS);
  KvmRunSnpReqCerts.set(vm.run(), 'ret', ret);
  if (npages !== undefined) {
    KvmRunSnpReqCerts.set(vm.run(), 'npages', npages);
  }
  return vm.enter().ret;
}

describe('KVM_EXIT_SNP_REQ_CERTS', () => {
  it('shows gpa = RAX, npages = RBX and ret = 0', () => {
    const { vm } = scenario({ calls: [ext()] });
    KvmRunSnpReqCerts.set(vm.run(), 'ret', 99n);
    vm.enter();
    expect(KvmRunSnpReqCerts.decodeLoose(vm.run().subarray(0, 2352))).toEqual({
      gpa: CERTS,
      npages: RBX_IN,
      ret: 0n,
    });
  });

  it.each([0n, 0xffff_ffff_ffff_ffffn])('does not judge npages: %s', (npages) => {
    const { vm } = scenario({ calls: [ext({ fields: { rax: CERTS, rbx: npages } })] });
    vm.enter();
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SNP_REQ_CERTS);
    expect(KvmRunSnpReqCerts.get(vm.run(), 'npages')).toBe(npages);
  });

  it('does not judge gpa beyond its alignment', () => {
    const { vm } = scenario({ calls: [ext({ fields: { rax: 0xffff_ffff_ffff_f000n, rbx: 1n } })] });
    vm.enter();
    expect(KvmRunSnpReqCerts.get(vm.run(), 'gpa')).toBe(0xffff_ffff_ffff_f000n);
  });

  it('leaves a data GPA that is private to userspace and the firmware: the report is made', () => {
    const { vm, answers } = scenario({ calls: [ext({ fields: { rax: PRIVATE_GPA, rbx: 1n } })] });
    expect(answerCerts(vm, 0n)).toBe(0);
    expect(answers[0]!.infos).toEqual([0n, 0n]);
  });

  it('ret 0: the firmware is asked now, SW_EXITINFO2 is its status, RBX stays', () => {
    const { vm, answers, responses, requests } = scenario({ calls: [ext()] });
    vm.enter();
    expect(requests()).toBe(0);
    KvmRunSnpReqCerts.set(vm.run(), 'npages', 77n);
    vm.enter();
    expect(requests()).toBe(1);
    expect(answers[0]!.infos).toEqual([0n, 0n]);
    expect(answers[0]!.get('rbx')).toBe(RBX_IN);
    const response = GuestMessageHeader.decode(responses[0]!.slice(0, GuestMessageHeader.size));
    expect(response).toMatchObject({ msg_type: SnpMsg.SNP_MSG_REPORT_RSP, msg_seqno: 2n });
  });

  it.each([
    ['ENOSPC', Errno.ENOSPC, 0x0000_0001_0000_0000n, 5n],
    ['EAGAIN', Errno.EAGAIN, 0x0000_0002_0000_0000n, RBX_IN],
    ['EIO', Errno.EIO, 0xffff_ffff_0000_0000n, RBX_IN],
  ])('ret %s: SW_EXITINFO2 as in the table, and the sequence number is not used', (_, ret, info2, rbx) => {
    const { vm, answers, requests } = scenario({ calls: [ext(), plain] });
    answerCerts(vm, BigInt(ret), 5n);
    expect(answers[0]!.infos).toEqual([0n, info2]);
    expect(answers[0]!.get('rbx')).toBe(rbx);
    expect(answers[0]!.get('rax')).toBe(CERTS);
    expect(requests()).toBe(1);
    expect(answers[1]!.infos).toEqual([0n, 0n]);
  });

  const others = [
    ...Array.from({ length: 133 }, (_, i) => BigInt(i + 1)).filter(
      (n) => ![Errno.EIO, Errno.EAGAIN, Errno.ENOSPC].some((known) => BigInt(known) === n),
    ),
    1n << 63n,
    BigInt.asUintN(64, -28n),
    0x1_0000_0000n,
  ];

  it.each(others)('ret %s: KVM_RUN fails with EINVAL and the guest goes on with nothing', (ret) => {
    const { vm, answers, requests } = scenario({ calls: [ext()] });
    expect(answerCerts(vm, ret)).toBe(-Errno.EINVAL);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    expect(answers[0]!.infos).toEqual([0n, 0n]);
    expect(requests()).toBe(0);
  });

  it('reads each byte of ret once, so that a thread that changes it cannot split the outcome', () => {
    const { vm } = scenario({ calls: [ext()] });
    vm.enter();
    const reads: number[] = [];
    const watched = new Proxy(vm.run(), {
      get(run, key) {
        reads.push(Number(key));
        return Reflect.get(run, key);
      },
    });
    expect(reqCertsV7.answer(watched).answer).toEqual({ kind: 'proceed' });
    expect(reads.sort((a, b) => a - b)).toEqual([48, 49, 50, 51, 52, 53, 54, 55]);
  });

  it('ret 0 and a firmware that is gone: KVM_RUN fails with the transport error', () => {
    const { vm, host } = scenario({ calls: [ext()] });
    vm.enter();
    host.psp.intercept = () => 'timeout';
    expect(vm.enter()).toEqual({ ret: -Errno.ETIMEDOUT });
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SNP_REQ_CERTS);
  });

  it('ret 0 with immediate_exit: EINTR after the firmware call, then the guest has its answer', () => {
    const { vm, answers, requests } = scenario({ calls: [ext()] });
    vm.enter();
    KvmRun.set(vm.run(), 'immediate_exit', 1);
    expect(vm.enter()).toEqual({ ret: -Errno.EINTR });
    expect(requests()).toBe(1);
    expect(answers).toHaveLength(0);
    expect(vm.enter()).toEqual({ ret: -Errno.EINTR });
    expect(requests()).toBe(1);
    KvmRun.set(vm.run(), 'immediate_exit', 0);
    vm.enter();
    expect(answers[0]!.infos).toEqual([0n, 0n]);
  });

  it('reads the request page again when userspace has answered, so one snapshot goes to the firmware', () => {
    const { vm, answers } = scenario({ calls: [ext()] });
    vm.enter();
    vm.poke(REQUEST + 0x60n, new Uint8Array(96).fill(1));
    vm.enter();
    expect(answers[0]!.info2).not.toBe(0n);
  });
});

describe('the extended guest request without an exit', () => {
  const FILLED = new Uint8Array(32).fill(0xee);

  it('not enabled: 24 zero bytes at RAX, then the firmware', () => {
    const { vm, answers } = scenario({ certs: false, calls: [ext()] });
    vm.poke(CERTS, FILLED);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(answers[0]!.infos).toEqual([0n, 0n]);
    expect(vm.peek(CERTS, 32)).toEqual(Uint8Array.from([...new Array(24).fill(0), ...FILLED.subarray(24)]));
  });

  it('Linux 6.12 knows no other way', () => {
    const { vm, answers } = scenario({ generation: KVM_6_12, calls: [ext()] });
    vm.enter();
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    expect(answers[0]!.infos).toEqual([0n, 0n]);
  });

  it('not enabled and RBX 0: no table is written', () => {
    const { vm, answers } = scenario({ certs: false, calls: [ext({ fields: { rax: CERTS, rbx: 0n } })] });
    vm.poke(CERTS, FILLED);
    vm.enter();
    expect(answers[0]!.infos).toEqual([0n, 0n]);
    expect(vm.peek(CERTS, 32)).toEqual(FILLED);
  });

  it('not enabled and no memory at RAX: KVM_RUN fails with EIO', () => {
    const { vm } = scenario({ certs: false, calls: [ext({ fields: { rax: 1n << 40n, rbx: 1n } })] });
    expect(vm.enter()).toEqual({ ret: -Errno.EIO });
  });

  const otherTypes = Array.from({ length: 256 }, (_, i) => i).filter((i) => i !== SnpMsg.SNP_MSG_REPORT_REQ);

  it.each(otherTypes)(
    'message type %i goes straight to the firmware; RAX and RBX are not looked at',
    (msgType) => {
      const { vm, requests, answers } = scenario({
        msgType,
        calls: [ext({ fields: { rax: 1n } }), ext({ fields: {} })],
      });
      vm.poke(CERTS, FILLED);
      expect(vm.enter()).toEqual({ ret: 0 });
      expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
      expect(requests()).toBe(2);
      expect(answers.map(({ info1 }) => info1)).toEqual([0n, 0n]);
      expect(vm.peek(CERTS, 32)).toEqual(FILLED);
    },
  );

  it.each([
    ['RAX unaligned', { rax: CERTS + 1n, rbx: 1n }],
    ['RAX missing', { rbx: 1n }],
    ['RBX missing', { rax: CERTS }],
  ])('%s: malformed input, invalid input; no firmware call', (_, fields) => {
    const { vm, answers, requests } = scenario({ calls: [ext({ fields })] });
    vm.enter();
    expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SHUTDOWN);
    expect(answers[0]!.infos).toEqual([2n, 5n]);
    expect(requests()).toBe(0);
  });
});

describe('both requests', () => {
  for (const code of [GUEST_REQUEST, EXT_GUEST_REQUEST]) {
    const name = `0x${code.toString(16)}`;

    it.each([
      ['the request page unaligned', { info1: REQUEST + 8n }],
      ['the response page unaligned', { info2: RESPONSE + 1n }],
      ['one page for both', { info2: REQUEST }],
    ])(`${name} with %s: malformed input, missing input`, (_, over) => {
      const { vm, answers } = scenario({ calls: [{ ...ext(over), code }] });
      vm.enter();
      expect(answers[0]!.infos).toEqual([2n, 4n]);
    });

    it(`${name} with a request page that is not there: KVM_RUN fails with EIO`, () => {
      const { vm } = scenario({ calls: [{ ...ext({ info1: 1n << 40n }), code }] });
      expect(vm.enter()).toEqual({ ret: -Errno.EIO });
    });

    it(`${name} with a response page that is not there: KVM_RUN fails with EIO, and the message is spent`, () => {
      const { vm, answers, requests } = scenario({
        certs: false,
        calls: [{ ...ext({ info2: 1n << 40n }), code }, plain],
      });
      expect(vm.enter()).toEqual({ ret: -Errno.EIO });
      vm.enter();
      expect(requests()).toBe(2);
      expect(answers[1]!.info2).not.toBe(0n);
    });
  }

  it('a firmware status goes to the guest with whatever the response page holds', () => {
    const { vm, answers, host, responses } = scenario({ calls: [plain] });
    vm.poke(RESPONSE, new Uint8Array(16).fill(0xee));
    host.psp.intercept = (id) => (id === SevCmd.SEV_CMD_SNP_GUEST_REQUEST ? 0x1d : null);
    expect(vm.enter()).toEqual({ ret: 0 });
    expect(answers[0]!.infos).toEqual([0n, 0x1dn]);
    expect(responses[0]!.subarray(0, 16)).toEqual(new Uint8Array(16));
  });

  it('the descriptor of LAUNCH_START closed: KVM_RUN fails with EBADF', () => {
    const { vm } = scenario({ calls: [plain] });
    vm.user.process.close(vm.user.sev);
    expect(vm.enter()).toEqual({ ret: -Errno.EBADF });
  });

  it('a replayed message is refused by the firmware', () => {
    const { vm, answers } = scenario({ calls: [plain, plain] });
    vm.enter();
    expect(answers[0]!.info2).toBe(0n);
    expect(answers[1]!.info2).not.toBe(0n);
  });

  it('the response bounce page is a firmware page for the life of the VM', () => {
    const { vm, host } = scenario({ calls: [plain] });
    const firmwarePages = () =>
      Array.from({ length: 4096 }, (_, pfn) => host.hw.rmp.lookup(pfn as never)).filter(
        ({ assigned, asid, immutable, vmsa }) => assigned && asid === 0 && immutable && !vmsa,
      ).length;
    vm.enter();
    const before = firmwarePages();
    vm.user.process.exit();
    expect(firmwarePages()).toBe(before - 1);
  });
});

describe('what the guest can change while it is looked at', () => {
  it('is fetched once: the GHCB page at the exit, the message type, and the message for the firmware', () => {
    const { vm, host } = scenario({ calls: [ext()] });
    const fetched: string[] = [];
    const frameOf = (at: bigint) => BigInt(vm.user.process.memory.frameAt(Number(vm.ram + at))) << 12n;
    const names = new Map([
      [frameOf(GHCB_GPA), 'GHCB'],
      [frameOf(REQUEST), 'request'],
    ]);
    const record = (at: bigint, length: number) => {
      const name = names.get(at & ~0xfffn);
      if (name !== undefined) {
        fetched.push(`${name}+0x${(at & 0xfffn).toString(16)}, ${length}`);
      }
    };
    const { hw } = host;
    const hostRead = hw.hostRead.bind(hw);
    const hostReadPage = hw.hostReadPage.bind(hw);
    hw.hostRead = (at, length) => {
      record(at, length);
      return hostRead(at, length);
    };
    hw.hostReadPage = (out, start, pfn, offset, length) => {
      record(spaOf(pfn) + BigInt(offset), length);
      hostReadPage(out, start, pfn, offset, length);
    };
    vm.enter();
    vm.enter();
    const protocol = fetched.slice(fetched.indexOf('GHCB+0x0, 4096'));
    expect(protocol).toEqual(['GHCB+0x0, 4096', 'request+0x34, 1', 'request+0x0, 4096']);
  });
});

describe('trace', () => {
  it('step 2 says where the request goes, step 4 what userspace made of it', () => {
    const { vm, host } = scenario({ calls: [ext(), ext()] });
    answerCerts(vm, BigInt(Errno.ENOSPC), 2n);
    KvmRunSnpReqCerts.set(vm.run(), 'ret', 0n);
    vm.enter();
    expect(host.events.map(({ step, detail }) => [step, detail])).toEqual([
      ['ext-guest-request', { msg_type: 5, gpa: '0x112000', npages: '0x3' }],
      ['complete-req-certs', { ret: '0x1c', sw_exit_info_2: '0x100000000', rbx: '0x2' }],
      ['ext-guest-request', { msg_type: 5, gpa: '0x112000', npages: '0x3' }],
      ['complete-req-certs', { ret: '0x0', sw_exit_info_2: null, rbx: '0x3' }],
    ]);
    expect(host.events[0]).toMatchObject({ vm: { id: 1, name: 'vmm' }, vcpu: 0 });
  });

  it('step 2 names the reason for no exit', () => {
    const { vm, host } = scenario({ certs: false, calls: [ext(), ext({ fields: {} })] });
    vm.enter();
    expect(host.events.map(({ decided }) => decided)).toEqual([
      'certificates are not enabled for this VM: empty table, then the firmware',
      'RAX or RBX missing, or RAX not page aligned: GHCB_ERR_INVALID_INPUT',
    ]);
  });
});
