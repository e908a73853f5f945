package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/kernfile"
	"github.com/lucid-containers/lucid/agent/spawn"
)

// namespaces checks linux.namespaces.
func (b *builder) namespaces() error {
	for _, n := range b.spec.Linux.Namespaces {
		if n.Path != "" {
			if err := b.share(n); err != nil {
				return err
			}
			continue
		}
		switch n.Type {
		case "mount": // in any case
		case "uts":
			b.unshare |= unix.CLONE_NEWUTS
		case "ipc":
			b.unshare |= unix.CLONE_NEWIPC
		case "network":
			b.unshare |= unix.CLONE_NEWNET
			b.newNet = true
		case "pid":
			b.newPID = true // the child's
		case "cgroup":
			b.newCgroup = true // the child's
		case "time":
			b.around.newTime = true // the child's
		case "user":
			b.around.newUser = true // the child's: a thread cannot have one
		default:
			return invalidError("linux.namespaces: " + quote(n.Type) + " is not supported in the guest")
		}
	}
	if !b.around.newUser && len(b.spec.Linux.UIDMappings)+len(b.spec.Linux.GIDMappings) > 0 {
		return invalidError("linux.uidMappings: there is no user namespace")
	}
	if !b.around.newTime && len(b.spec.Linux.TimeOffsets) > 0 {
		return invalidError("linux.timeOffsets: there is no time namespace")
	}
	b.around.personality, b.around.offsets = b.spec.Linux.Personality, b.spec.Linux.TimeOffsets
	return nil
}

// enter gives the thread its namespaces. Files that it makes have exactly the
// mode it asks for.
func (b *builder) enter() error {
	for _, n := range b.join {
		if err := unix.Setns(n.fd, n.flag); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	if err := unix.Unshare(b.unshare); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	unix.Umask(0)
	return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// inNamespaces sets what belongs to the new namespaces.
func (b *builder) inNamespaces() error {
	if b.newCgroup {
		// Its root is the cgroup that the caller is in.
		p := new(spawn.Program)
		p.Call("unshare cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
		if err := b.child.Run(p); err != nil {
			return err
		}
	}
	if b.newNet {
		if err := LoopbackUp(); err != nil {
			return err
		}
	}
	if b.spec.Hostname != "" {
		if err := unix.Sethostname([]byte(b.spec.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if b.spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(b.spec.Domainname)); err != nil {
			return os.NewSyscallError("setdomainname", err)
		}
	}
	if adj := b.spec.Process.OOMScoreAdj; adj != nil {
		return setOOMScore(b.child.Pid, *adj)
	}
	return nil
}

// setOOMScore writes oom_score_adj. The agent's own is 0, which the child has:
// as PID 1 it needs no protection from the OOM killer.
func setOOMScore(pid, adj int) error {
	if adj == 0 {
		return nil
	}
	return kernfile.Write("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", strconv.Itoa(adj))
}

// setOffsets sets the offsets of the time namespace that a child will enter. It
// is not to have exec'd yet.
func setOffsets(pid int, offsets map[string]TimeOffset) error {
	if len(offsets) == 0 {
		return nil
	}
	var text strings.Builder
	for clock, o := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalidError("linux.timeOffsets: " + quote(clock) + " is no clock with an offset")
		}
		fmt.Fprintf(&text, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	return kernfile.Write("/proc/"+strconv.Itoa(pid)+"/timens_offsets", text.String())
}

// limit does to the child what takes the guest's root.
func (b *builder) limit() error {
	prog, err := limits(b.spec.Process, &b.around)
	if err != nil {
		return err
	}
	if err := b.child.Run(prog); err != nil {
		return err
	}
	return setOffsets(b.child.Pid, b.around.offsets)
}

// enterUser gives the child its user namespace, when all is mounted: what is
// mounted later would belong to that namespace's root, who may not do it. The
// other namespaces stay the guest's root's, but for a copy of those of mounts
// and host name.
func (b *builder) enterUser() error {
	if !b.around.newUser {
		return nil
	}
	l := b.spec.Linux
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return invalidError("linux.uidMappings, linux.gidMappings: a user namespace needs both")
	}
	p := new(spawn.Program)
	p.Call("unshare user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	if err := b.child.Run(p); err != nil {
		return err
	}
	proc := "/proc/" + strconv.Itoa(b.child.Pid)
	for _, f := range []struct {
		name string
		maps []IDMapping
	}{{"/uid_map", l.UIDMappings}, {"/gid_map", l.GIDMappings}} { // as the guest's root: setgroups stays allowed
		var text strings.Builder
		for _, m := range f.maps {
			fmt.Fprintf(&text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
		}
		if err := kernfile.Write(proc+f.name, text.String()); err != nil {
			return err
		}
	}
	return nil
}

// rootPropagation sets linux.rootfsPropagation. All mounts are private until
// then, and there is nobody outside to be a slave of.
func (b *builder) rootPropagation() error {
	name := b.spec.Linux.RootfsPropagation
	if name == "" {
		return nil
	}
	var o mountOptions
	if !o.takePropagation(name) {
		return invalidError("linux.rootfsPropagation: " + quote(name) + " is no propagation")
	}
	flags := uintptr(o.propagation)
	if o.propRec {
		flags |= unix.MS_REC
	}
	return os.NewSyscallError("mount", unix.Mount("", "/", "", flags, ""))
}
