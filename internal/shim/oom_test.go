package shim

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// eat is the fake guest's: its OOM killer at work.
func (m *machine) eat() {
	n, _ := strconv.ParseUint(m.args[1], 10, 64)
	for range n {
		m.kills.Add(1)
		time.Sleep(time.Millisecond)
	}
	close(m.over)
	m.end(137)
}

func (m *machine) awaitKill(ctx context.Context, params json.RawMessage) (any, error) {
	var p control.OOM
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	for over := false; ; time.Sleep(time.Millisecond) {
		if n := m.kills.Load(); n > p.Kills {
			return control.OOM{Kills: n}, nil
		}
		if over {
			return nil, &control.Error{Kind: control.KindNotRunning, Message: "container not running"}
		}
		select {
		case <-m.gone:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		default:
		}
	}
}

// An OOM kill is told before the exit, of a container alone and of one in a pod.
func TestOOM(t *testing.T) {
	w := newWorld(t)
	w.create(&task.CreateTaskRequest{}, "eat", "1")
	w.start("")
	if code := w.wait(""); code != 137 {
		t.Errorf("exit status %d", code)
	}
	w.delete("")
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete")

	w = newWorld(t)
	w.run("pod", asSandbox("pod"), "/pause")
	w.run("one", asMember("pod"), "eat", "1")
	w.wantExit("one", 137)
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit")
}

// A guest that says it all the time is told now and then, and the last time before the exit.
func TestOOMFlood(t *testing.T) {
	w := newWorld(t)
	w.create(&task.CreateTaskRequest{}, "eat", "1500")
	begin := time.Now()
	w.start("")
	w.wait("")
	took := time.Since(begin)
	w.delete("")
	eventually(t, "the container is deleted", func() bool { return slices.Contains(w.daemon.topics(), "/tasks/delete") })
	topics := w.daemon.topics()
	n := 0
	for _, topic := range topics {
		if topic == "/tasks/oom" {
			n++
		}
	}
	if most := 2 + int(took/runtime.OOMInterval); n < 2 || n > most || !slices.Equal(topics[len(topics)-3:], []string{"/tasks/oom", "/tasks/exit", "/tasks/delete"}) {
		t.Errorf("%v in %v, want 2 to %d OOM events", topics, took, most)
	}
}

// An OOM kill that could not be told before the exit is not told any more.
func TestOOMAfterExit(t *testing.T) {
	w := newWorld(t)
	w.create(&task.CreateTaskRequest{}, "eat", "1500")
	w.start("")
	rc, err := w.rt.Load("c1")
	must(t, err)
	d := newDaemon(t, filepath.Join(t.TempDir(), "ttrpc"))
	s := &service{events: newPublisher(d.path, "ns", slog.New(slog.DiscardHandler))}
	c := &container{id: "c1", rc: rc}
	c.init = newProcess(c, "", ioConfig{})
	c.init.gate.Lock() // the exit's
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.routineOOM(ctx, c, nil)
	}()
	time.Sleep(200 * time.Millisecond) // it waits for the gate; when is not seen
	cancel()
	c.init.gate.Unlock()
	<-done
	s.events.close(10 * time.Second)
	d.want(t)
}
