package spawn

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is what agent and child share. The assembly knows its layout.
type control struct {
	state uint32  // programs done + 1; 0 when the child has exec'd or died
	gate  uint32  // programs that may run
	pc    uintptr // address of the step that runs
	errno uintptr // of the step that failed
	next  uintptr // address of the program's first step
	pidFD int32   // written by clone3
}

// step is one system call. The assembly knows its layout.
type step struct {
	nr      uintptr // stepEnd: the program is over
	args    [6]uintptr
	mayFail uintptr // not 0: an error is no failure
}

// stepEnd is a negative system call number.
const stepEnd = ^uintptr(0)

// cloneArgs is struct clone_args of linux/sched.h, CLONE_ARGS_SIZE_VER2.
type cloneArgs struct {
	flags, pidFD, childTID uint64
	_                      uint64 // parent_tid
	exitSignal             uint64
	_                      [5]uint64 // stack, stack_size, tls, set_tid, set_tid_size
	cgroup                 uint64
}

// Not in x/sys.
const (
	cloneClearSighand = 0x100000000 // linux/sched.h, CLONE_CLEAR_SIGHAND
	cmdFutexWait      = 0           // linux/futex.h, FUTEX_WAIT
	cmdFutexWake      = 1           // linux/futex.h, FUTEX_WAKE
)

// cloneRun makes the child; see spawn_amd64.s.
//
//go:noescape
func cloneRun(args *cloneArgs, size uintptr, ctl *control) (pid, errno uintptr)

// clone calls clone3. ctl must be on the heap and stay reachable until the
// child has gone.
func clone(flags uint64, cgroupFD int, ctl *control) (pid, pidFD int, err error) {
	// SAFETY: ctl is on the heap, which Go does not move, and reachable.
	args := &cloneArgs{
		flags: flags | unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PIDFD |
			unix.CLONE_CHILD_CLEARTID | cloneClearSighand,
		pidFD:      uint64(uintptr(unsafe.Pointer(&ctl.pidFD))),
		childTID:   uint64(uintptr(unsafe.Pointer(&ctl.state))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if cgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroupFD)
	}
	// SAFETY: the size is that of the struct.
	p, errno := cloneRun(args, unsafe.Sizeof(*args), ctl)
	if errno != 0 {
		return 0, -1, unix.Errno(errno)
	}
	return int(p), int(ctl.pidFD), nil
}

// futexWait sleeps while *word is val. It may return early.
func futexWait(word *uint32, val uint32) {
	// SAFETY: word is on the heap and live through the call. The futex is
	// not FUTEX_PRIVATE, as the kernel's own wake at CLEARTID is not.
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), cmdFutexWait, uintptr(val), 0, 0, 0)
}

// futexWake wakes whoever sleeps on word.
func futexWake(word *uint32) {
	// SAFETY: as in futexWait.
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), cmdFutexWake, 1, 0, 0, 0)
}

// open lets the child run steps.
func (c *control) open(steps []step) {
	// SAFETY: the caller keeps steps reachable until the child has gone,
	// and Go does not move the heap.
	c.next = uintptr(unsafe.Pointer(unsafe.SliceData(steps)))
	atomic.AddUint32(&c.gate, 1)
	futexWake(&c.gate)
}

// failedStep returns the index in steps of the step the child was at last.
func (c *control) failedStep(steps []step) int {
	// SAFETY: only numbers are compared.
	base := uintptr(unsafe.Pointer(unsafe.SliceData(steps)))
	return int((c.pc - base) / unsafe.Sizeof(step{}))
}

// addressOf returns the address of b's first byte as a system call argument.
// The caller keeps b reachable.
func addressOf[T any](b []T) uintptr {
	// SAFETY: b is on the heap, see Program.keep, which Go does not move.
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}
