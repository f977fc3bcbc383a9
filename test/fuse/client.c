// SPDX-License-Identifier: Apache-2.0
// A client of the test device that knows nothing of softsnp: system calls and what they answer.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct exchange {
  uint32_t seed, length;
  uint64_t source, target, out;
};
struct pause {
  uint32_t ms, marker;
};
#define TEST_XOR _IOWR('S', 0xf0, struct exchange)
#define TEST_FAIL_WITH_DATA _IOWR('S', 0xf1, struct exchange)
#define TEST_POSITIVE _IO('S', 0xf2)
#define TEST_SLOW _IOWR('S', 0xf3, struct pause)

static void say(const char *what, long result) {
  if (result < 0)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
}

static double microseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

// Exchanges `count` random buffers with the device, checks every byte, prints the times.
static int exchange(const char *path, int count) {
  enum { LENGTH = 4000 };
  static unsigned char a[LENGTH], b[LENGTH];
  double *times = malloc(count * sizeof *times);
  int fd = open(path, O_RDONLY);
  if (fd < 0)
    return say("open", -1), 1;
  srand(getpid());
  for (int i = 0; i < count; i++) {
    struct exchange x = {rand() & 255, LENGTH, (uintptr_t)a, (uintptr_t)b, 0};
    for (int k = 0; k < LENGTH; k += 13)
      a[k] = rand();
    double start = microseconds();
    int result = ioctl(fd, TEST_XOR, &x);
    times[i] = microseconds() - start;
    if (result != 0)
      return say("exchange", result), 1;
    for (int k = 0; k < LENGTH; k++)
      if (b[k] != (a[k] ^ x.seed))
        return printf("byte %d of exchange %d is wrong\n", k, i), 1;
    if (x.out != ((uint64_t)LENGTH << 32 | x.seed))
      return printf("the structure of exchange %d is wrong\n", i), 1;
  }
  qsort(times, count, sizeof *times, ascending);
  printf("{\"median_us\": %.1f, \"p99_us\": %.1f}\n", times[count / 2], times[count * 99 / 100]);
  return 0;
}

static void on_alarm(int signal) { (void)signal; }

static void *in_thread(void *path) { return (void *)(intptr_t)exchange(path, 5); }

static int edges(const char *folder) {
  char path[4096], other[4096];
  snprintf(path, sizeof path, "%s/device", folder);
  int fd = open(path, O_RDWR);
  unsigned char *pages = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(pages + 2 * 4096, 4096);
  mprotect(pages + 4096, 4096, PROT_READ);
  struct exchange good = {7, 16, (uintptr_t)pages, (uintptr_t)pages + 64, 0}, x = good;
  say("good pointers", ioctl(fd, TEST_XOR, &x));
  x = good, x.source = 8;
  say("unmapped source", ioctl(fd, TEST_XOR, &x));
  x = good, x.source = ~0ull - 8;
  say("source at the end of the address space", ioctl(fd, TEST_XOR, &x));
  x = good, x.target = (uintptr_t)pages + 4096;
  say("read-only target", ioctl(fd, TEST_XOR, &x));
  x = good, x.source = (uintptr_t)pages + 2 * 4096 - 8;
  say("source across the end of a mapping", ioctl(fd, TEST_XOR, &x));
  x = good, x.length = 0xffffffff;
  say("length of 4 GiB", ioctl(fd, TEST_XOR, &x));
  x = good, x.length = 0;
  say("length 0", ioctl(fd, TEST_XOR, &x));
  say("unmapped argument", ioctl(fd, TEST_XOR, (void *)8));
  say("read-only argument", ioctl(fd, TEST_XOR, pages + 4096));
  x = good;
  say("refusal with data", ioctl(fd, TEST_FAIL_WITH_DATA, &x));
  printf("its data: %d\n", x.seed == ~7u && x.length == ~16u);
  say("positive result", ioctl(fd, TEST_POSITIVE, 0));
  say("unknown number", ioctl(fd, _IOWR('S', 0x7f, struct exchange), &x));
  say("number of another type", ioctl(fd, _IO('T', 0xf2), 0));
  say("read", read(fd, pages, 8));
  say("write", write(fd, pages, 8));
  say("ftruncate", ftruncate(fd, 10));
  say("shared mmap", mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
  struct pollfd p = {fd, POLLIN, 0};
  say("poll", poll(&p, 1, 0));

  signal(SIGALRM, on_alarm);
  struct itimerval soon = {{0, 0}, {0, 20000}};
  struct pause wait = {80, 5};
  setitimer(ITIMER_REAL, &soon, 0);
  say("ioctl during which a signal came", ioctl(fd, TEST_SLOW, &wait));
  printf("its data: %d\n", wait.marker == ~5u);

  pthread_t thread;
  void *wrong;
  pthread_create(&thread, 0, in_thread, path);
  pthread_join(thread, &wrong);
  printf("exchange from a second thread: %d\n", (int)(intptr_t)wrong);
  close(fd);

  snprintf(other, sizeof other, "%s/new", folder);
  say("create", open(other, O_CREAT | O_WRONLY, 0600));
  say("open with O_CREAT of what is there", open(path, O_CREAT | O_RDWR | O_TRUNC, 0600) > 0);
  say("mkdir where none is offered", mkdir(other, 0700));
  say("rename", rename(path, other));
  say("unlink", unlink(path));
  say("symlink", symlink("x", other));
  say("link", link(path, other));
  say("chmod", chmod(path, 0640));
  struct stat st;
  stat(path, &st);
  printf("mode: %o\n", st.st_mode);
  chmod(path, 0600);
  snprintf(other, sizeof other, "%s/folders", folder);
  say("unlink of a folder", unlink(other));
  snprintf(other, sizeof other, "%s/folders/a", folder);
  say("mkdir", mkdir(other, 0700));
  say("mkdir again", mkdir(other, 0700));
  snprintf(path, sizeof path, "%s/folders/a/name", folder);
  int name = open(path, O_RDONLY);
  memset(pages, 0, 16);
  say("read of a new file", read(name, pages, 16));
  printf("it says: %s", pages);
  say("rmdir of a folder that has files", rmdir(other));
  say("rmdir again", rmdir(other));
  say("open of a file that is gone", open(path, O_RDONLY));
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "exchange") == 0)
    return exchange(argv[2], atoi(argv[3]));
  if (argc == 3 && strcmp(argv[1], "edges") == 0)
    return edges(argv[2]);
  if (argc == 4 && strcmp(argv[1], "slow") == 0) {
    struct pause wait = {atoi(argv[3]), 0};
    int fd = open(argv[2], O_RDONLY);
    puts("waiting");
    fflush(stdout);
    say("slow", ioctl(fd, TEST_SLOW, &wait));
    return 0;
  }
  return 64;
}
