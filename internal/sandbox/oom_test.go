package sandbox

import (
	"context"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

func (a *agent) oom(id string, kills uint64) {
	a.t.Helper()
	if err := a.conn.WriteFrame(&wire.Frame{Method: wire.EventContainerOOM, Params: raw(wire.ContainerOOM{ID: id, Kills: kills})}); err != nil {
		a.t.Error(err)
	}
}

func (c *container) oomAfter(seen uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := c.Control(ctx, control.MethodOOM, asJSON(control.OOM{Kills: seen}), nil)
	if err != nil {
		return 0, err
	}
	return got.(control.OOM).Kills, nil
}

// TestOOM: who waits hears of a kill, of one just before the end too, and at the end that there are no more.
func TestOOM(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	first := make(chan uint64, 1)
	go func() {
		n, err := r.c.oomAfter(0)
		if err != nil {
			t.Error(err)
		}
		first <- n
	}()
	select {
	case n := <-first:
		t.Fatalf("%d kills, and there was none", n)
	case <-time.After(50 * time.Millisecond):
	}
	r.agent.oom("c1", 1)
	if n := <-first; n != 1 {
		t.Errorf("%d kills", n)
	}
	r.agent.oom("other", 9) // nobody's
	r.agent.oom("c1", 0)    // less than before
	if err := r.agent.conn.WriteFrame(&wire.Frame{Method: wire.EventContainerOOM, Params: []byte{1}}); err != nil {
		t.Error(err)
	}
	r.agent.oom("c1", 3)
	r.agent.exited("c1", 137, 0, 0)
	if code := r.exit(t); code != 137 {
		t.Errorf("exit status %d", code)
	}
	if n, err := r.c.oomAfter(1); n != 3 || err != nil {
		t.Errorf("%d kills, %v: what came before the exit is lost", n, err)
	}
	if _, err := r.c.oomAfter(3); kindOf(err) != control.KindNotRunning {
		t.Errorf("%v", err)
	}
}

// TestOOMFlood: a guest that does not stop to say it costs no memory, whether anybody waits or not.
func TestOOMFlood(t *testing.T) {
	r := newRig(t, nil)
	waiting := make(chan error, 1)
	go func() {
		_, err := r.c.oomAfter(20_000 - 1)
		waiting <- err
	}()
	for n := range uint64(20_000) {
		r.agent.oom("c1", n+1)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if n, err := r.c.oomAfter(0); err != nil || n != 20_000 {
		t.Errorf("%d kills, %v", n, err)
	}
}

// TestOOMOfMember: each container of a pod has its own.
func TestOOMOfMember(t *testing.T) {
	p := newPodRig(t)
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	p.agent.oom("c2", 2)
	var got control.OOM
	if err := p.ask(t, "c2", control.MethodOOM, control.OOM{Kills: 1}, &got); err != nil || got.Kills != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.c.Control(ctx, control.MethodOOM, asJSON(control.OOM{}), nil); err == nil {
		t.Error("the pod has no process that could be killed")
	}
}
