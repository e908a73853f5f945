// Package boot takes the guest from the kernel's first process to a connection
// with the host, and ends it again.
//
// What runs before the hello is on every container's way, and where guest
// kernel code is interpreted a system call costs a third of a millisecond at
// least and a mount several. So Options and Dial do what a hello needs: /proc
// for the command line, and for virtio-serial /sys. Prepare makes the rest
// while the host is busy with the hello. Nothing is needed of the initramfs but
// the directories proc, sys, run and dev, and dev/null.
//
// All functions are for the one goroutine that boots; a Share is safe for
// concurrent use.
package boot
