// SPDX-License-Identifier: Apache-2.0
/** The bibliography: every layout and code table names one of these tags and a place inside it. */

export interface Source {
  readonly title: string;
  /** Publication number, or null where the publisher gives none. */
  readonly number: string | null;
  readonly revision: string;
  readonly date: string;
  readonly url: string;
}

export const SOURCES = {
  'SNP-ABI': {
    title: 'SEV Secure Nested Paging Firmware ABI Specification',
    number: '56860',
    revision: '1.58',
    date: '2025',
    url: 'https://www.amd.com/content/dam/amd/en/documents/epyc-technical-docs/specifications/56860.pdf',
  },
  GHCB: {
    title: 'SEV-ES Guest-Hypervisor Communication Block Standardization',
    number: '56421',
    revision: '2.03',
    date: '2023',
    url: 'https://www.amd.com/content/dam/amd/en/documents/epyc-technical-docs/specifications/56421.pdf',
  },
  APM2: {
    title: 'AMD64 Architecture Programmer’s Manual, Volume 2: System Programming',
    number: '24593',
    revision: '3.42',
    date: '2024',
    url: 'https://www.amd.com/content/dam/amd/en/documents/processor-tech-docs/programmer-references/24593.pdf',
  },
  KDS: {
    title: 'Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification',
    number: '57230',
    revision: '1.05',
    date: '2025',
    url: 'https://www.amd.com/content/dam/amd/en/documents/epyc-technical-docs/specifications/57230.pdf',
  },
  VLEK: {
    title: 'Versioned Loaded Endorsement Key (VLEK) Certificate Definition',
    number: '58369',
    revision: '0.10',
    date: '2023',
    url: 'https://www.amd.com/en/developer/sev.html',
  },
  'LINUX-UAPI': {
    title: 'Linux user-space headers (linux/kvm.h, asm/kvm.h, linux/psp-sev.h, linux/sev-guest.h)',
    number: null,
    revision: '6.12',
    date: '2024-11-17',
    url: 'https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git/tree/include/uapi/linux?h=linux-6.12.y',
  },
  LINUX: {
    title:
      'Linux kernel (arch/x86/kvm/svm/sev.c, arch/x86/include/asm, drivers/crypto/ccp, drivers/virt/coco)',
    number: null,
    revision: '6.12',
    date: '2024-11-17',
    url: 'https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git/tree/?h=linux-6.12.y',
  },
  'KVM-CERTS-V7': {
    title: '[PATCH v7 0/2] SEV-SNP: Add KVM support for SNP certificate fetching',
    number: null,
    revision: 'v7',
    date: '2026-01-09',
    url: 'https://lore.kernel.org/kvm/',
  },
  'KVM-SNP-V15': {
    title: '[PATCH v15 00/20] Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v15',
    date: '2024-05-01',
    url: 'https://lore.kernel.org/kvm/',
  },
  'KVM-SNP-V12': {
    title: '[PATCH v12 00/29] Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v12',
    date: '2024-03-29',
    url: 'https://lore.kernel.org/kvm/',
  },
  'KVM-SNP-V10': {
    title: '[PATCH v10 00/50] Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v10',
    date: '2023-10-16',
    url: 'https://lore.kernel.org/kvm/',
  },
  SOFTSNP: {
    title: 'softsnp’s own formats, where the hardware’s are not published',
    number: null,
    revision: '1',
    date: '2026',
    url: 'https://www.npmjs.com/package/softsnp',
  },
} as const satisfies Record<string, Source>;

export type SourceTag = keyof typeof SOURCES;
