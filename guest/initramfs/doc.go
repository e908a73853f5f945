// Package initramfs writes the archive that the kernel unpacks as its first
// root file system: cpio in the "newc" format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
//
// The same files give the same bytes: modification times are zero, owner is
// root and inode numbers count from one. Nothing is compressed, because
// unpacking costs the guest more instructions than copying does.
//
//	err := initramfs.Write(w, initramfs.Agent(agentBinary))
//
// The package keeps no state and is safe for concurrent use.
package initramfs
