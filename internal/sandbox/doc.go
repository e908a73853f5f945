// Package sandbox is the process that holds one VM: `lucid sandbox`. It
// composes package vmm, the virtio devices and the 9P server, talks to the
// guest's agent (internal/wire), copies the container's stdio and answers the
// control socket (internal/control). On the host it stands for the container's
// process: it has that process's fds 0 to 2, its signals and its exit status.
//
// The files:
//
//	main.go       the life of the process
//	machine.go    devices and VM
//	link.go       control and stream channels to the agent, vsock or serial
//	template.go   making a template: a VM that is saved
//	rehearse.go   what the guest does once for all clones
//	restore.go    a machine that goes on from a template
//	container.go  the container in the guest: create, start, signal, exit
//	exec.go       further processes in it
//	pod.go        further containers
//	exports.go    their files
//	pause.go      stopping the VM's CPUs, and what waits meanwhile
//	mountpoints.go  what a read-only root file system lacks
//	stdio.go      bytes between fds 0 to 2 and the guest
//	control.go    requests from the command line and the shim
//	signals.go    signals that this process gets
//	guestlog.go   what the guest's kernel prints
//	timeline.go   marks and counters
//	loglimit.go   how much a guest can make us log
//	memory.go     giving memory back after the start
//
// # How it ends
//
//	container's process ends in the guest
//	→ ContainerExited: its status and how many bytes it wrote
//	→ those bytes have been copied to fds 1 and 2
//	→ Shutdown: the agent has written dirty pages of files back to us
//	→ the VM is stopped, not shut down; exit with the status
//
// SIGKILL for the container ends the VM if the guest does not obey in time.
//
// # Threads
//
// One goroutine waits for the VM (package vmm has the vCPUs' threads), one per
// stream direction copies, one forwards signals, one reads the agent's
// frames, one per connection answers the control socket. container.mu guards
// the state; no call into the guest is made with it held.
//
// The guest is hostile: what its agent says is checked, bounded in size by
// internal/wire, and can at most end or hang this one sandbox.
package sandbox
