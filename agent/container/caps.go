package container

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
)

// capNames are the capabilities by their number, linux/capability.h, without
// CAP_.
var capNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// capSet is a set of capabilities, a bit each.
type capSet uint64

// parseCaps returns the set, and the names that this table does not have,
// which the OCI spec wants warned about and not refused.
func parseCaps(names []string) (set capSet, unknown []string) {
next:
	for _, name := range names {
		short, ok := strings.CutPrefix(strings.ToUpper(name), "CAP_")
		for i, n := range capNames {
			if ok && n == short {
				set |= 1 << i
				continue next
			}
		}
		unknown = append(unknown, name)
	}
	return set, unknown
}

// dropBounding adds the steps that take all but set out of the bounding set.
func dropBounding(p *spawn.Program, set capSet) {
	for i := range capNames {
		if set&(1<<i) == 0 {
			// EINVAL: a kernel that does not have this one.
			p.Try("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0)
		}
	}
}

// capSysAdmin is CAP_SYS_ADMIN.
const capSysAdmin capSet = 1 << 21

// setCaps adds the step that sets three of the others.
func setCaps(p *spawn.Program, effective, permitted, inheritable capSet) {
	// capset(2): version 3 has two words per set, the low one first.
	header := spawn.Data[uint32](p, unix.LINUX_CAPABILITY_VERSION_3, 0)
	data := spawn.Data[uint32](p,
		uint32(effective), uint32(permitted), uint32(inheritable),
		uint32(effective>>32), uint32(permitted>>32), uint32(inheritable>>32))
	p.Call("set capabilities", unix.SYS_CAPSET, header, data)
}

// raiseAmbient adds the steps that fill the ambient set.
func raiseAmbient(p *spawn.Program, ambient capSet) {
	for i := range capNames {
		if ambient&(1<<i) != 0 {
			p.Call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0)
		}
	}
}
