package p9test

import (
	"os"
	"os/exec"
	"testing"
)

// MountExt4 mounts a new ext4 at dir for the time of the test, from a file image that it makes: a file system that has
// all that Directory asks for, user.* attributes and inodes for its checks with many files. It needs root and mkfs.ext4.
func MountExt4(t testing.TB, image, dir string) {
	t.Helper()
	sh := func(script string) ([]byte, error) {
		cmd := exec.Command("sh", "-c", script, image, dir)
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
		return cmd.CombinedOutput()
	}
	if out, err := sh("truncate -s 1G $0 && mkfs.ext4 -q -N 250000 $0 && mount -o loop $0 $1"); err != nil {
		t.Fatalf("an ext4 on a loop device: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := sh("umount $1 || { umount -l $1; false; }"); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}
