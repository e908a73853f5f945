package container

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is what the options of a mount mean.
type mountOptions struct {
	flags       uintptr  // MS_… for a new file system
	attrSet     uint64   // MOUNT_ATTR_… for a bind
	attrClear   uint64   // as above
	attrRec     uint64   // MOUNT_ATTR_… for a bind and what is mounted in it
	propagation uint64   // MS_PRIVATE and its kind; 0: private, as all here
	propRec     bool     // with submounts
	recursive   bool     // rbind
	bind        bool     // bind or rbind
	data        []string // what the file system reads
}

// mountFlag is one option that is no file system's business.
type mountFlag struct {
	name  string
	flag  uintptr // MS_…
	attr  uint64  // MOUNT_ATTR_…
	clear bool
}

// mountFlags are the options of mount(8) that are flags, and of the OCI spec,
// "Linux mount options".
var mountFlags = []mountFlag{
	{"ro", unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, false},
	{"rw", unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, true},
	{"nosuid", unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, false},
	{"suid", unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, true},
	{"nodev", unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, false},
	{"dev", unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, true},
	{"noexec", unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, false},
	{"exec", unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, true},
	{"nodiratime", unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, false},
	{"diratime", unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, true},
	{"nosymfollow", unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW, false},
	{"symfollow", unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW, true},
	{"noatime", unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME, false},
	{"strictatime", unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME, false},
	{"relatime", unix.MS_RELATIME, unix.MOUNT_ATTR_RELATIME, false},
	{"sync", unix.MS_SYNCHRONOUS, 0, false},
	{"async", unix.MS_SYNCHRONOUS, 0, true},
	{"dirsync", unix.MS_DIRSYNC, 0, false},
	{"mand", unix.MS_MANDLOCK, 0, false},
	{"nomand", unix.MS_MANDLOCK, 0, true},
	{"silent", unix.MS_SILENT, 0, false},
	{"lazytime", unix.MS_LAZYTIME, 0, false},
	{"iversion", unix.MS_I_VERSION, 0, false},
	{"defaults", 0, 0, false},
}

// propagation returns what an option says about other mount namespaces; 0 if
// it is another kind of option.
func propagation(name string) uint64 {
	switch name {
	case "private":
		return unix.MS_PRIVATE
	case "slave":
		return unix.MS_SLAVE
	case "shared":
		return unix.MS_SHARED
	case "unbindable":
		return unix.MS_UNBINDABLE
	}
	return 0
}

// parseMountOptions sorts the options of a mount.
func parseMountOptions(list []string) mountOptions {
	var o mountOptions
	for _, name := range list {
		switch name {
		case "bind":
			o.bind = true
			continue
		case "rbind":
			o.bind, o.recursive = true, true
			continue
		}
		if o.takeFlag(name, false) || o.takePropagation(name) {
			continue
		}
		// rro, rnosuid and so on: the flag for all submounts.
		if rest, ok := strings.CutPrefix(name, "r"); ok && o.takeFlag(rest, true) {
			continue
		}
		o.data = append(o.data, name)
	}
	return o
}

func (o *mountOptions) takeFlag(name string, recursive bool) bool {
	for _, f := range mountFlags {
		if f.name != name {
			continue
		}
		switch {
		case f.clear:
			o.flags &^= f.flag
			o.attrSet &^= f.attr
			o.attrClear |= f.attr
		case recursive:
			o.attrRec |= f.attr
			o.flags |= f.flag
		default:
			o.flags |= f.flag
			o.attrSet |= f.attr
			o.attrClear &^= f.attr
		}
		return true
	}
	return false
}

func (o *mountOptions) takePropagation(name string) bool {
	p, rec := propagation(name), false
	if rest, ok := strings.CutPrefix(name, "r"); p == 0 && ok {
		p, rec = propagation(rest), true
	}
	if p != 0 {
		o.propagation, o.propRec = p, rec
	}
	return p != 0
}

// attr returns the arguments of mount_setattr for a bind; nil if there is
// nothing to set.
func (o *mountOptions) attr() *unix.MountAttr {
	set, clr := o.attrSet|o.attrRec, o.attrClear
	if set|clr == 0 {
		return nil
	}
	a := &unix.MountAttr{Attr_set: set, Attr_clr: clr}
	if (set|clr)&unix.MOUNT_ATTR__ATIME != 0 || set&unix.MOUNT_ATTR_NOATIME != 0 {
		// The atime modes are one field, which is cleared as a whole.
		a.Attr_clr |= unix.MOUNT_ATTR__ATIME
	}
	return a
}
