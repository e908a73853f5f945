package container_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// withHooks gives a spec startContainer hooks.
func withHooks(s m, hooks ...m) m {
	s["hooks"] = m{"startContainer": hooks}
	return s
}

// TestHooks: they run in the container, in their order, before the process, as it and with the state on stdin.
func TestHooks(t *testing.T) {
	g := newGuest(t)
	must(t, os.Chmod(filepath.Join(g.rootfs, "tmp"), 0o777))
	s := withHooks(spec("prog", "cat", "/tmp/log"),
		m{"path": "/bin/prog", "args": []string{"prog", "hook", "/tmp/log", "one"}, "env": []string{"X=y"}},
		m{"path": "/bin/prog", "args": []string{"other", "hook", "/tmp/log"}, "timeout": 60},
		m{"path": "/bin/prog", "args": []string{"prog", "background", "sleep"}})
	s["process"].(m)["user"] = m{"uid": 7, "gid": 8}
	s["process"].(m)["cwd"] = "/etc"
	out, errs, code := g.run(s, nil)
	const state = `{"pid":1,"ociVersion":"1.3.0","id":"run-TestHooks","status":"created","bundle":"/b"}`
	want := "prog [one] [X=y] 7 /etc " + state + "\nother [] [] 7 /etc " + state + "\n"
	if out != want || code != 0 {
		t.Errorf("%q, %q, %d, want %q", out, errs, code, want)
	}
}

// TestHookFails: the error says which and what it said, the process does not run, and the container is stopped.
func TestHookFails(t *testing.T) {
	for _, c := range []struct {
		name string
		hook m
		want []string
	}{
		{"status", m{"path": "/bin/prog", "args": []string{"prog", "exit", "3"}}, []string{"/bin/prog", "exit status 3"}},
		{"words", m{"path": "/bin/prog", "args": []string{"prog", "cat", "/no/file"}}, []string{"exit status", "/no/file"}},
		{"missing", m{"path": "/bin/nosuch"}, []string{"/bin/nosuch", "no such file or directory"}},
		{"slow", m{"path": "/bin/prog", "args": []string{"prog", "sleep"}, "timeout": 1}, []string{"still running after 1 s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t)
			if _, err := g.create("c", withHooks(spec("prog", "write", "/tmp/ran", "x"), c.hook, m{"path": "/bin/prog", "args": []string{"prog", "write", "/tmp/second", "x"}}), nil); err != nil {
				t.Fatal(err)
			}
			err := g.set.Start(&wire.StartContainer{ID: "c"})
			if err == nil {
				t.Fatal("it starts")
			}
			for _, w := range append(c.want, "startContainer hook") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is missing in %v", w, err)
				}
			}
			if e := g.waitExit(); e.Status != 128+int(unix.SIGKILL) {
				t.Errorf("status %d", e.Status)
			}
			if err := g.set.Start(&wire.StartContainer{ID: "c"}); err == nil {
				t.Error("it starts after all")
			}
			must(t, g.set.Delete(&wire.DeleteContainer{ID: "c"}))
			for _, f := range []string{"ran", "second"} {
				if _, err := os.Stat(filepath.Join(g.rootfs, "tmp", f)); !os.IsNotExist(err) {
					t.Errorf("%s: %v", f, err)
				}
			}
		})
	}
}

// TestKillInHook: a container can be killed and deleted while its hook runs.
func TestKillInHook(t *testing.T) {
	for _, how := range []string{"signal", "delete"} {
		g := newGuest(t)
		if _, err := g.create("c", withHooks(spec("prog", "echo"), m{"path": "/bin/prog", "args": []string{"prog", "sleep"}}), nil); err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { started <- g.set.Start(&wire.StartContainer{ID: "c"}) }()
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if p, err := g.set.Pids(&wire.Pids{ID: "c"}); err == nil && len(p.Pids) == 2 {
				break
			}
			if time.Since(begin) > 30*time.Second {
				t.Fatal("the hook does not run")
			}
		}
		if how == "signal" {
			must(t, g.set.Signal(&wire.Signal{ID: "c", Signal: int(unix.SIGKILL)}))
		} else {
			must(t, g.set.Delete(&wire.DeleteContainer{ID: "c"}))
		}
		if err := <-started; err == nil {
			t.Error("a container that was killed starts")
		}
		g.waitExit()
		if how == "signal" {
			must(t, g.set.Delete(&wire.DeleteContainer{ID: "c"}))
		}
	}
}

// TestBadHooks: what cannot be is refused at creation.
func TestBadHooks(t *testing.T) {
	g := newGuest(t)
	for _, h := range []m{{}, {"path": "x"}, {"path": "/x\x00"}, {"path": "/x", "args": []string{"\x00"}}, {"path": "/x", "env": []string{"a\x00"}}, {"path": "/x", "timeout": 0}} {
		if _, err := g.create("c", withHooks(spec("prog", "echo"), h), nil); err == nil || !strings.Contains(err.Error(), "hooks.startContainer[0]") {
			t.Errorf("%v: %v", h, err)
			_ = g.set.Delete(&wire.DeleteContainer{ID: "c"})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
