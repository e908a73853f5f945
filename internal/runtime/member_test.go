package runtime_test

import (
	"errors"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// What a container that joins has to know is there for as long as the pod is. The rest of its life is tested with the shim.
func TestPodFor(t *testing.T) {
	w := newWorld(t)
	if _, err := w.rt.PodFor("pod"); !errors.Is(err, runtime.ErrNotExist) {
		t.Errorf("%v", err)
	}
	w.mustCreate("alone")
	if _, err := w.rt.PodFor("alone"); err == nil || err.Error() != "container alone is no sandbox of a pod" {
		t.Errorf("%v", err)
	}
	cfg, err := config("pod", w.bundle)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Plan.Placeholder = true
	spec := *cfg.Spec
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev/shm", Source: "/some/shm", Type: "bind"})
	cfg.Spec = &spec
	pod, err := w.rt.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	known, err := w.rt.PodFor("pod")
	if err != nil || known.SharedMemory != "/some/shm" || len(known.Members) != 1 || known.Members[pod.Pid()] != "" {
		t.Errorf("%+v, %v", known, err)
	}
	if err := unix.Kill(pod.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { s, err := pod.Status(); return err == nil && s == runtime.Stopped })
	if _, err := w.rt.PodFor("pod"); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("%v", err)
	}
	for _, id := range []string{"pod", "alone"} {
		if err := w.rt.Delete(id, true); err != nil {
			t.Error(err)
		}
	}
}
