// SPDX-License-Identifier: Apache-2.0
// Put before libc with LD_PRELOAD: ends the process at the N-th call that changes a file below a folder, as
// kill -9 would. FAULT_BELOW is the folder, FAULT_AT is N; FAULT_LOG is a file to which every such call is
// written instead, a line each.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int seen;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void about_to(const char *call, const char *path) {
  const char *below = getenv("FAULT_BELOW"), *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
  if (!below || strncmp(path, below, strlen(below)) != 0)
    return;
  int now = __sync_add_and_fetch(&seen, 1);
  if (at && atoi(at) == now)
    raise(SIGKILL);
  if (log) {
    char line[8192];
    int length = snprintf(line, sizeof line, "%d %s %s\n", now, call, path);
    int (*open_)(const char *, int, ...) = real("open");
    ssize_t (*write_)(int, const void *, size_t) = real("write");
    int fd = open_(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write_(fd, line, length) != length)
      abort();
    close(fd);
  }
}

static void about_to_fd(const char *call, int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length > 0) {
    path[length] = 0;
    about_to(call, path);
  }
}

#define OPEN(NAME)                                                                                                     \
  int NAME(const char *path, int flags, ...) {                                                                         \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
      va_list list;                                                                                                    \
      va_start(list, flags);                                                                                           \
      mode = va_arg(list, int);                                                                                        \
      va_end(list);                                                                                                    \
    }                                                                                                                  \
    if ((flags & O_ACCMODE) != O_RDONLY)                                                                               \
      about_to("open", path);                                                                                          \
    return ((int (*)(const char *, int, ...))real(#NAME))(path, flags, mode);                                          \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size) {
  about_to_fd("write", fd);
  return ((ssize_t(*)(int, const void *, size_t))real("write"))(fd, data, size);
}

#define PWRITE(NAME)                                                                                                   \
  ssize_t NAME(int fd, const void *data, size_t size, off_t at) {                                                      \
    about_to_fd("write", fd);                                                                                          \
    return ((ssize_t(*)(int, const void *, size_t, off_t))real(#NAME))(fd, data, size, at);                            \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

#define ON_FD(NAME)                                                                                                    \
  int NAME(int fd) {                                                                                                   \
    about_to_fd(#NAME, fd);                                                                                            \
    return ((int (*)(int))real(#NAME))(fd);                                                                            \
  }
ON_FD(fsync)
ON_FD(fdatasync)

#define ON_PATHS(NAME)                                                                                                 \
  int NAME(const char *from, const char *to) {                                                                         \
    about_to(#NAME, to);                                                                                               \
    return ((int (*)(const char *, const char *))real(#NAME))(from, to);                                               \
  }
ON_PATHS(rename)
ON_PATHS(link)

int unlink(const char *path) {
  about_to("unlink", path);
  return ((int (*)(const char *))real("unlink"))(path);
}

int rmdir(const char *path) {
  about_to("rmdir", path);
  return ((int (*)(const char *))real("rmdir"))(path);
}

int mkdir(const char *path, mode_t mode) {
  about_to("mkdir", path);
  return ((int (*)(const char *, mode_t))real("mkdir"))(path, mode);
}
