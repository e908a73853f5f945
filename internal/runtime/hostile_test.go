package runtime_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// A create whose container is deleted before it is through, and whose ID is
// taken by another one, neither overwrites nor removes that one.
func TestIDTakenWhileCreating(t *testing.T) {
	w := newWorld(t)
	cfg, err := config("c1", w.bundle)
	if err != nil {
		t.Fatal(err)
	}
	gate, here := filepath.Join(t.TempDir(), "gate"), filepath.Join(t.TempDir(), "here")
	cfg.Plan.Host.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "touch " + here + "; while ! test -e " + gate + "; do sleep 0.01; done"},
		Env: []string{"PATH=/bin:/usr/bin"},
	}}}
	first := make(chan error, 1)
	go func() {
		_, err := w.rt.Create(context.Background(), cfg)
		first <- err
	}()
	eventually(t, "the hook runs", func() bool { _, err := os.Stat(here); return err == nil })
	if err := w.rt.Delete("c1", true); err != nil {
		t.Fatal(err)
	}
	second := w.mustCreate("c1")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err == nil || !strings.Contains(err.Error(), "deleted while it was being created") {
		t.Errorf("first Create: %v", err)
	}
	w.wantStatus("c1", runtime.Created)
	if c, err := w.rt.Load("c1"); err != nil || c.Pid() != second.Pid() {
		t.Errorf("the record is not the second container's: %+v, %v", c, err)
	}
}

// Discard does not touch another container that has the ID now.
func TestDiscardOnlyOwn(t *testing.T) {
	w := newWorld(t)
	first := w.mustCreate("c1")
	if err := w.rt.Delete("c1", true); err != nil {
		t.Fatal(err)
	}
	if err := w.rt.Discard(first); err != nil {
		t.Errorf("of one that is gone: %v", err)
	}
	second := w.mustCreate("c1")
	if err := w.rt.Discard(first); err != nil {
		t.Error(err)
	}
	w.wantStatus("c1", runtime.Created)
	if err := w.rt.Discard(second); err != nil {
		t.Error(err)
	}
	w.wantNothing("c1")
}

// What another user may have written is neither believed nor removed.
func TestPlantedDirectory(t *testing.T) {
	w := newWorld(t)
	victim := t.TempDir()
	ran := filepath.Join(victim, "ran")
	plant := func(t *testing.T, dir string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		state := `{"id":"c1","hooks":{"poststop":[{"path":"/bin/touch","args":["touch","` + ran + `"]}]}}`
		for name, text := range map[string]string{"state.json": state, "lock": "", "alive": "", "file": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	writable, link := filepath.Join(w.root, "writable"), filepath.Join(w.root, "link")
	plant(t, writable)
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(victim, "dir")
	plant(t, target)
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{"writable": "written to by other users", "link": "not a directory"}
	if os.Geteuid() == 0 {
		plant(t, filepath.Join(w.root, "foreign"))
		if err := os.Chown(filepath.Join(w.root, "foreign"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		ids["foreign"] = "belongs to user 65534"
	}
	for id, want := range ids {
		if _, err := w.rt.Load(id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%s): %v", id, err)
		}
		for _, force := range []bool{false, true} {
			if err := w.rt.Delete(id, force); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Delete(%s, %v): %v", id, force, err)
			}
		}
		if _, err := os.Stat(filepath.Join(w.root, id, "file")); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a planted hook ran: %v", err)
	}
}

// A state.json that is no good is an error, soon, and does not keep a forced
// delete from working.
func TestSpoiltRecord(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"fifo":      func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) },
		"huge":      func(p string) error { return os.Truncate(p, 1<<40) },
		"truncated": func(p string) error { return os.Truncate(p, 40) },
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"link":      func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/dev/zero", p)) },
		"directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.mustCreate("c1")
			if err := spoil(filepath.Join(c.Dir(), "state.json")); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, err := w.rt.Load("c1"); err == nil {
					t.Error("Load succeeded")
				}
				if err := w.rt.Delete("c1", false); err == nil {
					t.Error("Delete without force succeeded")
				}
				if len(fakes(t, w.root, "c1")) == 0 {
					t.Error("Delete without force ended the container")
				}
				if err := w.rt.Delete("c1", true); err != nil {
					t.Errorf("Delete: %v", err)
				}
				w.wantNothing("c1")
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("it hangs")
			}
		})
	}
}
