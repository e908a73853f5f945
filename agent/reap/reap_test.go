package reap_test

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
)

func start(t *testing.T, r *reap.Reaper, script string) (*reap.Process, *spawn.Child) {
	t.Helper()
	var c *spawn.Child
	p, err := r.Spawn(func() (int, error) {
		var err error
		if c, err = spawn.Clone(spawn.Config{CgroupFD: -1}); err != nil {
			return 0, err
		}
		return c.Pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	prog := new(spawn.Program)
	prog.Call("execve", unix.SYS_EXECVE, prog.String("/bin/sh"),
		prog.Strings([]string{"sh", "-c", script}), prog.Strings(nil))
	if err := c.Exec(prog); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Forget)
	return p, c
}

// One test: a process can have one Reaper only, since it takes all children.
func TestReaper(t *testing.T) {
	r := reap.New()
	if _, err := r.Spawn(func() (int, error) { return 0, unix.EAGAIN }); err != unix.EAGAIN {
		t.Errorf("Spawn that fails: %v", err)
	}
	for script, want := range map[string]int{"exit 5": 5, "kill -9 $$": 137, "true": 0} {
		p, _ := start(t, r, script)
		if got := <-p.Done; got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
	// After ECHILD it goes on waiting.
	p, c := start(t, r, "sleep 1000")
	select {
	case s := <-p.Done:
		t.Fatalf("ended with %d", s)
	default:
	}
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-p.Done; got != 128+15 {
		t.Errorf("terminated: %d", got)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			p, _ := start(t, r, "exit "+string(rune('0'+i%10)))
			if got := <-p.Done; got != i%10 {
				t.Errorf("exit %d: %d", i%10, got)
			}
		})
	}
	wg.Wait()
}
