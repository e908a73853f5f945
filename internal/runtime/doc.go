// Package runtime is the lifecycle of containers on disk, after the OCI
// runtime specification and runc's behaviour. The command line and the shim
// walk the same calls.
//
//	Create ──▶ creating ──▶ created ──Start──▶ running ──▶ stopped ──Delete
//	               └───────────┴── killed ───────────────────▲
//
// Pause and Resume put a created or running container on hold.
//
// Each container has a directory ROOT/ID, mode 0700:
//
//	lock         flock'ed for the short moments in which the directory changes
//	state.json   the record, replaced by rename
//	alive        flock'ed by the sandbox process for as long as it lives
//	control.sock where the sandbox process answers (internal/control)
//	sandbox.log, console.log, timeline.json   written by the sandbox process
//
// A status is never read from the record: "alive" says whether there is a
// process, and the process says where the container stands. So nothing that
// is killed can leave a wrong status behind, and neither can a reused pid.
//
// # What happens when something is killed during Create
//
// The sandbox process ends by itself when its creator goes away before the
// commit (internal/control, "launch socket"). What is then left is the
// directory, and Delete with force removes it; it also finds and kills a
// sandbox process whose pid was not recorded yet, by who has "alive" open.
//
// Who waits for whom: the creator of a container is the parent of its sandbox
// process. When the creator exits, the process is reparented to the nearest
// subreaper, which is the containerd shim or conmon, and its exit status is
// the container's.
//
// # Further processes
//
// Exec runs one more process, for which the calling process stands;
// ExecDetached starts a process that does (standin.go).
//
// A container of a pod (CreateConfig.Pod) has a state directory and a process like any
// other, and no VM: its control socket is that of the pod's (member.go).
//
// Runtime and Container are safe for concurrent use, also from several
// processes. The smallest use:
//
//	r, err := runtime.New(runtime.Config{Root: "/run/lucid", Sandbox: []string{runtime.OwnProgram, "sandbox"}})
//	c, err := r.Create(ctx, runtime.CreateConfig{...})
//	err = c.Start(ctx)
//	status := c.Wait()
package runtime
