//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How many rounds TestShimChaos has, and how many at a time. The default fits a set that CI could run;
//
//	LUCID_E2E_SHIM_CHAOS=200,8 go run ./test/e2e/run -where lab -run TestShimChaos
//
// is what the project promises (issue 5).
const shimChaos = "12,4"

// chaos is a daemon that is killed now and then, and started again.
type chaos struct {
	*containerd
	mu   sync.RWMutex // held for writing while the daemon is replaced
	life int          // how often it was started; protected by mu
}

// TestShimChaos makes containers, some at a time, executes programs in them, kills and deletes them, and meanwhile kills shim, sandbox or
// containerd with SIGKILL, whatever chance says. Each task ends with an exit event and a status, and nothing is left.
func TestShimChaos(t *testing.T) {
	rounds, atOnce := batches(t, "LUCID_E2E_SHIM_CHAOS", shimChaos)
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d rounds, %d at a time, seed %d", rounds, atOnce, seed) // it chooses victims and moments, not the order of things
	d := newContainerd(t, &containerd{name: "chaos", bin: filepath.Join(world.bin, "containerd-v2")}, "make containerd-v2")
	c := &chaos{containerd: d}
	begin := time.Now()
	d.must(t, d.run(t, "chaos-warm", []string{"--rm", "--null-io"}, "/bin/true")...)
	// As many starts at a time take that long.
	spread := time.Since(begin) * time.Duration(atOnce)
	roots := make([]string, atOnce)
	for i := range roots {
		roots[i] = newBundle(t).root
	}
	before := c.leftovers(t)
	var wg sync.WaitGroup
	for i, root := range roots {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := i; n < rounds && !t.Failed(); n += atOnce {
				c.round(t, fmt.Sprintf("chaos-%d", n), root, spread, random)
			}
		})
	}
	wg.Wait()
	t.Logf("%v, the daemon was started %d times", time.Since(begin).Round(time.Second), c.life+1)
	for wait := time.Now(); ; time.Sleep(time.Second) {
		if len(shimPids(t, "")) == 0 || time.Since(wait) > shimPatience {
			break
		}
	}
	d.wantNothing(t)
	_ = os.Remove("/sys/fs/cgroup/e2e") // ctr's parent of cgroups, which the first container makes
	wantSame(t, before, c.leftovers(t))
}

// leftovers adds to what any container could leave what a shim could.
func (c *chaos) leftovers(t *testing.T) map[string]int {
	t.Helper()
	count := leftovers(t)
	for _, dir := range []string{"/run/containerd/s", "/run/containerd/fifo", "/run/containerd/lucid/e2e", c.fifos()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		count[dir] = len(entries)
	}
	return count
}

func (c *chaos) fifos() string { return filepath.Join(c.dir, "fifos") }

// round is one container's life.
func (c *chaos) round(t *testing.T, id, root string, spread time.Duration, random *rand.Rand) {
	fifos := filepath.Join(c.fifos(), id)
	if err := os.MkdirAll(fifos, 0o700); err != nil {
		t.Error(err)
		return
	}
	// ctr leaves the fifos of a task that is gone before it is deleted.
	defer os.RemoveAll(fifos)
	first := c.lives()
	victim := []string{"nothing", "shim", "sandbox", "containerd"}[random.IntN(4)]
	after := time.Duration(random.Int64N(int64(spread)))
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		time.Sleep(after)
		c.kill(t, victim, id)
	}()
	defer func() { <-killed }()
	created := c.try("run", "-d", "--runtime", shimRuntime, "--fifo-dir", fifos, "--rootfs", root, id,
		"/bin/sh", "-c", "while :; do echo tick; sleep 0.1; done")
	if created {
		c.try("task", "exec", "--fifo-dir", fifos, "--exec-id", "e1", id, "/bin/sh", "-c", "echo from exec")
		c.try("task", "exec", "-d", "--fifo-dir", fifos, "--exec-id", "e2", id, "/bin/sleep", "1000")
	}
	c.try("task", "kill", "-s", "KILL", id)
	status := c.wantStatus(t, id)
	<-killed
	if !status || !c.settle(t, id) {
		return
	}
	if created && c.lives() == first { // nobody hears the events while the daemon is away
		c.wantExit(t, id)
	}
}

// wantStatus waits until the task has ended, and has a status, or is gone together with its shim.
func (c *chaos) wantStatus(t *testing.T, id string) bool {
	for begin := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		if time.Since(begin) > shimPatience {
			t.Errorf("the task of %s does not end", id)
			return false
		}
		fields, ok := c.list("task", "ls") // TASK PID STATUS
		if i := slices.Index(fields, id); ok && (i < 0 || fields[i+2] == "STOPPED") {
			return true
		}
		c.try("task", "kill", "-s", "KILL", id)
	}
}

// settle brings a container to its end: its task has a status, and then neither is there.
func (c *chaos) settle(t *testing.T, id string) bool {
	for begin := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		if time.Since(begin) > shimPatience {
			t.Errorf("%s does not end", id)
			return false
		}
		c.try("task", "rm", "-f", id) // kills it, if that has not been done yet
		c.try("container", "rm", id)
		tasks, ok := c.list("task", "ls", "-q")
		containers, too := c.list("container", "ls", "-q")
		if ok && too && !slices.Contains(tasks, id) && !slices.Contains(containers, id) {
			return true
		}
	}
}

// wantExit wants an exit of the container itself. There may be two: containerd makes one of its own for a shim that is gone.
func (c *chaos) wantExit(t *testing.T, id string) {
	exit := regexp.MustCompile(`/tasks/exit .*"container_id": ?"` + id + `", ?"id": ?"` + id + `"`)
	for begin := time.Now(); time.Since(begin) < shimPatience; time.Sleep(200 * time.Millisecond) {
		data, err := os.ReadFile(c.events)
		if err != nil {
			t.Error(err)
			return
		}
		if exit.Match(data) {
			return
		}
	}
	t.Errorf("no exit event of %s", id)
}

func (c *chaos) lives() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.life
}

// try runs ctr, which may fail: something may just have been killed.
func (c *chaos) try(args ...string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), shimPatience)
	defer cancel()
	return c.command(ctx, args...).Run() == nil
}

// list is what ctr lists.
func (c *chaos) list(args ...string) ([]string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), shimPatience)
	defer cancel()
	out, err := c.command(ctx, args...).Output()
	return strings.Fields(string(out)), err == nil
}

// kill kills what is there of the victim.
func (c *chaos) kill(t *testing.T, victim, id string) {
	switch victim {
	case "containerd":
		c.mu.Lock()
		defer c.mu.Unlock()
		c.life++
		_ = c.cmd.Process.Kill()
		<-c.exited
		c.start(t)
	case "shim":
		killAll(shimPids(t, id))
	case "sandbox":
		killAll(processes(t, id))
	}
}

func killAll(pids []string) {
	for _, p := range pids {
		if pid, err := strconv.Atoi(p); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
