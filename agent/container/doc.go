// Package container makes and runs OCI containers inside the guest.
//
// CreateContainer happens on a thread of its own that is never given back to
// Go (LockOSThread, and the goroutine ends locked, so the thread dies): it
// unshares the namespaces, makes the mounts in front of the new root, and
// pivots into it. What only a member of the new pid or cgroup namespace can do
// is done by the container's first process, which spawn.Clone makes early and
// which executes single system calls for the thread. Nothing is executed twice:
// that process goes on to become the container's program at StartContainer.
//
//	created ──Start──▶ running ──exit──▶ stopped
//	   │                                   ▲
//	   └──────────── killed ───────────────┘
//
// Paths of the image are only walked by openat2 with RESOLVE_IN_ROOT (rootDir),
// mounts go to descriptors, and a bind is a detached tree that gets its flags
// before it is attached. OCI runtime-spec 1.3, config.md and config-linux.md.
//
// A Set is safe for concurrent use.
package container
