#include "textflag.h"

// Offsets in control and step, see spawn_unsafe.go.
#define ctl_state 0
#define ctl_gate  4
#define ctl_pc    8
#define ctl_errno 16
#define ctl_next  24
#define step_size 64

// linux/arch/x86/entry/syscalls/syscall_64.tbl
#define SYS_futex      202
#define SYS_exit_group 231
#define SYS_clone3     435

// func cloneRun(args *cloneArgs, size uintptr, ctl *control) (pid, errno uintptr)
//
// The child never returns. It shares this stack with the parent and so must
// not touch it: SYSCALL itself needs none.
TEXT ·cloneRun(SB), NOSPLIT, $0-40
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ ctl+16(FP), R13
	MOVQ $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JZ   childwait
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	MOVQ AX, pid+24(FP)
	MOVQ $0, errno+32(FP)
	RET

failed:
	NEGQ AX
	MOVQ $0, pid+24(FP)
	MOVQ AX, errno+32(FP)
	RET

	// R13: control. R12: step. R15: programs done. SYSCALL keeps all three.
childwait:
	XORQ R15, R15

wait:
	// Wait until gate is above the number of programs done.
	MOVL ctl_gate(R13), DX
	CMPL DX, R15
	JHI  next
	LEAQ ctl_gate(R13), DI
	XORQ SI, SI           // FUTEX_WAIT
	XORQ R10, R10
	MOVQ $SYS_futex, AX
	SYSCALL
	JMP  wait

next:
	MOVQ ctl_next(R13), R12

step:
	MOVQ R12, ctl_pc(R13)
	MOVQ 0(R12), AX
	TESTQ AX, AX
	JLT  done
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JCC  error

advance:
	ADDQ $step_size, R12
	JMP  step

error:
	// 56(R12) is not 0 if this step may fail.
	MOVQ 56(R12), DX
	TESTQ DX, DX
	JNZ  advance
	NEGQ AX
	MOVQ AX, ctl_errno(R13)

die:
	MOVQ $127, DI
	MOVQ $SYS_exit_group, AX
	SYSCALL
	// A seccomp filter may refuse even this. Handlers are reset, so an invalid
	// instruction kills.
	UNDEF
	JMP  die

done:
	// state = programs done + 1, and wake the agent.
	INCQ R15
	LEAQ 1(R15), AX
	XCHGL AX, ctl_state(R13)
	LEAQ ctl_state(R13), DI
	MOVQ $1, SI           // FUTEX_WAKE
	MOVQ $1, DX
	MOVQ $SYS_futex, AX
	SYSCALL
	JMP  wait
