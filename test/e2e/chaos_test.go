//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// leftovers is what a container could leave on a host. The test compares it before and after.
func leftovers(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	count["mounts"] = strings.Count(string(mounts), "\n")
	sockets, err := os.ReadFile("/proc/net/unix")
	must(t, err)
	count["sockets"] = strings.Count(string(sockets), world.state)
	nets, err := os.ReadDir("/sys/class/net")
	must(t, err)
	count["interfaces"] = len(nets)
	_ = filepath.WalkDir("/sys/fs/cgroup", func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			count["cgroups"]++
		}
		return nil
	})
	states, err := os.ReadDir(world.state)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	count["states"] = len(states)
	for _, d := range []string{os.TempDir(), "/run"} {
		entries, err := os.ReadDir(d)
		must(t, err)
		count[d] = len(entries)
	}
	return count
}

func wantSame(t *testing.T, before, after map[string]int) {
	t.Helper()
	for k, n := range after {
		if n > before[k] {
			t.Errorf("%s: %d before, %d after", k, before[k], n)
		}
	}
}

// killed runs a container, kills the victim with SIGKILL after a while, and deletes the container by force.
func killed(t *testing.T, after time.Duration, victim func(cli int, id string) []int) {
	t.Helper()
	b := newBundle(t, "sh", "-c", "while :; do echo tick; sleep 0.1; done")
	b.write()
	warm(t)
	before := leftovers(t)
	runAndKill(t, b.dir, b.id, after, victim)
	wantNoProcesses(t, b.id)
	wantSame(t, before, leftovers(t))
}

// runAndKill is killed without what surrounds it.
func runAndKill(t *testing.T, bundle, id string, after time.Duration, victim func(cli int, id string) []int) {
	t.Helper()
	cmd := command(t, "run", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	must(t, cmd.Start())
	time.Sleep(after)
	for _, pid := range victim(cmd.Process.Pid, id) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Error(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// An early kill may have found nobody: then the container comes up after this delete, and the next one ends it.
	for deadline := time.Now().Add(2 * time.Minute); ; {
		lucid(t, nil, "delete", "--force", id).wantCode(t, 0)
		select {
		case <-done:
			lucid(t, nil, "delete", "--force", id).wantCode(t, 0)
		case <-time.After(500 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
			t.Error("the command line still runs")
			_ = cmd.Process.Kill()
		}
		break
	}
}

// warm makes what lucid keeps for good: the directory of --root and what it learnt about this host's KVM.
var warm = func() func(t *testing.T) {
	var once sync.Once
	return func(t *testing.T) {
		once.Do(func() { newBundle(t, "true").run(nil).wantCode(t, 0) })
	}
}()

func cli(pid int, _ string) []int { return []int{pid} }

func sandboxOf(t *testing.T) func(int, string) []int {
	return func(cli int, id string) []int {
		var pids []int
		for _, p := range processes(t, id) {
			if pid, err := strconv.Atoi(p); err == nil && pid != cli {
				pids = append(pids, pid)
			}
		}
		return pids
	}
}

func both(t *testing.T) func(int, string) []int {
	return func(pid int, id string) []int { return append(sandboxOf(t)(pid, id), pid) }
}

// TestKillAnywhere: kill -9 at whatever moment, then `delete --force`, and nothing is left.
func TestKillAnywhere(t *testing.T) {
	steps := []time.Duration{0, 3, 10, 30, 60, 100, 200, 500, 1000, 2000, 4000, 8000}
	for name, victim := range map[string]func(int, string) []int{"cli": cli, "sandbox": sandboxOf(t), "both": both(t)} {
		for _, ms := range steps {
			t.Run(fmt.Sprintf("%s/%dms", name, ms), func(t *testing.T) { killed(t, ms*time.Millisecond, victim) })
		}
	}
}

// TestRealKillSandbox: the short form for software KVM.
func TestRealKillSandbox(t *testing.T) {
	killed(t, 2*time.Second, sandboxOf(t))
}

// TestDeadSandboxIsStopped: what `state` says is the truth, also when nobody could write it down.
func TestDeadSandboxIsStopped(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	leave(t, "create", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id) })
	wantContains(t, lucid(t, nil, "state", b.id).stdout, `"status": "created"`)
	lucid(t, nil, "start", b.id).wantCode(t, 0)
	wantContains(t, lucid(t, nil, "state", b.id).stdout, `"status": "running"`)
	for _, pid := range sandboxOf(t)(0, b.id) {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(lucid(t, nil, "state", b.id).stdout, `"status": "stopped"`) {
		if time.Now().After(deadline) {
			t.Fatal("a container whose sandbox was killed is not stopped")
		}
	}
	lucid(t, nil, "delete", b.id).wantCode(t, 0)
	if _, err := os.Stat(filepath.Join(world.state, b.id)); !os.IsNotExist(err) {
		t.Errorf("state is left: %v", err)
	}
}
