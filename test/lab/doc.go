// Lab runs a command on a Debian host ("L1") that QEMU emulates in software
// (TCG) on this machine. L1 has AMD-V and Debian's kvm-amd, so there is a real
// /dev/kvm in it, whatever this machine has. It sees this machine's files,
// read-only under a writable memory layer. See docs/lab.md.
//
//	lab [-v] [--] CMD           one argument: a bash command line
//	lab [-v] [--] CMD ARG…      several: a program and its arguments
//	lab -check                  prove what L1 offers, a line each
//
// Flow:
//
//	options → kernel (package → cache) → modules (dependency order) →
//	initramfs (memfd: modules + this program as init + the request) →
//	QEMU (socketpairs for the console and four virtio-serial ports) →
//	session (pumps, signals, time limit) → exit status
//
// The same binary is the init of L1: main starts l1.Main when it is PID 1 of
// a lab initramfs. Options come from LAB_… variables, so that `make lab` and
// `go test -exec` can pass them.
package main
