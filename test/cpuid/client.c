// SPDX-License-Identifier: Apache-2.0
// Executes CPUID in every way a program can, and does with signals what programs do.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *self;

struct regs {
  uint32_t eax, ebx, ecx, edx;
};

static struct regs cpuid(uint32_t leaf, uint32_t subleaf) {
  struct regs r;
  __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "0"(leaf), "2"(subleaf));
  return r;
}

// The same instruction where the scan does not look: in memory that is made at run time.
static struct regs real_cpuid(uint32_t leaf, uint32_t subleaf) {
  static const uint8_t code[] = {0x53, 0x49, 0x89, 0xd0, 0x89, 0xf8, 0x89, 0xf1, 0x0f, 0xa2, 0x41,
                                 0x89, 0x00, 0x41, 0x89, 0x58, 0x04, 0x41, 0x89, 0x48, 0x08, 0x41,
                                 0x89, 0x50, 0x0c, 0x5b, 0xc3};
  static void *page;
  if (page == NULL) {
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
  }
  struct regs r;
  ((void (*)(uint32_t, uint32_t, struct regs *))page)(leaf, subleaf, &r);
  return r;
}

static void show_name(void) {
  uint32_t name[13] = {0};
  for (uint32_t i = 0; i < 3; i++) {
    struct regs r = cpuid(0x80000002 + i, 0);
    memcpy(name + 4 * i, &r, sizeof r);
  }
  printf("%s\n", (char *)name);
  fflush(stdout);
}

static void show_leaves(void) {
  static const uint32_t leaves[] = {0, 1, 0x80000000, 0x80000001, 0x8000001f};
  for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
    struct regs r = cpuid(leaves[i], 0);
    printf("%x: %x %x %x %x\n", leaves[i], r.eax, r.ebx, r.ecx, r.edx);
  }
  show_name();
  struct regs ours = cpuid(7, 0), real = real_cpuid(7, 0);
  printf("features: %s\n", memcmp(&ours, &real, sizeof ours) == 0 ? "real" : "changed");
}

static int is_amd(void) {
  struct regs r = cpuid(0x80000001, 0);
  return r.eax == 0xa00f11 && r.ebx == 0x40000000;
}

static void *loop(void *count) {
  intptr_t wrong = 0;
  for (intptr_t i = (intptr_t)count; i > 0; i--) {
    wrong += !is_amd();
  }
  return (void *)wrong;
}

static void threads(int n, intptr_t count) {
  pthread_t ids[64];
  intptr_t wrong = 0;
  for (int i = 0; i < n; i++) {
    pthread_create(&ids[i], NULL, loop, (void *)count);
  }
  for (int i = 0; i < n; i++) {
    void *result;
    pthread_join(ids[i], &result);
    wrong += (intptr_t)result;
  }
  printf("wrong: %ld\n", (long)wrong);
}

static void *exec_self(void *mode) {
  execl(self, self, (char *)mode, NULL);
  return NULL;
}

static void *exit_soon(void *code) {
  usleep(20000);
  is_amd() ? exit((int)(intptr_t)code) : abort();
}

static volatile sig_atomic_t handled, handled_code, at_ud2;

static void on_sigill(int signal, siginfo_t *info, void *context) {
  (void)signal;
  handled++;
  handled_code = info->si_code;
  if (info->si_code > 0) {
    at_ud2 = memcmp(info->si_addr, "\x0f\x0b", 2) == 0;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
  }
}

static void own_sigill(void) {
  struct sigaction action = {.sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO};
  sigaction(SIGILL, &action, NULL);
  __asm__ volatile("ud2");
  printf("ud2: handled %d code %d at %d\n", handled, handled_code, at_ud2);
  kill(getpid(), SIGILL);
  printf("kill: handled %d code %d\n", handled, handled_code);
  printf("cpuid: %d handled %d\n", is_amd(), handled);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int signal) {
  (void)signal;
  alarms += is_amd();
}

// Signals at any instant, also between the trap and the next instruction.
static void alarmed(void) {
  struct sigaction action = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval often = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &often, NULL);
  intptr_t wrong = 0;
  for (int i = 0; i < 300 || alarms < 50; i++) {
    wrong += !is_amd();
  }
  printf("wrong: %ld\n", (long)wrong);
}

// A shell's view of a job.
static void job(void) {
  int next[2], status;
  char byte = 0;
  if (pipe(next) != 0) {
    return;
  }
  pid_t child = fork();
  if (child == 0) {
    // As a shell does it; in an orphaned group, which ours may be, SIGTSTP stops nobody.
    setpgid(0, 0);
    raise(SIGSTOP);
    // Not before the parent has seen that it goes on.
    int got = read(next[0], &byte, 1);
    raise(SIGTSTP);
    got += read(next[0], &byte, 1);
    _exit(got == 2 && is_amd() ? 7 : 1);
  }
  for (int stop = 0; stop < 2; stop++) {
    waitpid(child, &status, WUNTRACED);
    printf("stopped: %d by %d\n", WIFSTOPPED(status), WIFSTOPPED(status) ? WSTOPSIG(status) : 0);
    usleep(10000);
    printf("early: %d\n", waitpid(child, &status, WNOHANG | WUNTRACED | WCONTINUED));
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    printf("continued: %d\n", WIFCONTINUED(status));
    if (write(next[1], &byte, 1) != 1) {
      return;
    }
  }
  waitpid(child, &status, 0);
  printf("exit: %d\n", WEXITSTATUS(status));
}

static void caught(int signal) {
  printf("caught %d\n", signal);
  fflush(stdout);
}

static void up(void) {
  struct sigaction action = {.sa_handler = caught};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGCONT, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  printf("up %d\n", getpid());
  fflush(stdout);
  for (;;) {
    pause();
  }
}

static void children(int n) {
  volatile int wrong = 0;
  for (volatile int i = 0; i < n; i++) {
    pid_t child = i % 2 ? fork() : vfork();
    if (child == 0) {
      _exit(is_amd() ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    wrong += status != 0;
  }
  printf("wrong: %d\n", wrong);
}

static void timed(int count) {
  struct timespec from, to;
  clock_gettime(CLOCK_MONOTONIC, &from);
  loop((void *)(intptr_t)count);
  clock_gettime(CLOCK_MONOTONIC, &to);
  printf("%ld\n", ((to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec) / count / 1000);
}

static void constants(void) {
  uint32_t value, wide;
  uint64_t address;
  __asm__ volatile("movl $0x90a20f90, %0" : "=r"(value));
  __asm__ volatile("movl $0xa20f0000, %0; addl $0xa20f, %0" : "=r"(wide));
  __asm__ volatile("movabsq $0x0fa20fa20fa20fa2, %0" : "=r"(address));
  printf("%x %x %lx\n", value, wide, address);
}

// What a sandbox does.
static void without_ptrace(char **command) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
  execvp(*command, command);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  self = argv[0];
  const char *mode = argc > 1 ? argv[1] : "leaves";
  int number = argc > 2 ? atoi(argv[2]) : 0;
  pthread_t thread;
  if (strcmp(mode, "leaves") == 0) {
    show_leaves();
  } else if (strcmp(mode, "name") == 0) {
    show_name();
  } else if (strcmp(mode, "constants") == 0) {
    constants();
  } else if (strcmp(mode, "children") == 0) {
    children(number);
  } else if (strcmp(mode, "exec") == 0) {
    exec_self("name");
  } else if (strcmp(mode, "exec-thread") == 0) {
    pthread_create(&thread, NULL, exec_self, "name");
    pause();
  } else if (strcmp(mode, "leader-exits") == 0) {
    pthread_create(&thread, NULL, exit_soon, (void *)(intptr_t)number);
    pthread_exit(NULL);
  } else if (strcmp(mode, "threads") == 0) {
    threads(number, argc > 3 ? atoi(argv[3]) : 1);
  } else if (strcmp(mode, "own-sigill") == 0) {
    own_sigill();
  } else if (strcmp(mode, "alarmed") == 0) {
    alarmed();
  } else if (strcmp(mode, "job") == 0) {
    job();
  } else if (strcmp(mode, "up") == 0) {
    up();
  } else if (strcmp(mode, "timed") == 0) {
    timed(number);
  } else if (strcmp(mode, "exit") == 0) {
    return is_amd() ? number : 1;
  } else if (strcmp(mode, "no-ptrace") == 0) {
    without_ptrace(argv + 2);
  } else if (strcmp(mode, "die") == 0) {
    raise(number);
  }
  return 0;
}
