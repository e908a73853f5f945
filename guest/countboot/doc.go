// Package countboot counts the instructions that a boot of the guest costs,
// from the kernel's PVH entry to the agent's hello.
//
// It runs QEMU's microvm machine on its interpreter (no KVM is needed) with
// -icount shift=0, so that one instruction is one nanosecond of virtual time
// and the time stamp counter is the count: exact, and the same on every
// machine. What the firmware spends before the kernel's entry is measured with
// a stub kernel that reports the counter at once, and subtracted. The guest finds
// its memory as vmm/boot fills it, see Config.image.
//
// When all vCPUs idle, virtual time jumps to the next timer, so a boot that
// waits counts more than it executes. That is meant: waiting is boot time too.
// Each iteration of a REP string instruction counts as one instruction, as it
// costs one on software KVM.
//
//	n, err := countboot.Count(ctx, countboot.Config{Kernel: "guest/out/vmlinux", Initrd: "guest/out/initramfs.cpio"})
//
// A Count and a Profile own their QEMU process and end it before they return.
package countboot
