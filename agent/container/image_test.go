package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// within fails if f has not returned in time: the agent would hang.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it hangs")
	}
}

// The agent reads /etc/passwd of the image. Whatever lies there, a container is
// made without waiting for it and without holding all of it.
func TestHostilePasswd(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o666) },
		"huge":      func(p string) error { return errors.Join(os.WriteFile(p, []byte("x\n"), 0o644), os.Truncate(p, 1<<40)) },
		"zero":      func(p string) error { return os.Symlink("/dev/zero", p) },
		"terminal":  func(p string) error { return os.Symlink("/dev/ptmx", p) },
		"loop":      func(p string) error { return os.Symlink("passwd", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"outside":   func(p string) error { return os.Symlink("../../../../../../etc/passwd", p) },
		"garbage":   func(p string) error { return os.WriteFile(p, []byte("::::\n:x:0\n\x00:x:0:0::/a\x00b:\n"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			if err := plant(filepath.Join(g.rootfs, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			within(t, func() {
				out, errs, status := g.run(spec("prog", "env"), nil)
				if status != 0 || !strings.Contains(out, "HOME=/\n") {
					t.Errorf("%q, %q, %d", out, errs, status)
				}
			})
		})
	}
}

// What is no program is an error at once, at the latest of Start.
func TestHostileProgram(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"fifo":    func(p string) error { return errors.Join(unix.Mkfifo(p, 0o777), os.Chmod(p, 0o777)) },
		"socket":  func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o777, 0) },
		"device":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o777, int(unix.Mkdev(1, 5))) },
		"loop":    func(p string) error { return os.Symlink("hostile", p) },
		"itself":  func(p string) error { return os.WriteFile(p, []byte("#!/bin/hostile\n"), 0o755) },
		"nothing": func(p string) error { return os.WriteFile(p, nil, 0o755) },
		"elf":     func(p string) error { return os.WriteFile(p, []byte("\x7fELF\x02\x01\x01"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			if err := plant(filepath.Join(g.rootfs, "bin/hostile")); err != nil {
				t.Fatal(err)
			}
			within(t, func() {
				if _, err := g.create("c", spec("/bin/hostile"), nil); err != nil {
					return
				}
				if err := g.set.Start(&wire.StartContainer{ID: "c"}); err == nil {
					t.Error("it was started")
				}
				if e := g.waitExit(); e.Status == 0 {
					t.Errorf("status %d", e.Status)
				}
				if err := g.set.Delete(&wire.DeleteContainer{ID: "c"}); err != nil {
					t.Error(err)
				}
			})
			within(t, func() {
				g.start("d", spec("prog", "sleep"), nil)
				if _, err := g.exec("d", "e", process("/bin/hostile")); err == nil {
					t.Error("exec succeeded")
				}
			})
		})
	}
}
