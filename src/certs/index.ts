// SPDX-License-Identifier: Apache-2.0
/** Certificate tables and the locked blobs that hold them. */
export { type BlobLock, type BlobSource, type ExclusiveBlobLock, MemoryBlob } from './blob.ts';
export {
  certificatesOf,
  fromPem,
  isOneDerSequence,
  isOtherCertificateLabel,
  otherCertificateBlocks,
  type PemBlock,
  toPem,
} from './pem.ts';
export {
  CERT_TABLE_MAX_ENTRIES,
  type CertificateEntry,
  type CertTableFault,
  type CertTableReading,
  decodeCertificateTable,
  encodeCertificateTable,
  type LocatedCertificateEntry,
  readCertificateTable,
  tableNpages,
  tableSize,
  validateBlob,
} from './table.ts';
