// Package spawn makes a process that does what it is told, one system call at
// a time, until it is told to exec.
//
// A container's first process must do things that only a task inside its new
// namespaces can do (a procfs shows the pid namespace of whoever mounts it,
// and a cgroup2 mount the cgroup namespace), and things that concern a process
// and not a thread (rlimits, session, descriptors). runc runs its own binary
// again for that. In a guest whose kernel is interpreted a Go program takes
// seconds to start, and even a fork pays 8 ms per page that is copied. So
// Clone makes a child that shares the agent's memory (CLONE_VM) but runs no
// Go: a loop in assembly that executes the steps of a Program and touches no
// stack. The agent waits for each program on a futex.
//
//	agent                               child
//	  Clone ── clone3 ────────────────▶ wait for gate 1
//	  Run(p) ─ next = p, gate = 1 ────▶ step, step, step, state = 2
//	         ◀───── futex wake ──────── wait for gate 2
//	  Exec ─── next = execve, gate = 2 ▶ execve: the kernel clears state and wakes
//
// A step that fails writes its errno and ends the child. The kernel clears the
// state word, and wakes its waiters, when the child execs or dies
// (CLONE_CHILD_CLEARTID), so the agent cannot wait in vain.
//
// The child shares the descriptors too (CLONE_FILES), until a program unshares
// them. Signal handlers are reset (CLONE_CLEAR_SIGHAND), so a signal kills the
// child or does nothing; it never runs Go's handler.
//
// A Child belongs to one goroutine at a time. Programs and everything that
// they point to stay in memory until Forget.
package spawn
