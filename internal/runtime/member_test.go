package runtime_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// A pod that is not there, or has ended, is joined by nobody, and nothing is left of the attempt. The rest of a member's
// life is tested with the shim.
func TestNoPod(t *testing.T) {
	w := newWorld(t)
	join := func(want error) {
		t.Helper()
		cfg, err := config("c1", w.bundle)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Pod = "pod"
		if _, err := w.rt.Create(t.Context(), cfg); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		w.wantNothing("c1")
	}
	join(runtime.ErrNotExist)
	pod := w.mustCreate("pod")
	if err := unix.Kill(pod.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { s, err := pod.Status(); return err == nil && s == runtime.Stopped })
	join(runtime.ErrNotRunning)
	if err := w.rt.Delete("pod", true); err != nil {
		t.Fatal(err)
	}
}
