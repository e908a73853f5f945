package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	apitypes "github.com/containerd/containerd/api/events"
	apievents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// daemon is the part of containerd that takes events.
type daemon struct {
	path   string
	server *ttrpc.Server

	mu     sync.Mutex
	refuse int
	events []*types.Envelope
}

func newDaemon(t *testing.T, path string) *daemon {
	t.Helper()
	d := &daemon{path: path}
	d.listen(t)
	t.Cleanup(func() { _ = d.server.Close() })
	return d
}

func (d *daemon) listen(t *testing.T) {
	t.Helper()
	server, err := ttrpc.NewServer()
	must(t, err)
	apievents.RegisterTTRPCEventsService(server, d)
	_ = os.Remove(d.path)
	l, err := net.Listen("unix", d.path)
	must(t, err)
	d.server = server
	go func() { _ = server.Serve(context.Background(), l) }()
}

func (d *daemon) Forward(_ context.Context, r *apievents.ForwardRequest) (*emptypb.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse > 0 {
		d.refuse--
		return nil, errors.New("not now")
	}
	d.events = append(d.events, r.Envelope)
	return &emptypb.Empty{}, nil
}

func (d *daemon) topics() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, e := range d.events {
		all = append(all, e.Topic)
	}
	return all
}

// want waits for as many events and compares them.
func (d *daemon) want(t *testing.T, topics ...string) {
	t.Helper()
	for begin := time.Now(); len(d.topics()) < len(topics) && time.Since(begin) < 20*time.Second; {
		time.Sleep(5 * time.Millisecond)
	}
	if got := d.topics(); !slices.Equal(got, topics) {
		t.Errorf("events\n%v, want\n%v", got, topics)
	}
}

// containerd goes away, comes back, and refuses an event: none is lost and none is overtaken.
func TestEventsSurviveARestart(t *testing.T) {
	d := newDaemon(t, filepath.Join(t.TempDir(), "ttrpc"))
	p := newPublisher(d.path, "ns", slog.New(slog.DiscardHandler))
	var want []string
	publish := func() {
		topic := fmt.Sprintf("/tasks/%d", len(want))
		want = append(want, topic)
		p.publish(topic, &apitypes.TaskStart{ContainerID: "c"})
	}
	publish()
	d.want(t, want...)
	must(t, d.server.Close())
	publish()
	publish()
	time.Sleep(300 * time.Millisecond)
	d.mu.Lock()
	d.refuse = 2
	d.mu.Unlock()
	d.listen(t)
	publish()
	p.close(20 * time.Second)
	// An event whose answer was lost with the connection comes twice.
	if got := slices.Compact(d.topics()); !slices.Equal(got, want) {
		t.Errorf("events\n%v, want\n%v", got, want)
	}
	if e := d.events[0]; e.Namespace != "ns" || e.Event.TypeUrl != "containerd.events.TaskStart" || e.Timestamp.AsTime().IsZero() {
		t.Errorf("%v", e)
	}
}

// The end of the server does not wait for a containerd that is gone.
func TestEventsAtTheEnd(t *testing.T) {
	p := newPublisher(filepath.Join(t.TempDir(), "none"), "ns", slog.New(slog.DiscardHandler))
	p.publish("/tasks/exit", &apitypes.TaskExit{})
	begin := time.Now()
	p.close(50 * time.Millisecond)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	p.publish("/tasks/delete", &apitypes.TaskDelete{}) // too late, and no panic
}

// cri-o gives no address.
func TestEventsForNobody(t *testing.T) {
	p := newPublisher("", "ns", slog.New(slog.DiscardHandler))
	for range 2 * maxEvents {
		p.publish("/tasks/exit", &apitypes.TaskExit{})
	}
	p.close(time.Hour)
}

// What a guest can cause leaves room for an exit.
func TestEventsToSpare(t *testing.T) {
	p := &publisher{log: slog.New(slog.DiscardHandler), queue: make(chan *types.Envelope, maxEvents)} // nobody takes them
	for range 2 * maxEvents {
		p.publishSpare("/tasks/oom", &apitypes.TaskOOM{})
	}
	n := len(p.queue)
	p.publish("/tasks/exit", &apitypes.TaskExit{})
	if n < maxEvents/2 || n > maxEvents/2+1 || len(p.queue) != n+1 {
		t.Errorf("%d events to spare, %d with the exit", n, len(p.queue))
	}
}
