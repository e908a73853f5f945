// Package shim is containerd-shim-lucid-v2: the program between containerd (or
// cri-o) and the containers of lucid, after containerd's runtime v2 protocol
// (https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md).
//
//	containerd ── SHIM start ──▶ start      listens, spawns the server, prints the address
//	containerd ── ttrpc ───────▶ serve      one process per container or pod, until Shutdown
//	                              │ internal/runtime: create, start, exec, ...
//	                              ▼
//	                             lucid sandbox ID      the VM; ends when the server does
//	containerd ── SHIM delete ─▶ delete     after a crash: kills what is left
//
// The files:
//
//	call.go       command line and environment
//	dialect.go    the three ways to say the same at the start
//	main.go       the actions
//	start.go, socket.go, delete.go, info.go
//	serve.go      the server process; its log
//	table.go      the task service under its two names, v2 and v3
//	service.go    which container; process.go: one process and its states
//	create.go, exec.go, operate.go   the calls
//	pod.go        which VM a container gets
//	sandbox.go    the sandbox service; sandboxspec.go: what it asks for; sandboxwire.go: its messages
//	stdio.go      fifos, files and logging programs; pump.go: one direction
//	events.go     what containerd is told, in order; oom.go: of OOM kills
//
// # Order of events
//
// create, start, exit, delete of each process, whatever is how fast: a start
// holds process.gate until its event is queued, and so do an exit and an OOM kill. Execs
// exit before the container does. One queue keeps the order.
//
// # Threads
//
// ttrpc calls each request on a goroutine of its own. service.mu guards which
// containers there are, process.mu a process's state. No lock is held across a
// call to the sandbox, except process.gate, which is one process's, and podMu,
// for which only creates and deletes wait.
package shim
