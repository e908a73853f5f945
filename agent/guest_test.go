package agent_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

func TestGuest(t *testing.T) {
	v := bootVM(t)
	v.mustCall(wire.MethodConfigure, &wire.Configure{
		Hostname: "outer", TimeNS: time.Now().UnixNano(), Entropy: bytes.Repeat([]byte{1, 2, 3, 4}, 8),
		Share: wire.Share{MSize: 65536},
	}, nil)
	v.mustCall(wire.MethodPrepare, nil, nil)
	t.Run("output", func(t *testing.T) {
		v.t = t
		out, errs, status := v.run("hello", "", containerSpec("prog", "echo", "hello", "guest"))
		if out != "hello guest\n" || errs != "" || status != 0 {
			t.Errorf("%q, %q, %d", out, errs, status)
		}
	})
	t.Run("identity", func(t *testing.T) {
		v.t = t
		if out, errs, _ := v.run("id", "", containerSpec("prog", "id")); out != "0 0 [] 1 inner /tmp\n" {
			t.Errorf("%q, %q", out, errs)
		}
	})
	t.Run("input and status", func(t *testing.T) {
		v.t = t
		big := strings.Repeat("0123456789abcdef", 20_000)
		if out, errs, _ := v.run("cat", big, containerSpec("prog", "cat")); out != big {
			t.Errorf("%d bytes, %q", len(out), errs)
		}
		if _, errs, status := v.run("exit", "", containerSpec("prog", "exit", "33")); status != 33 {
			t.Errorf("%q, %d", errs, status)
		}
	})
	t.Run("limits", func(t *testing.T) {
		v.t = t
		for file, want := range map[string]string{
			"memory.max": "67108864\n", "pids.max": "50\n", "cpu.max": "50000 100000\n", "cgroup.procs": "1\n",
		} {
			if out, errs, _ := v.run("cg", "", containerSpec("prog", "cat", "/sys/fs/cgroup/"+file)); out != want {
				t.Errorf("%s: %q, %q", file, out, errs)
			}
		}
		if out, errs, _ := v.run("rl", "", containerSpec("prog", "rlimit", "7")); !strings.HasSuffix(out, " 300000\n") {
			t.Errorf("RLIMIT_NOFILE (Go changes the soft one): %q, %q", out, errs)
		}
		if out, errs, _ := v.run("oom", "", containerSpec("prog", "cat", "/proc/self/oom_score_adj")); out != "100\n" {
			t.Errorf("oom_score_adj: %q, %q", out, errs)
		}
	})
	t.Run("mounts", func(t *testing.T) {
		v.t = t
		out, errs, _ := v.run("mounts", "", containerSpec("prog", "cat", "/proc/self/mountinfo"))
		if !strings.Contains(out, " - 9p lucid ") || strings.Contains(out, "cgroup/containers") || errs != "" {
			t.Errorf("mounts:\n%s%s", out, errs)
		}
		if _, errs, _ := v.run("ro", "", containerSpec("prog", "write", "/proc/sys/kernel/hostname", "x")); !strings.Contains(errs, "read-only") {
			t.Errorf("/proc/sys: %q", errs)
		}
		if _, errs, _ := v.run("rw", "", containerSpec("prog", "write", "/made", "in the guest")); errs != "" {
			t.Errorf("write: %q", errs)
		}
		if b, err := os.ReadFile(filepath.Join(v.share, "root/made")); string(b) != "in the guest" {
			t.Errorf("host sees %q, %v", b, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		v.t = t
		_, _, _, err := v.open(func(ids wire.IO) error {
			return v.call(wire.MethodCreateContainer, &wire.CreateContainer{ID: "e", Spec: containerSpec("foo"), Rootfs: "root", IO: ids}, nil)
		})
		var werr *wire.Error
		if !errors.As(err, &werr) || werr.Message != `exec: "foo": executable file not found in $PATH` {
			t.Errorf("Create: %v", err)
		}
		if err := v.call("Fly", nil, nil); !errors.As(err, &werr) || werr.Kind != wire.KindUnknownMethod {
			t.Errorf("unknown method: %v", err)
		}
	})
	t.Run("exec and signals", func(t *testing.T) { v.t = t; testExec(v) })
	t.Run("out of memory", func(t *testing.T) { v.t = t; testOOM(v) })
	t.Run("fork bomb", func(t *testing.T) { v.t = t; testForkBomb(v) })
	v.t = t
	v.mustCall(wire.MethodShutdown, nil, nil)
	select {
	case err := <-v.exited:
		if err != nil {
			t.Errorf("QEMU: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the guest did not shut down")
	}
}

func testExec(v *vm) {
	t := v.t
	_, out, _, err := v.open(func(ids wire.IO) error {
		return v.call(wire.MethodCreateContainer, &wire.CreateContainer{ID: "long", Spec: containerSpec("prog", "trap"), Rootfs: "root", IO: ids}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	v.mustCall(wire.MethodStartContainer, &wire.StartContainer{ID: "long"}, nil)
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	_, eout, _, err := v.open(func(ids wire.IO) error {
		return v.call(wire.MethodExec, &wire.Exec{ID: "long", ExecID: "e", Process: as[wire.Process](processSpec("prog", "cat", "/proc/1/comm", "/proc/self/cgroup")), IO: ids}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(eout); string(b) != "prog\n0::/\n" || err != nil {
		t.Errorf("exec: %q, %v", b, err)
	}
	if e := v.waitExit(); e.ExecID != "e" || e.Status != 0 {
		t.Errorf("exec's exit %+v", e)
	}
	var werr *wire.Error
	if err := v.call(wire.MethodPrepare, nil, nil); !errors.As(err, &werr) || werr.Kind != wire.KindState {
		t.Errorf("Prepare with a container: %v", err)
	}
	var s wire.StatsResult
	v.mustCall(wire.MethodStats, &wire.Stats{ID: "long"}, &s)
	if s.CPUUsageUS == 0 || s.MemoryCurrent == 0 || s.MemoryMax != 64<<20 || s.PidsCurrent == 0 || s.PidsMax != 50 {
		t.Errorf("stats %+v", s)
	}
	v.mustCall(wire.MethodSignal, &wire.Signal{ID: "long", Signal: 15}, nil)
	if e := v.waitExit(); e.ID != "long" || e.Status != 42 {
		t.Errorf("exit %+v", e)
	}
	v.mustCall(wire.MethodDeleteContainer, &wire.DeleteContainer{ID: "long"}, nil)
}

// testOOM lets a container eat more than it may: as its own process, of which the report comes before the exit, and as one
// more, after which it goes on.
func testOOM(v *vm) {
	t := v.t
	if _, errs, status := v.run("hungry", "", containerSpec("prog", "eat")); status != 137 {
		t.Errorf("%q, %d", errs, status)
	}
	select {
	case e := <-v.ooms:
		if e.ID != "hungry" || e.Kills != 1 {
			t.Errorf("%+v", e)
		}
	default:
		t.Error("no report by the time of the exit")
	}
	spec := containerSpec("prog", "trap")
	create := func(ids wire.IO) error {
		return v.call(wire.MethodCreateContainer, &wire.CreateContainer{ID: "host", Spec: spec, Rootfs: "root", IO: ids}, nil)
	}
	if _, _, _, err := v.open(create); err != nil {
		t.Fatal(err)
	}
	v.mustCall(wire.MethodStartContainer, &wire.StartContainer{ID: "host"}, nil)
	for n := uint64(1); n <= 2; n++ {
		exec := func(ids wire.IO) error {
			return v.call(wire.MethodExec, &wire.Exec{ID: "host", ExecID: "e", Process: as[wire.Process](processSpec("prog", "eat")), IO: ids}, nil)
		}
		if _, _, _, err := v.open(exec); err != nil {
			t.Fatal(err)
		}
		if e := v.waitExit(); e.ExecID != "e" || e.Status != 137 {
			t.Errorf("%+v", e)
		}
		select {
		case e := <-v.ooms:
			if e.ID != "host" || e.Kills != n {
				t.Errorf("%+v, want %d kills", e, n)
			}
		case <-time.After(bootLimit):
			t.Fatal("no report")
		}
	}
	v.mustCall(wire.MethodDeleteContainer, &wire.DeleteContainer{ID: "host"}, nil)
	if e := v.waitExit(); e.Status != 137 {
		t.Errorf("%+v", e)
	}
	if len(v.ooms) != 0 {
		t.Errorf("%+v", <-v.ooms)
	}
}

// testForkBomb takes all tasks or all memory that there is, without a limit of
// the container's own, and sees that the agent still answers.
func testForkBomb(v *vm) {
	t := v.t
	spec := containerSpec("prog", "bomb")
	spec.Linux.Resources = nil
	_, out, _, err := v.open(func(ids wire.IO) error {
		return v.call(wire.MethodCreateContainer, &wire.CreateContainer{ID: "bomb", Spec: spec, Rootfs: "root", IO: ids}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	v.mustCall(wire.MethodStartContainer, &wire.StartContainer{ID: "bomb"}, nil)
	// The bomb says when it gets no more tasks, unless the OOM killer ends
	// it before.
	if b, err := io.ReadAll(io.LimitReader(out, int64(len("full\n")))); err != nil || len(b) > 0 && string(b) != "full\n" {
		t.Errorf("%q, %v", b, err)
	}
	var s wire.StatsResult
	v.mustCall(wire.MethodStats, &wire.Stats{ID: "bomb"}, &s)
	v.mustCall(wire.MethodDeleteContainer, &wire.DeleteContainer{ID: "bomb"}, nil)
	if e := v.waitExit(); e.Status != 137 {
		t.Errorf("exit %+v", e)
	}
	if out, errs, _ := v.run("after", "", containerSpec("prog", "echo", "alive")); out != "alive\n" {
		t.Errorf("after the bomb: %q, %q", out, errs)
	}
}
