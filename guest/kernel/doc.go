// Package kernel builds the guest's Linux kernel from a source tarball and the
// fragments beside this file.
//
// A fragment is a list of options, each with a note that says why:
//
//	CONFIG_FUTEX=y   # pthreads, Go
//
// [Fragments] reads and merges them, [Verify] proves that the kernel's own
// configuration program kept every one of them, and [Build] turns them into a
// vmlinux, kept in a cache under a [Key] of everything that went into it.
// docs/guest-kernel.md tells how to add an option.
//
// Nothing here is safe for concurrent use by goroutines; concurrent processes
// are kept apart by a lock file in the cache directory.
package kernel
