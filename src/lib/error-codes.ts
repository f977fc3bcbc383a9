// SPDX-License-Identifier: Apache-2.0
/** Every code an exception can carry: who caused it, what to do, and the exit code of the CLI. */

export interface ErrorCodeRow {
  readonly kind: 'input' | 'environment' | 'bug';
  readonly action: string;
  /** Exit code of the command line when this error ends it. */
  readonly exit: 1 | 2 | 3 | 70;
}

export const ERROR_CODES = {
  BUG: {
    kind: 'bug',
    action: 'This is a defect in softsnp; please report it with the command line and the seed.',
    exit: 70,
  },
  LAYOUT_LENGTH_MISMATCH: {
    kind: 'input',
    action: 'Give exactly the number of bytes the structure has.',
    exit: 1,
  },
  LAYOUT_RESERVED_NOT_ZERO: {
    kind: 'input',
    action: 'The bytes are not of this structure, or of a newer version of it.',
    exit: 1,
  },
  LAYOUT_VALUE_OUT_OF_RANGE: {
    kind: 'input',
    action: 'Use a value that fits the field.',
    exit: 1,
  },
  HEX_INVALID: { kind: 'input', action: 'Give an even number of hexadecimal digits.', exit: 1 },
  OPTION_INVALID: { kind: 'input', action: 'Call the command with --help to see what it takes.', exit: 1 },
  FILE_UNREADABLE: { kind: 'environment', action: 'Check the path and its permissions.', exit: 1 },
  FILE_UNWRITABLE: {
    kind: 'environment',
    action: 'Check the path, its permissions and the space left.',
    exit: 1,
  },
  OVMF_INVALID: {
    kind: 'input',
    action: 'Give an OVMF image built with SEV-SNP support (AmdSev or a 2 MiB OVMF.fd).',
    exit: 1,
  },
  OVMF_TABLE_INVALID: {
    kind: 'input',
    action: 'The GUIDed table at the end of the image is damaged; give an unmodified OVMF image.',
    exit: 1,
  },
  OVMF_METADATA_INVALID: {
    kind: 'input',
    action: 'The SEV metadata of the image is damaged; give an unmodified OVMF image.',
    exit: 1,
  },
  OVMF_METADATA_MISSING: {
    kind: 'input',
    action: 'Give an OVMF image built with SEV-SNP support (AmdSev or a 2 MiB OVMF.fd).',
    exit: 1,
  },
  OVMF_SECTION_UNKNOWN: {
    kind: 'input',
    action: 'The image is newer than softsnp or damaged; its launch digest cannot be known.',
    exit: 1,
  },
  OVMF_SECTION_UNALIGNED: {
    kind: 'input',
    action: 'The SEV metadata of the image is damaged; give an unmodified OVMF image.',
    exit: 1,
  },
  OVMF_SIZE_UNALIGNED: {
    kind: 'input',
    action: 'Give the whole firmware file; SNP launches consist of 4 KiB pages.',
    exit: 1,
  },
  OVMF_TOO_LARGE: { kind: 'input', action: 'Give a guest firmware image of at most 256 MiB.', exit: 1 },
  OVMF_RESET_BLOCK_MISSING: {
    kind: 'input',
    action: 'Give an OVMF image built with SEV-ES support; it says where processors start.',
    exit: 1,
  },
  OVMF_KERNEL_HASHES_UNSUPPORTED: {
    kind: 'input',
    action: 'Use an AmdSev build of OVMF, which checks kernel hashes, or leave the kernel out.',
    exit: 1,
  },
  OVMF_HASH_TABLE_INVALID: {
    kind: 'input',
    action: 'The image places its kernel hashes where no VMM can write them; give an unmodified one.',
    exit: 1,
  },
  OVMF_SVSM_INFO_MISSING: { kind: 'input', action: 'Give a flat Coconut-SVSM image as --svsm.', exit: 1 },
  VCPU_TYPE_UNKNOWN: {
    kind: 'input',
    action: 'Use one of the names listed; for another CPU, softsnp measure takes --vcpu-sig.',
    exit: 1,
  },
  CERT_TABLE_INVALID: {
    kind: 'input',
    action: 'Write the certificate table again; see docs/reference/layouts.md for its form.',
    exit: 1,
  },
  REPORT_INPUT_INVALID: {
    kind: 'input',
    action: 'Ask the guest for the report again; the input holds none.',
    exit: 1,
  },
  POLICY_INVALID: { kind: 'input', action: 'Write the policy as docs/reference/policy.md says.', exit: 1 },
  CERTIFICATE_INVALID: { kind: 'input', action: 'Give an X.509 certificate in DER or PEM.', exit: 1 },
  FLEET_INVALID: {
    kind: 'input',
    action: 'Write the fleet file as docs/reference/kds-http.md says.',
    exit: 1,
  },
  LISTEN_FAILED: {
    kind: 'environment',
    action:
      'Choose an address of this machine and a free port; ports below 1024 need CAP_NET_BIND_SERVICE or softsnp exec.',
    exit: 3,
  },
  TLS_ROOT_INVALID: {
    kind: 'input',
    action:
      'Put back a good copy of the file, or remove it: the next start makes a new root, which clients must then be told to trust.',
    exit: 1,
  },
  KDS_NOT_FOUND: {
    kind: 'environment',
    action:
      'The key service has no such certificate: check product line, chip id (on Turin 16 digits) and that the TCB is REPORTED_TCB.',
    exit: 3,
  },
  KDS_UNAVAILABLE: {
    kind: 'environment',
    action: 'Try again later, give more time with --deadline, or put the certificates into the blob.',
    exit: 3,
  },
  KDS_ANSWER_REFUSED: {
    kind: 'environment',
    action:
      'The answer is not what was asked for or not from a trusted root, and was not kept. For a softsnp key service name its root with --trust.',
    exit: 2,
  },
  RESOURCES_EXHAUSTED: {
    kind: 'environment',
    action:
      'Raise what the message names: the limit of open files (ulimit -n) or of processes (ulimit -u), memory, disk space, quota.',
    exit: 3,
  },
  INSTALLATION_INCOMPLETE: {
    kind: 'environment',
    action:
      'Install again: npm ci in a clone, elsewhere a package that npm run pack made. Where few files may be open at once, raise that limit (ulimit -n).',
    exit: 3,
  },
  ENTROPY_UNAVAILABLE: {
    kind: 'environment',
    action:
      'Wait until the random number generator of the system is seeded, and see that /dev/urandom can be read.',
    exit: 3,
  },
  FFI_UNAVAILABLE: {
    kind: 'environment',
    action: 'Install the optional dependency koffi (npm install koffi) on a supported platform.',
    exit: 3,
  },
  LOCK_FAILED: {
    kind: 'environment',
    action: 'Put the file on a filesystem that has open-file-description locks.',
    exit: 3,
  },
  FUSE_UNAVAILABLE: {
    kind: 'environment',
    action:
      'Make /dev/fuse accessible. EACCES: chmod 0666 /dev/fuse, or join the group that has it. ENOENT, EPERM: modprobe fuse; for a container, --device /dev/fuse.',
    exit: 3,
  },
  FUSE_REPLY_REFUSED: {
    kind: 'environment',
    action: 'The client saw EIO. This is a defect in softsnp or an incompatible kernel; please report it.',
    exit: 3,
  },
  CLIENT_MEMORY_DENIED: {
    kind: 'environment',
    action:
      'The client saw EFAULT. Start it through softsnp exec, or as the same user, or relax kernel.yama.ptrace_scope.',
    exit: 3,
  },
  DEVICE_UNAVAILABLE: {
    kind: 'environment',
    action:
      'Run in an SNP guest (module sev-guest) or on an SNP host (module ccp) as root, or through softsnp exec, or name the node with --device.',
    exit: 3,
  },
  DEVICE_REFUSED: {
    kind: 'environment',
    action: 'The message says what the kernel or the firmware answered; see docs/reference/status-codes.md.',
    exit: 3,
  },
  MOUNT_REFUSED: {
    kind: 'environment',
    action: 'Run as root with CAP_SYS_ADMIN, or use softsnp exec, which brings its own user namespace.',
    exit: 3,
  },
  MOUNT_POINT_INVALID: {
    kind: 'environment',
    action: 'Name an existing folder, not a symbolic link, where no other softsnp is serving.',
    exit: 3,
  },
  NAMESPACE_UNAVAILABLE: {
    kind: 'environment',
    action:
      'Allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) and install util-linux, or run as root.',
    exit: 3,
  },
  CPUID_UNAVAILABLE: {
    kind: 'environment',
    action:
      'Leave --cpuid out, or give it what it needs: Linux on x86-64, the optional dependencies koffi and iced-x86, and ptrace(2), which sysctl kernel.yama.ptrace_scope=3 and seccomp filters can forbid.',
    exit: 3,
  },
  HOST_MEMORY_EXHAUSTED: {
    kind: 'input',
    action: 'Ask for less guest memory: the modelled host has 64 TiB of physical addresses.',
    exit: 1,
  },
  MACHINE_REFUSED: {
    kind: 'environment',
    action:
      'The modelled machine would not do it, as a real one would not; --verbose shows what its parts say.',
    exit: 3,
  },
  BLOB_BUSY: {
    kind: 'environment',
    action: 'Nothing was changed. Find the program that keeps a lock on the blob (lslocks), or try again.',
    exit: 3,
  },
  SNAPSHOT_INVALID: {
    kind: 'input',
    action: 'Nothing was changed. Give a file as softsnp ctl snapshot save wrote it, to no older softsnp.',
    exit: 1,
  },
  SNAPSHOT_MISMATCH: {
    kind: 'input',
    action:
      'Nothing was changed. Restore on the state folder it was saved from, with softsnp up given the same --report-version and the files guests are launched from where and what they were.',
    exit: 1,
  },
  SNAPSHOT_UNAVAILABLE: {
    kind: 'environment',
    action: 'Nothing was saved. End the client or remove the fault that the message names, or try again.',
    exit: 3,
  },
  CHANGE_INCOMPLETE: {
    kind: 'environment',
    action:
      'Guests that are named get EAGAIN until their certificates are written. See to the file system of the state folder; then give a command again (softsnp ctl commit, say), or restart the host.',
    exit: 3,
  },
  GUEST_UNKNOWN: { kind: 'input', action: 'softsnp ctl status names the guests of the host.', exit: 1 },
  CONTROL_UNREACHABLE: {
    kind: 'environment',
    action: 'Start a host with softsnp up, or name its state folder with --state.',
    exit: 3,
  },
  CONTROL_UNKNOWN: {
    kind: 'input',
    action: 'The running host is of another version than this softsnp; see docs/reference/control-api.md.',
    exit: 1,
  },
  STATE_INVALID: {
    kind: 'input',
    action: 'The state folder is damaged; restore it from a copy, or move it away to start anew.',
    exit: 1,
  },
  STATE_VERSION_UNSUPPORTED: {
    kind: 'input',
    action: 'Nothing was changed. Use the softsnp that wrote the state folder, or another --state.',
    exit: 1,
  },
  STATE_BUSY: {
    kind: 'environment',
    action: 'Another softsnp uses this state folder; stop it or choose another --state.',
    exit: 3,
  },
  TMPDIR_UNWRITABLE: {
    kind: 'environment',
    action: 'Let TMPDIR name a folder you may write to.',
    exit: 3,
  },
  CONTROL_DENIED: {
    kind: 'environment',
    action: 'The host is another user’s: ask as the user who started it, or as root.',
    exit: 3,
  },
  STATE_UNWRITABLE: {
    kind: 'environment',
    action:
      'Choose a folder you may write to, on a file system with space left: --state, or --tls-dir for the key service.',
    exit: 3,
  },
} as const satisfies Record<string, ErrorCodeRow>;

export type ErrorCode = keyof typeof ERROR_CODES;
