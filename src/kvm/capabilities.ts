// SPDX-License-Identifier: Apache-2.0
/** What KVM says it can do: capabilities and the attributes of /dev/kvm. */
import { Errno } from '../abi/errno.ts';
import {
  KVM_EXIT_HYPERCALL_VALID_MASK,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KvmAttrGroup,
  KvmCap,
  KvmMsrExitReason,
  KvmSevAttr,
  KvmSystemAttr,
  KvmVmType,
} from '../abi/kvm.ts';
import { KvmDeviceAttr } from '../abi/kvm-structs.ts';
import { writeU64 } from '../lib/bytes.ts';
import { copyIn } from './copy-user.ts';
import { hasPrivateMemory } from './guest-memory.ts';
import type { HostProcess } from './host-process.ts';
import { MAX_VCPU_IDS, MAX_VCPUS, SUPPORTED_XCR0, SYNC_REGS_MASK, USER_MEM_SLOTS } from './limits.ts';
import type { KernelServices } from './services.ts';
import { hasEncryptedState } from './sev/state.ts';
import type { Vm } from './vm.ts';

/** Types KVM_CREATE_VM takes, as the bit mask of KVM_CAP_VM_TYPES. */
export function vmTypes(services: KernelServices): number {
  let types = (1 << KvmVmType.KVM_X86_DEFAULT_VM) | (1 << KvmVmType.KVM_X86_SW_PROTECTED_VM);
  if (services.ccp.present && services.asids.hasSev) {
    types |= 1 << KvmVmType.KVM_X86_SEV_VM;
  }
  if (services.ccp.present && services.asids.hasEncryptedState) {
    types |= 1 << KvmVmType.KVM_X86_SEV_ES_VM;
  }
  if (services.snpEnabled()) {
    types |= 1 << KvmVmType.KVM_X86_SNP_VM;
  }
  return types;
}

/** KVM_CHECK_EXTENSION; `vm` is null on /dev/kvm. Unknown capabilities are 0. */
export function checkExtension(services: KernelServices, capability: bigint, vm: Vm | null): number {
  switch (Number(capability & 0xffff_ffffn)) {
    case KvmCap.KVM_CAP_IRQCHIP:
    case KvmCap.KVM_CAP_USER_MEMORY:
    case KvmCap.KVM_CAP_MP_STATE:
    case KvmCap.KVM_CAP_SIGNAL_MSI:
    case KvmCap.KVM_CAP_SPLIT_IRQCHIP:
    case KvmCap.KVM_CAP_IMMEDIATE_EXIT:
    case KvmCap.KVM_CAP_SYS_ATTRIBUTES:
    case KvmCap.KVM_CAP_USER_MEMORY2:
    case KvmCap.KVM_CAP_MEMORY_FAULT_INFO:
    case KvmCap.KVM_CAP_PRE_FAULT_MEMORY:
      return 1;
    case KvmCap.KVM_CAP_NR_VCPUS:
    case KvmCap.KVM_CAP_MAX_VCPUS:
      return MAX_VCPUS;
    case KvmCap.KVM_CAP_MAX_VCPU_ID:
      return MAX_VCPU_IDS;
    case KvmCap.KVM_CAP_NR_MEMSLOTS:
      return USER_MEM_SLOTS;
    case KvmCap.KVM_CAP_SYNC_REGS:
      return vm !== null && hasEncryptedState(vm.type) ? 0 : SYNC_REGS_MASK;
    case KvmCap.KVM_CAP_X86_USER_SPACE_MSR:
      return (
        KvmMsrExitReason.KVM_MSR_EXIT_REASON_INVAL |
        KvmMsrExitReason.KVM_MSR_EXIT_REASON_UNKNOWN |
        KvmMsrExitReason.KVM_MSR_EXIT_REASON_FILTER
      );
    case KvmCap.KVM_CAP_EXIT_HYPERCALL:
      return Number(KVM_EXIT_HYPERCALL_VALID_MASK);
    case KvmCap.KVM_CAP_MEMORY_ATTRIBUTES:
      return vm === null || hasPrivateMemory(vm.type) ? Number(KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0;
    case KvmCap.KVM_CAP_GUEST_MEMFD:
      return vm === null || hasPrivateMemory(vm.type) ? 1 : 0;
    case KvmCap.KVM_CAP_VM_TYPES:
      return vmTypes(services);
    default:
      return 0;
  }
}

/** KVM_HAS_DEVICE_ATTR. */
export function hasDeviceAttr(services: KernelServices, process: HostProcess, arg: bigint): number {
  const request = copyIn(process, KvmDeviceAttr, arg);
  if (request === null) {
    return -Errno.EFAULT;
  }
  return deviceAttr(services, request.group, request.attr) === null ? -Errno.ENXIO : 0;
}

/** KVM_GET_DEVICE_ATTR. */
export function getDeviceAttr(services: KernelServices, process: HostProcess, arg: bigint): number {
  const request = copyIn(process, KvmDeviceAttr, arg);
  if (request === null) {
    return -Errno.EFAULT;
  }
  const value = deviceAttr(services, request.group, request.attr);
  if (value === null) {
    return -Errno.ENXIO;
  }
  const out = new Uint8Array(8);
  writeU64(out, 0, value);
  return process.memory.write(request.addr, out) ? 0 : -Errno.EFAULT;
}

/** Null when there is no such attribute. */
function deviceAttr(services: KernelServices, group: number, attr: bigint): bigint | null {
  if (group === KvmAttrGroup.KVM_X86_GRP_SYSTEM) {
    return attr === BigInt(KvmSystemAttr.KVM_X86_XCOMP_GUEST_SUPP) ? SUPPORTED_XCR0 : null;
  }
  const known = services.generation.sevAttributes;
  if (group !== KvmAttrGroup.KVM_X86_GRP_SEV || !known.some((number) => BigInt(number) === attr)) {
    return null;
  }
  switch (Number(attr)) {
    case KvmSevAttr.KVM_X86_SEV_VMSA_FEATURES:
      return services.supportedVmsaFeatures;
    case KvmSevAttr.KVM_X86_SNP_POLICY_BITS:
      return services.generation.policyMask(services.ccp);
    case KvmSevAttr.KVM_X86_SEV_SNP_REQ_CERTS:
      return services.snpEnabled() ? 1n : 0n;
    default:
      return null;
  }
}
