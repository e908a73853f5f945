package sandbox

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
)

// TestEnded: the end of the process is told while its output still waits for a reader.
func TestEnded(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := r.c.Control(context.Background(), control.MethodEnded, json.RawMessage(nil), nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("it was told while the process ran: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	r.agent.exited("c1", 6, 100, 0) // 100 bytes that have not come yet
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s := r.c.status(); s.State == control.StateStopped {
		t.Error("the container counts as stopped, and its output is not out")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newContainer("c2", r.c.plan, nil, r.c.log).Control(ctx, control.MethodEnded, nil, nil); err == nil {
		t.Error("a container that is being created has not ended")
	}
	if _, err := r.agent.out[0].Write(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if code := r.exit(t); code != 6 {
		t.Errorf("exit status %d", code)
	}
}
