package p9server_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9test"
	"golang.org/x/sys/unix"
)

// TestDirectory proves the checks of p9test.Directory on a directory that is
// no 9P mount.
func TestDirectory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run as root")
	}
	p9test.Directory(t, reachable(t))
}

// TestLinuxClient runs them on a mount of the server by this kernel's own 9P
// client, over a socketpair.
func TestLinuxClient(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run as root")
	}
	fss, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(fss), "\t9p\n") {
		t.Skip("this kernel has no 9p: run `make lab-test PKG=./p9server ARGS='-run LinuxClient -v'`")
	}
	// A page fault on a mapped file of the mount waits for the server, which is in this process: it holds its P meanwhile.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	appends := !kernelAtLeast(t, 6, 4)
	for _, cache := range []string{"none", "mmap", "loose"} {
		t.Run(cache, func(t *testing.T) {
			dir := withXattrs(t)
			s := newServer(t, p9server.Limits{FDs: 16 << 10}, p9server.Export{Name: "x", Root: dir, HostAppend: appends})
			mnt := mount9p(t, s, "x", "cache="+cache)
			p9test.Directory(t, mnt)
		})
	}
	t.Run("SyntheticRoot", func(t *testing.T) {
		a, b := t.TempDir(), filepath.Join(t.TempDir(), "single")
		check(t, os.WriteFile(b, []byte("one file"), 0o644))
		s := newServer(t, p9server.Limits{FDs: 16 << 10},
			p9server.Export{Name: "a", Root: a}, p9server.Export{Name: "b", Root: b, ReadOnly: true})
		mnt := mount9p(t, s, "", "cache=mmap")
		if got, err := os.ReadFile(filepath.Join(mnt, "b")); string(got) != "one file" || err != nil {
			t.Errorf("single-file export: %q, %v", got, err)
		}
		if err := os.WriteFile(filepath.Join(mnt, "b"), nil, 0); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write to a read-only export: %v", err)
		}
		if err := os.Mkdir(filepath.Join(mnt, "c"), 0o755); !errors.Is(err, syscall.EROFS) {
			t.Errorf("mkdir in the synthetic root: %v", err)
		}
		check(t, s.AddExport(p9server.Export{Name: "late", Root: a}))
		check(t, os.WriteFile(filepath.Join(mnt, "late", "f"), []byte("x"), 0o644))
		entries, err := os.ReadDir(mnt)
		if err != nil || len(entries) != 3 {
			t.Errorf("synthetic root lists %v, %v", entries, err)
		}
		// A bind mount of one export is how the guest sees a volume.
		check(t, unix.Mount(filepath.Join(mnt, "a"), filepath.Join(mnt, "late"), "", unix.MS_BIND, ""))
		check(t, unix.Unmount(filepath.Join(mnt, "late"), 0))
		check(t, s.RemoveExport("late"))
		if _, err := os.ReadFile(filepath.Join(mnt, "late", "f")); err == nil {
			t.Error("a removed export can still be read")
		}
	})
}

// kernelAtLeast compares the version of the kernel that runs.
func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	check(t, unix.Uname(&u))
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

// reachable is t.TempDir with a path that other users may search.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := filepath.Dir(dir); strings.HasPrefix(p, os.TempDir()+"/"); p = filepath.Dir(p) {
		check(t, os.Chmod(p, 0o755))
	}
	check(t, os.Chmod(dir, 0o755))
	return dir
}

// withXattrs is reachable on a file system with user.* attributes: an ext4 of its own if the temporary directory's has
// none (tmpfs before Linux 6.6).
func withXattrs(t *testing.T) string {
	t.Helper()
	dir := reachable(t)
	err := unix.Setxattr(dir, "user.test", nil, 0)
	if !errors.Is(err, syscall.EOPNOTSUPP) {
		check(t, err)
		check(t, unix.Removexattr(dir, "user.test"))
		return dir
	}
	p9test.MountExt4(t, filepath.Join(t.TempDir(), "ext4"), dir)
	check(t, os.Chmod(dir, 0o755))
	return dir
}

// mount9p mounts an export of s for the time of the test.
func mount9p(t *testing.T, s *p9server.Server, aname, opts string) string {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	ours := os.NewFile(uintptr(fds[0]), "9p server")
	served := make(chan error, 1)
	go func() { served <- p9test.ServeConn(s.NewSession(), ours) }()
	mnt := reachable(t)
	data := fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,msize=262144,access=client,aname=%s,%s",
		fds[1], fds[1], aname, opts)
	err = unix.Mount("lucid", mnt, "9p", 0, data)
	unix.Close(fds[1])
	if err != nil {
		ours.Close()
		t.Fatalf("mount -t 9p -o %s: %v", data, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.UMOUNT_NOFOLLOW); err != nil {
			t.Errorf("umount: %v", err)
			_ = unix.Unmount(mnt, unix.MNT_DETACH)
		}
		if err := <-served; err != nil {
			t.Errorf("connection: %v", err)
		}
		ours.Close()
	})
	return mnt
}
