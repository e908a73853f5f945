// Two processes hold different patterns in a YMM register while they hand the processor to each other. A kernel or a
// VMM that saves too little state mixes them up. Exit code 0: never; output: the number of checks.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { rounds = 60 };

// No call of a C function stands between load and store: the compiler and libc may use the register too.
static int hold(uint64_t seed)
{
	int bad = 0;
	uint64_t want[4], got[4];

	for (int n = 0; n < rounds; n++) {
		for (int i = 0; i < 4; i++)
			want[i] = seed * 0x0101010101010101ULL + n * 4 + i;
		asm volatile("vmovdqu %1, %%ymm7\n\t"
			     "mov %2, %%eax\n\tsyscall\n\t"
			     "mov %2, %%eax\n\tsyscall\n\t"
			     "vmovdqu %%ymm7, %0"
			     : "=m"(got)
			     : "m"(want), "i"(SYS_sched_yield)
			     : "rax", "rcx", "r11", "xmm7", "memory");
		bad += memcmp(want, got, sizeof(want)) != 0;
	}
	return bad;
}

int main(void)
{
	int bad = 0, status, children = 2;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one)) {
		perror("sched_setaffinity");
		return 2;
	}
	for (int i = 0; i < children; i++) {
		pid_t pid = fork();
		if (pid < 0) {
			perror("fork");
			return 2;
		}
		if (pid == 0)
			_exit(hold(i + 1));
	}
	for (int i = 0; i < children; i++) {
		if (wait(&status) < 0 || !WIFEXITED(status))
			return 3;
		bad += WEXITSTATUS(status);
	}
	printf("%d checks, %d bad\n", children * rounds, bad);
	return bad != 0;
}
