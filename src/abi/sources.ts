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
  APM3: {
    title: 'AMD64 Architecture Programmer’s Manual, Volume 3: General-Purpose and System Instructions',
    number: '24594',
    revision: '3.36',
    date: '2024',
    url: 'https://www.amd.com/content/dam/amd/en/documents/processor-tech-docs/programmer-references/24594.pdf',
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
    title: 'Patch series: SEV-SNP: Add KVM support for SNP certificate fetching',
    number: null,
    revision: 'v7',
    date: '2026-01-09',
    url: 'https://github.com/amdese/linux/commits/snp-certs-v7',
  },
  'KVM-SNP-V15': {
    title: 'Patch series: Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v15',
    date: '2024-05-01',
    url: 'https://lore.kernel.org/kvm/20240501085210.2213060-1-michael.roth@amd.com/',
  },
  'KVM-SNP-V12': {
    title: 'Patch series: Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v12',
    date: '2024-03-29',
    url: 'https://lore.kernel.org/kvm/20240329225835.400662-1-michael.roth@amd.com/',
  },
  'KVM-SNP-V10': {
    title: 'Patch series: Add AMD Secure Nested Paging (SEV-SNP) Hypervisor Support',
    number: null,
    revision: 'v10',
    date: '2023-10-16',
    url: 'https://lore.kernel.org/kvm/20231016132819.1002933-1-michael.roth@amd.com/',
  },
  'VIRTEE-SEV': {
    title: 'virtee/sev: library for the SEV devices and certificates',
    number: null,
    revision: '6.1.0',
    date: '2025',
    url: 'https://github.com/virtee/sev',
  },
  'SEV-TOOL': {
    title: 'AMDESE/sev-tool: AMD’s tool for owners of SEV platforms and guests',
    number: null,
    revision: '20',
    date: '2021-09-17',
    url: 'https://github.com/AMDESE/sev-tool',
  },
  SOFTSNP: {
    title: 'softsnp’s own formats, where the hardware’s are not published',
    number: null,
    revision: '1',
    date: '2026',
    url: 'layouts.md',
  },
} as const satisfies Record<string, Source>;

export type SourceTag = keyof typeof SOURCES;
