package hostfs

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxXattr is XATTR_SIZE_MAX, the most bytes of one attribute's value and of
// one list of names.
const MaxXattr = 65536

// XattrPolicy says which attributes of host files a guest may see and change.
// The zero value allows user.*, security.capability and POSIX ACLs.
type XattrPolicy struct {
	// Trusted allows trusted.* too. The host's overlayfs believes what is in
	// trusted.overlay.*, so a directory exported with it must never be used as
	// an overlay's layer on the host.
	Trusted bool
}

// Allows says whether name passes the policy. Everything else, the host's own
// labels such as security.selinux, security.ima or btrfs properties, does not
// exist for the guest.
func (p XattrPolicy) Allows(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return hasPrefix(name, "user.") || p.Trusted && hasPrefix(name, "trusted.")
}

func hasPrefix(name, prefix string) bool {
	return strings.HasPrefix(name, prefix) && len(name) > len(prefix)
}

// hasXattrs: attributes of other files (a symlink's above all) could only be
// reached by path.
func (n *Node) hasXattrs() bool {
	return n.kind == unix.S_IFREG || n.kind == unix.S_IFDIR
}

// xattrFD runs do on f if the file is open, else on a data fd of its own:
// the f*xattr calls refuse O_PATH fds.
func (n *Node) xattrFD(f *File, do func(fd int) error) error {
	if f != nil {
		return do(f.fd)
	}
	return n.withData(unix.O_RDONLY, do)
}

// GetXattr reads an attribute into buf, which should have MaxXattr bytes.
func (n *Node) GetXattr(f *File, p XattrPolicy, name string, buf []byte) (int, error) {
	if !n.hasXattrs() || !p.Allows(name) {
		return 0, unix.ENODATA
	}
	var size int
	err := n.xattrFD(f, func(fd int) (err error) {
		size, err = unix.Fgetxattr(fd, name, buf)
		return err
	})
	return size, err
}

// ListXattr reads the names that the policy allows into buf, each followed by
// a NUL.
func (n *Node) ListXattr(f *File, p XattrPolicy, buf []byte) (int, error) {
	if !n.hasXattrs() {
		return 0, nil
	}
	var size int
	err := n.xattrFD(f, func(fd int) (err error) {
		size, err = unix.Flistxattr(fd, buf)
		return err
	})
	if err != nil {
		return 0, err
	}
	// Allowed names move to the front, in place.
	kept := 0
	for rest := buf[:size]; len(rest) > 0; {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			break
		}
		if p.Allows(string(rest[:i])) {
			kept += copy(buf[kept:], rest[:i+1])
		}
		rest = rest[i+1:]
	}
	return kept, nil
}

// SetXattr sets an attribute; flags are XATTR_CREATE and XATTR_REPLACE.
func (n *Node) SetXattr(p XattrPolicy, name string, value []byte, flags int) error {
	if !n.hasXattrs() || !p.Allows(name) {
		return unix.EOPNOTSUPP
	}
	return n.withData(unix.O_RDONLY, func(fd int) error { return unix.Fsetxattr(fd, name, value, flags) })
}

// RemoveXattr removes an attribute.
func (n *Node) RemoveXattr(p XattrPolicy, name string) error {
	if !n.hasXattrs() || !p.Allows(name) {
		return unix.ENODATA
	}
	return n.withData(unix.O_RDONLY, func(fd int) error { return unix.Fremovexattr(fd, name) })
}
