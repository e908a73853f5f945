package p9

import (
	"bytes"
	"syscall"
)

// CheckName says whether name may be one directory entry. Everything a host
// could resolve to something other than a direct child is refused: the empty
// name, "." and "..", a slash, a NUL (CVE-2016-7116, CVE-2016-8578).
func CheckName(name []byte) error {
	switch {
	case len(name) == 0:
		return syscall.ENOENT
	case len(name) > MaxName:
		return syscall.ENAMETOOLONG
	case name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.'):
		return syscall.EINVAL
	case bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return syscall.EINVAL
	}
	return nil
}
