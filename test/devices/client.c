// SPDX-License-Identifier: Apache-2.0
// A client of the devices that knows nothing of softsnp: the kernel's UAPI headers, system calls and what
// they answer.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/psp-sev.h>
#include <linux/sev-guest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };
// Newer than some installed headers.
enum { PLATFORM_STATUS = 9, COMMIT = 10, SET_CONFIG = 11, VLEK_LOAD = 12 };

static void say(const char *what, long result) {
  if (result < 0)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
}

// Three pages of which the second is read-only and the third is not there.
static unsigned char *pages(void) {
  unsigned char *at = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(at + 2 * PAGE, PAGE);
  mprotect(at + PAGE, PAGE, PROT_READ);
  return at;
}

// --- /dev/sev-guest

#define OWN 0x1122334455667788ull

static unsigned char *area;
static struct snp_report_req *report_req;
static struct snp_ext_report_req *ext_req;
static struct snp_derived_key_req *key_req;
static unsigned char response[4000], certs[0x4000];

static struct snp_guest_request_ioctl argument(void *request) {
  struct snp_guest_request_ioctl arg;
  memset(&arg, 0xcc, sizeof arg);
  arg.msg_version = 1;
  arg.req_data = (uintptr_t)request;
  arg.resp_data = (uintptr_t)response;
  arg.exitinfo2 = OWN;
  return arg;
}

// One ioctl and what it left in exitinfo2.
static void ask(const char *what, int fd, unsigned long cmd, struct snp_guest_request_ioctl arg) {
  int result = ioctl(fd, cmd, &arg);
  const char *name = result < 0 ? strerrorname_np(errno) : 0;
  if (name)
    printf("%s: %s", what, name);
  else
    printf("%s: %d", what, result);
  if (arg.exitinfo2 == OWN)
    printf("\n");
  else
    printf(", exitinfo2 0x%llx\n", (unsigned long long)arg.exitinfo2);
}

static void ask_certs(const char *what, int fd, void *at, uint32_t length) {
  ext_req->certs_address = (uintptr_t)at;
  ext_req->certs_len = length;
  ask(what, fd, SNP_GET_EXT_REPORT, argument(ext_req));
}

static sigjmp_buf after_fault;
static void on_fault(int signal) { siglongjmp(after_fault, signal); }

// The system call of a 32-bit program; a kernel need not have it.
static void compat(int fd) {
#ifdef __x86_64__
  unsigned char *low = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  signal(SIGSEGV, on_fault);
  if (low != MAP_FAILED && sigsetjmp(after_fault, 1) == 0) {
    long result = 54;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(fd), "c"(SNP_GET_REPORT), "d"(low) : "memory", "r8", "r9", "r10", "r11");
    if (result != -ENOSYS) {
      errno = -result;
      say("a 32-bit caller", result < 0 ? -1 : result);
      return;
    }
  }
#endif
  printf("a 32-bit caller: skipped, no such system calls here\n");
}

static void *in_thread(void *path) {
  int fd = open(path, O_RDONLY);
  ask("from a second thread", fd, SNP_GET_REPORT, argument(report_req));
  close(fd);
  return 0;
}

static int sev_guest(const char *path) {
  area = pages();
  report_req = (void *)area;
  ext_req = (void *)(area + 128);
  key_req = (void *)(area + 256);
  memset(area, 0, 512);
  memset(report_req->user_data, 0x5a, 64);
  int fd = open(path, O_RDONLY);
  struct snp_guest_request_ioctl arg;

  ask("report", fd, SNP_GET_REPORT, argument(report_req));
  printf("its REPORT_DATA: %d\n", memcmp(response + 32 + 0x50, report_req->user_data, 64) == 0);
  ask("derived key", fd, SNP_GET_DERIVED_KEY, argument(key_req));
  int other = open(path, O_WRONLY);
  ask("through a write-only descriptor", other, SNP_GET_REPORT, argument(report_req));
  close(other);

  say("unmapped argument", ioctl(fd, SNP_GET_REPORT, (void *)8));
  say("argument across the end of a mapping", ioctl(fd, SNP_GET_REPORT, area + 2 * PAGE - 16));
  arg = argument(report_req);
  mprotect(area + PAGE, PAGE, PROT_READ | PROT_WRITE);
  memcpy(area + PAGE, &arg, sizeof arg);
  mprotect(area + PAGE, PAGE, PROT_READ);
  say("read-only argument, nothing to copy back", ioctl(fd, SNP_GET_REPORT, area + PAGE));
  say("read-only argument, exitinfo2 to copy back", ioctl(fd, _IOWR('S', 9, arg), area + PAGE));

  arg = argument(report_req), arg.msg_version = 0;
  ask("msg_version 0", fd, SNP_GET_REPORT, arg);
  ask("msg_version 0 of an unknown command", fd, _IOWR('S', 9, arg), arg);
  ask("unknown command", fd, _IOWR('S', 9, arg), argument(report_req));
  ask("unknown command without data", fd, _IO('S', 9), argument(report_req));
  ask("unknown command with 8 bytes", fd, _IOW('S', 9, uint64_t), argument(report_req));
  ask("known command, another size", fd, _IOWR('S', 0, uint64_t), argument(report_req));
  say("unknown command, unmapped argument", ioctl(fd, _IO('S', 9), (void *)8));
  arg = argument(0);
  ask("req_data 0", fd, SNP_GET_REPORT, arg);
  arg = argument(report_req), arg.resp_data = 0;
  ask("resp_data 0", fd, SNP_GET_REPORT, arg);
  ask("unmapped request", fd, SNP_GET_REPORT, argument((void *)8));
  ask("request at the end of the address space", fd, SNP_GET_REPORT, argument((void *)-16));
  ask("request across the end of a mapping", fd, SNP_GET_REPORT, argument(area + 2 * PAGE - 95));
  ask("request at the end of a mapping", fd, SNP_GET_REPORT, argument(area + 2 * PAGE - 96));
  arg = argument(report_req), arg.resp_data = 8;
  ask("unmapped response", fd, SNP_GET_REPORT, arg);
  arg = argument(report_req), arg.resp_data = (uintptr_t)area + PAGE;
  ask("read-only response", fd, SNP_GET_REPORT, arg);

  ask_certs("certs_len 0", fd, (void *)-1, 0);
  printf("certs_len now: 0x%x\n", ext_req->certs_len);
  ask_certs("certs_address 0", fd, 0, 0x1000);
  printf("certs_len now: 0x%x\n", ext_req->certs_len);
  ask_certs("certs_len 1", fd, certs, 1);
  ask_certs("certs_len 0x1001", fd, certs, 0x1001);
  ask_certs("certs_len 0x5000", fd, certs, 0x5000);
  ask_certs("certs_len 0xffffffff", fd, certs, 0xffffffff);
  ask_certs("certs_address of the kernel", fd, (void *)0xffff888000000000, 0x4000);
  ask_certs("certs_address unmapped", fd, (void *)PAGE, 0x4000);
  ask_certs("certs_address read-only", fd, area + PAGE, 0x1000);
  ask_certs("certificates", fd, certs, 0x4000);
  printf("they are there: %d\n", certs[0] != 0);
  memset(certs, 0xee, sizeof certs);
  ask_certs("a buffer of one page", fd, certs, 0x1000);
  ask_certs("a buffer of two pages", fd, certs, 0x2000);
  printf("bytes behind it: 0x%x\n", certs[0x2000]);
  mprotect(area + PAGE, PAGE, PROT_READ | PROT_WRITE);
  memset(area + PAGE, 0, PAGE);
  mprotect(area + PAGE, PAGE, PROT_READ);
  ask("too few pages, read-only request", fd, SNP_GET_EXT_REPORT, argument(area + PAGE));

  other = open(path, O_RDWR);
  say("read", read(other, response, 8));
  say("write", write(other, response, 8));
  close(other);
  say("shared mmap", mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
  compat(fd);
  pthread_t thread;
  pthread_create(&thread, 0, in_thread, (void *)path);
  pthread_join(thread, 0);
  fflush(stdout);
  if (fork() == 0) {
    memset(report_req->user_data, 0xa5, 64);
    ask("from a child, on the parent's descriptor", fd, SNP_GET_REPORT, argument(report_req));
    printf("its REPORT_DATA: %d\n", response[32 + 0x50] == 0xa5);
    exit(0);
  }
  wait(0);
  return 0;
}

// Asks for certificates as often as it takes, while the blob grows: each answer says how much is needed now.
static int grow(const char *path) {
  area = pages();
  ext_req = (void *)area;
  int fd = open(path, O_RDONLY);
  for (;;) {
    uint32_t had = ext_req->certs_len;
    ext_req->certs_address = (uintptr_t)certs;
    struct snp_guest_request_ioctl arg = argument(ext_req);
    int result = ioctl(fd, SNP_GET_EXT_REPORT, &arg);
    if (result == 0) {
      printf("0x%x: enough, last byte 0x%x\n", had, certs[had - 1]);
      return 0;
    }
    if (errno != EIO || arg.exitinfo2 != 1ull << 32) {
      printf("0x%x: %s\n", had, strerrorname_np(errno));
      return 0;
    }
    printf("0x%x: 0x%x needed\n", had, ext_req->certs_len);
  }
}

static void save(const char *folder, const char *name, const void *data, size_t size) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%d.%s", folder, getpid(), name);
  FILE *file = fopen(path, "w");
  if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
    say(path, -1);
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

// `count` requests with random REPORT_DATA; every answer must be the one to the question. With a folder the
// times at which each began and ended go into it, in milliseconds, and the last report with its certificates.
static int hammer(const char *path, int count, const char *folder) {
  double(*times)[2] = calloc(count, sizeof *times);
  struct snp_ext_report_req request = {0};
  int fd = open(path, O_RDONLY);
  srand(getpid());
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < 64; k++)
      request.data.user_data[k] = rand();
    struct snp_guest_request_ioctl arg = argument(&request);
    request.certs_address = (uintptr_t)certs;
    request.certs_len = 0x4000;
    times[i][0] = now();
    if (ioctl(fd, i % 2 ? SNP_GET_EXT_REPORT : SNP_GET_REPORT, &arg) != 0)
      return say("hammer", -1), 1;
    times[i][1] = now();
    if (memcmp(response + 32 + 0x50, request.data.user_data, 64) != 0)
      return printf("answer %d is somebody else's\n", i), 1;
  }
  if (folder) {
    save(folder, "times", times, count * sizeof *times);
    save(folder, "report", response + 32, 1184);
    save(folder, "certs", certs, sizeof certs);
  }
  free(times);
  return 0;
}

// `count` times a process that asks and is killed some time within a millisecond and a half.
static int kill_askers(const char *path, int count) {
  struct snp_ext_report_req request = {.certs_address = (uintptr_t)certs, .certs_len = 0x4000};
  srand(1);
  for (int i = 0; i < count; i++) {
    int ready[2], status;
    char byte;
    if (pipe(ready) != 0)
      return say("pipe", -1), 1;
    pid_t child = fork();
    if (child == 0) {
      int fd = open(path, O_RDONLY);
      struct snp_guest_request_ioctl arg = argument(&request);
      if (write(ready[1], "x", 1) != 1 || ioctl(fd, SNP_GET_EXT_REPORT, &arg) != 0)
        _exit(2);
      for (;;)
        pause();
    }
    if (read(ready[0], &byte, 1) != 1)
      return say("read", -1), 1;
    usleep(rand() % 1500);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status))
      return printf("process %d ended with %d\n", i, WEXITSTATUS(status)), 1;
    close(ready[0]);
    close(ready[1]);
  }
  return 0;
}

// --- /dev/sev

static void issue(const char *what, int fd, uint32_t id, void *data) {
  struct sev_issue_cmd arg = {.cmd = id, .data = (uintptr_t)data, .error = 0xeeeeeeee};
  int result = ioctl(fd, SEV_ISSUE_CMD, &arg);
  printf("%s: %s", what, result < 0 ? strerrorname_np(errno) : "0");
  if (arg.error != 0xeeeeeeee)
    printf(", error 0x%x", arg.error);
  printf("\n");
}

// Certificates of a platform and who owns it; at the end it is as it was made.
static void legacy(int reader, int writer) {
  static unsigned char pdh[0x4001], chain[0x4001];
  struct sev_user_data_pek_csr csr = {0, 0};
  struct sev_user_data_pdh_cert_export export = {(uintptr_t)pdh, sizeof pdh - 1, (uintptr_t)chain, sizeof chain - 1};
  struct sev_user_data_pek_cert_import import = {(uintptr_t)pdh, 2084, (uintptr_t)chain, 2084};

  issue("SEV_PDH_CERT_EXPORT, reader", reader, SEV_PDH_CERT_EXPORT, &export);
  printf("its lengths: %u, %u\n", export.pdh_cert_len, export.cert_chain_len);
  printf("its usages: 0x%x, 0x%x, 0x%x, 0x%x\n", *(uint32_t *)(pdh + 8), *(uint32_t *)(chain + 8),
         *(uint32_t *)(chain + 2092), *(uint32_t *)(chain + 4176));
  export.cert_chain_len = 0;
  issue("SEV_PDH_CERT_EXPORT, no room", reader, SEV_PDH_CERT_EXPORT, &export);
  printf("its lengths: %u, %u\n", export.pdh_cert_len, export.cert_chain_len);
  export.pdh_cert_len = sizeof pdh;
  issue("SEV_PDH_CERT_EXPORT, 0x4001 bytes", reader, SEV_PDH_CERT_EXPORT, &export);
  export.pdh_cert_len = 2084, export.pdh_cert_address = (uintptr_t)area + PAGE;
  issue("SEV_PDH_CERT_EXPORT, read-only buffer", reader, SEV_PDH_CERT_EXPORT, &export);
  issue("SEV_PDH_CERT_EXPORT, unmapped data", reader, SEV_PDH_CERT_EXPORT, (void *)8);
  issue("SEV_PEK_CSR, reader", reader, SEV_PEK_CSR, &csr);
  issue("SEV_PEK_CSR, no room", writer, SEV_PEK_CSR, &csr);
  printf("its length: %u\n", csr.length);
  csr.address = (uintptr_t)pdh, csr.length = sizeof pdh;
  issue("SEV_PEK_CSR, 0x4001 bytes", writer, SEV_PEK_CSR, &csr);
  csr.length = 2084;
  issue("SEV_PEK_CSR", writer, SEV_PEK_CSR, &csr);
  printf("its signers: 0x%x, 0x%x\n", *(uint32_t *)(pdh + 0x414), *(uint32_t *)(pdh + 0x61c));
  issue("SEV_PEK_CERT_IMPORT, reader", reader, SEV_PEK_CERT_IMPORT, &import);
  issue("SEV_PEK_CERT_IMPORT, unsigned", writer, SEV_PEK_CERT_IMPORT, &import);
  import.oca_cert_len = 2083;
  issue("SEV_PEK_CERT_IMPORT, too short", writer, SEV_PEK_CERT_IMPORT, &import);
  import.oca_cert_len = sizeof chain;
  issue("SEV_PEK_CERT_IMPORT, 0x4001 bytes", writer, SEV_PEK_CERT_IMPORT, &import);
  import.oca_cert_len = 2084, import.oca_cert_address = 8;
  issue("SEV_PEK_CERT_IMPORT, unmapped OCA", writer, SEV_PEK_CERT_IMPORT, &import);
  import.pek_cert_address = 0;
  issue("SEV_PEK_CERT_IMPORT, no PEK", writer, SEV_PEK_CERT_IMPORT, &import);
  issue("SEV_PEK_GEN, reader", reader, SEV_PEK_GEN, 0);
  issue("SEV_PEK_GEN, data that is not looked at", writer, SEV_PEK_GEN, (void *)8);
  issue("SEV_PDH_GEN, reader", reader, SEV_PDH_GEN, 0);
  issue("SEV_PDH_GEN", writer, SEV_PDH_GEN, 0);
  issue("SEV_FACTORY_RESET, reader", reader, SEV_FACTORY_RESET, 0);
  issue("SEV_FACTORY_RESET", writer, SEV_FACTORY_RESET, 0);
  issue("SEV_PLATFORM_STATUS", reader, SEV_PLATFORM_STATUS, area);
  printf("its state: %d\n", area[2]);
  export = (struct sev_user_data_pdh_cert_export){(uintptr_t)pdh, 2084, (uintptr_t)chain, 6252};
  issue("SEV_PDH_CERT_EXPORT after it, reader", reader, SEV_PDH_CERT_EXPORT, &export);
  issue("SEV_PDH_CERT_EXPORT after it, writer", writer, SEV_PDH_CERT_EXPORT, &export);
}

static int sev(const char *path) {
  area = pages();
  int reader = open(path, O_RDONLY), writer = open(path, O_RDWR);
  struct sev_user_data_get_id2 id = {(uintptr_t)certs, 64};

  issue("SNP_PLATFORM_STATUS", reader, PLATFORM_STATUS, area);
  printf("its state: %d\n", area[2]);
  issue("SNP_PLATFORM_STATUS, data 0", reader, PLATFORM_STATUS, 0);
  issue("SNP_PLATFORM_STATUS, unmapped data", reader, PLATFORM_STATUS, (void *)8);
  issue("SNP_PLATFORM_STATUS, read-only data", reader, PLATFORM_STATUS, area + PAGE);
  issue("SEV_PLATFORM_STATUS", reader, SEV_PLATFORM_STATUS, area);
  issue("SEV_GET_ID2", reader, SEV_GET_ID2, &id);
  printf("its length: %u\n", id.length);
  id.length = 8;
  issue("SEV_GET_ID2, too small", reader, SEV_GET_ID2, &id);
  printf("its length: %u\n", id.length);
  id.address = (uintptr_t)area + PAGE;
  issue("SEV_GET_ID2, read-only buffer", reader, SEV_GET_ID2, &id);
  issue("SNP_COMMIT", reader, COMMIT, (void *)8);
  memset(area, 0, 64);
  issue("SNP_SET_CONFIG, reader", reader, SET_CONFIG, area);
  issue("SNP_SET_CONFIG, writer", writer, SET_CONFIG, area);
  issue("SNP_SET_CONFIG, reader, data 0", reader, SET_CONFIG, 0);
  issue("SNP_SET_CONFIG, unmapped data", writer, SET_CONFIG, (void *)8);
  area[63] = 1;
  issue("SNP_SET_CONFIG, reserved byte set", writer, SET_CONFIG, area);
  memset(area, 0, 64);
  issue("SNP_VLEK_LOAD, all zero", writer, VLEK_LOAD, area);
  area[0] = 16, area[8] = 8;
  issue("SNP_VLEK_LOAD, unmapped hash stick", writer, VLEK_LOAD, area);
  legacy(reader, writer);
  issue("command 13", writer, 13, area);
  issue("command 0xffffffff", writer, 0xffffffff, area);
  say("another ioctl", ioctl(writer, _IOWR('S', 1, struct sev_issue_cmd), area));
  say("unmapped argument", ioctl(writer, SEV_ISSUE_CMD, (void *)8));
  struct sev_issue_cmd commit = {.cmd = COMMIT};
  mprotect(area + PAGE, PAGE, PROT_READ | PROT_WRITE);
  memcpy(area + PAGE, &commit, sizeof commit);
  mprotect(area + PAGE, PAGE, PROT_READ);
  say("read-only argument", ioctl(writer, SEV_ISSUE_CMD, area + PAGE));
  say("read", read(writer, area, 8));
  return 0;
}

// --- configfs-tsm

static char folder[4096], path[8192];

static const char *in_entry(const char *name) {
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void text(const char *name) {
  char buffer[4096];
  int fd = open(in_entry(name), O_RDONLY);
  ssize_t count = read(fd, buffer, sizeof buffer - 1);
  if (count < 0) {
    say(name, -1);
  } else {
    buffer[count] = 0;
    printf("%s: %s", name, buffer);
  }
  close(fd);
}

static void put(const char *name, const char *what, const void *data, size_t size) {
  int fd = open(in_entry(name), O_WRONLY | O_CREAT | O_TRUNC, 0220);
  say(what, write(fd, data, size));
  close(fd);
}

// Reads a blob as Go does: 512 bytes at a time.
static void blob(const char *name) {
  static unsigned char buffer[65536];
  int fd = open(in_entry(name), O_RDONLY);
  ssize_t total = 0, count;
  while ((count = read(fd, buffer + total, 512)) > 0)
    total += count;
  say(name, count < 0 ? -1 : total);
  close(fd);
}

static int tsm(const char *root) {
  unsigned char data[128];
  memset(data, 0x42, sizeof data);
  snprintf(folder, sizeof folder, "%s/tsm/report", root);
  say("mkdir in report", mkdir(in_entry("entry1"), 0700));
  say("mkdir again", mkdir(in_entry("entry1"), 0700));
  say("mkdir in the root", mkdir((snprintf(path, sizeof path, "%s/x", root), path), 0700));
  say("rmdir of report", rmdir(folder));
  say("rmdir of tsm", rmdir((snprintf(path, sizeof path, "%s/tsm", root), path)));
  snprintf(folder, sizeof folder, "%s/tsm/report/entry1", root);
  struct stat st;
  stat(folder, &st);
  printf("mode of the entry: %o\n", st.st_mode);
  stat(in_entry("outblob"), &st);
  printf("outblob: mode %o, %ld bytes\n", st.st_mode, st.st_size);
  stat(in_entry("privlevel"), &st);
  printf("privlevel: mode %o, %ld bytes\n", st.st_mode, st.st_size);
  say("mkdir in the entry", mkdir(in_entry("x"), 0700));
  say("open outblob for writing", open(in_entry("outblob"), O_WRONLY));
  say("open outblob for both", open(in_entry("outblob"), O_RDWR));
  say("open inblob for reading", open(in_entry("inblob"), O_RDONLY));
  say("open what is not there", open(in_entry("manifestblob"), O_RDONLY));
  say("create what is not there", open(in_entry("manifestblob"), O_WRONLY | O_CREAT, 0600));
  say("unlink an attribute", unlink(in_entry("inblob")));
  say("unlink the entry", unlink(folder));
  say("chmod", chmod(in_entry("inblob"), 0220));
  text("provider");
  text("privlevel_floor");
  text("generation");
  blob("outblob");
  put("inblob", "write of 64 bytes", data, 64);
  text("generation");
  put("privlevel", "privlevel 2", "2", 1);
  put("privlevel", "privlevel of one raw byte", "\2", 1);
  put("privlevel", "privlevel 4", "4", 1);
  text("generation");
  blob("auxblob");
  blob("outblob");
  text("generation");
  put("inblob", "write of 65 bytes", data, 65);
  text("generation");
  blob("outblob");
  put("inblob", "write of 63 bytes", data, 63);
  blob("outblob");
  put("inblob", "write of 64 bytes", data, 64);
  int held = open(in_entry("outblob"), O_RDONLY), late = open(in_entry("outblob"), O_RDONLY);
  say("read", read(held, data, 100));
  say("rmdir of the entry", rmdir(folder));
  say("rmdir again", rmdir(folder));
  say("read of what was read before", read(held, data, 100));
  say("first read after rmdir", read(late, data, 100));
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  if (argc == 3 && strcmp(argv[1], "sev-guest") == 0)
    return sev_guest(argv[2]);
  if (argc == 3 && strcmp(argv[1], "grow") == 0)
    return grow(argv[2]);
  if (argc == 4 && strcmp(argv[1], "hammer") == 0)
    return hammer(argv[2], atoi(argv[3]), 0);
  if (argc == 5 && strcmp(argv[1], "hammer") == 0)
    return hammer(argv[2], atoi(argv[3]), argv[4]);
  if (argc == 4 && strcmp(argv[1], "kill") == 0)
    return kill_askers(argv[2], atoi(argv[3]));
  if (argc == 3 && strcmp(argv[1], "sev") == 0)
    return sev(argv[2]);
  if (argc == 3 && strcmp(argv[1], "tsm") == 0)
    return tsm(argv[2]);
  return 64;
}
