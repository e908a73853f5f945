package container_test

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// shared is a spec whose namespaces of these types have a path.
func shared(s m, path string, kinds ...string) m {
	list := []m{{"type": "mount"}, {"type": "cgroup"}}
	for _, kind := range []string{"pid", "ipc", "uts", "network"} {
		n := m{"type": kind}
		for _, k := range kinds {
			if k == kind {
				n["path"] = path
			}
		}
		list = append(list, n)
	}
	s["linux"].(m)["namespaces"] = list
	delete(s, "hostname")
	return s
}

// endPause ends the first process of a pod's pid namespace, which is a child of this program.
func endPause(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(data)) {
			pid, _ := strconv.Atoi(word)
			comm, _ := os.ReadFile("/proc/" + word + "/comm")
			if string(comm) == "pause\n" && unix.Kill(pid, unix.SIGKILL) == nil {
				ended++
			}
		}
	}
	if ended != 1 {
		t.Errorf("%d processes hold a pid namespace, want 1", ended)
	}
}

func ownNamespace(t *testing.T, name string) string {
	t.Helper()
	to, err := os.Readlink("/proc/self/ns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// What the pod shares is the guest's own, but for the pid namespace.
func TestPodNamespaces(t *testing.T) {
	g := newGuest(t)
	all := []string{"ipc", "uts", "net", "pid", "cgroup"}
	see := func(path string, kinds ...string) []string {
		t.Helper()
		out, errs, status := g.run(shared(spec(append([]string{"prog", "namespaces"}, all...)...), path, kinds...), nil)
		if status != 0 {
			t.Fatalf("status %d: %s", status, errs)
		}
		return strings.Fields(out)
	}
	pod := see(wire.PodNamespace, "ipc", "uts", "network")
	for i, name := range all[:3] {
		if pod[i] != ownNamespace(t, name) {
			t.Errorf("%s is %s", name, pod[i])
		}
	}
	apart := see("")
	for i, name := range all {
		if apart[i] == pod[i] {
			t.Errorf("%s is shared", name)
		}
	}
	first, second := see(wire.PodNamespace, "pid"), see(wire.PodNamespace, "pid")
	endPause(t)
	if first[3] != second[3] || first[3] == ownNamespace(t, "pid") {
		t.Errorf("pid namespaces %s and %s", first[3], second[3])
	}
}

// The first process of the pod's pid namespace takes orphans, and nothing is left of them.
func TestPodOrphans(t *testing.T) {
	g := newGuest(t)
	out, errs, status := g.run(shared(spec("prog", "orphans", "20"), wire.PodNamespace, "pid"), nil)
	endPause(t)
	if status != 0 || out != "1\n0\n" {
		t.Errorf("status %d, stdout %q, stderr %q: want the parent 1 and no zombies", status, out, errs)
	}
}

// A container can have the namespaces of another one, as long as that runs.
func TestOthersNamespaces(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "sleep", "1000")
	s["hostname"] = "other"
	g.start("other", s, nil)
	path := wire.ContainerNamespace + "other"
	out, errs, status := g.run(shared(spec("prog", "id"), path, "pid", "ipc", "uts", "network"), nil)
	if f := strings.Fields(out); status != 0 || len(f) < 5 || f[3] == "1" || f[4] != "other" {
		t.Errorf("status %d, stdout %q, stderr %q", status, out, errs)
	}
	for path, want := range map[string]string{
		wire.ContainerNamespace + "nobody": "container does not exist",
		"/proc/1/ns/ipc":                   "linux.namespaces: a path leads nowhere in the guest: /proc/1/ns/ipc",
	} {
		if _, err := g.create("x", shared(spec("prog", "id"), path, "ipc"), nil); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if err := g.set.Signal(&wire.Signal{ID: "other", Signal: int(unix.SIGKILL)}); err != nil {
		t.Fatal(err)
	}
	g.waitExit()
	if _, err := g.create("x", shared(spec("prog", "id"), path, "ipc"), nil); err == nil || err.Error() != "container not running" {
		t.Errorf("of one that has ended: %v", err)
	}
}

// Without an ID the counters are those of all containers.
func TestStatsOfAll(t *testing.T) {
	g := newGuest(t)
	g.start("one", spec("prog", "sleep", "1000"), nil)
	all, err := g.set.Stats(new(wire.Stats))
	if err != nil {
		t.Fatal(err)
	}
	if all.CPUUsageUS == 0 {
		t.Errorf("%+v", all)
	}
}

// A frozen container's processes do nothing; SIGKILL ends them all the same.
func TestFreeze(t *testing.T) {
	g := newGuest(t)
	g.start("one", spec("prog", "trap"), nil)
	out := g.streams.get(2).out
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	freeze := func(on bool) {
		t.Helper()
		if err := g.set.Freeze(&wire.Freeze{ID: "one", Frozen: on}); err != nil {
			t.Fatal(err)
		}
	}
	freeze(true)
	if err := g.set.Signal(&wire.Signal{ID: "one", Signal: int(unix.SIGTERM)}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-g.exits:
		t.Fatalf("it runs: %+v", e)
	case <-time.After(300 * time.Millisecond):
	}
	freeze(false)
	if e := g.waitExit(); e.Status != 42 {
		t.Errorf("%+v", e)
	}
	g.start("two", spec("prog", "sleep"), nil)
	if err := g.set.Freeze(&wire.Freeze{ID: "two", Frozen: true}); err != nil {
		t.Fatal(err)
	}
	if err := g.set.Signal(&wire.Signal{ID: "two", Signal: int(unix.SIGKILL)}); err != nil {
		t.Fatal(err)
	}
	if e := g.waitExit(); e.Status != 137 {
		t.Errorf("%+v", e)
	}
}
