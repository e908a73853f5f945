package shim

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// maxEvents bounds the queue: as many as upstream's shims keep.
	maxEvents = 2048
	// eventPatience is how long containerd may be away, as for an upgrade, before an
	// event is given up.
	eventPatience = 5 * time.Minute
	// maxRefusals is how often containerd may answer with an error: upstream's number.
	maxRefusals = 5
	// forwardTimeout is for one attempt.
	forwardTimeout = 5 * time.Second
	// lastEvents is for what is queued when the server ends.
	lastEvents = 3 * time.Second
)

// publisher sends events to containerd, one after another. Upstream's own publisher
// puts an event that failed behind later ones, and an exit must not come before its start.
type publisher struct {
	address   string
	namespace string
	log       *slog.Logger
	queue     chan *types.Envelope // nil: nobody listens
	mu        sync.Mutex
	closed    bool          // of queue; protected by mu
	hurry     chan struct{} // closed when the server ends
	done      chan struct{} // closed when the queue is empty for good
	client    *ttrpc.Client // the routine's own
}

// newPublisher sends to a ttrpc address. With an empty one, which is cri-o's, publishing
// does nothing.
func newPublisher(address, namespace string, log *slog.Logger) *publisher {
	p := &publisher{address: address, namespace: namespace, log: log, hurry: make(chan struct{}), done: make(chan struct{})}
	if address == "" {
		close(p.done)
		return p
	}
	p.queue = make(chan *types.Envelope, maxEvents)
	go p.routineForward()
	return p
}

// publish queues an event. It does not block.
func (p *publisher) publish(topic string, event proto.Message) {
	if p.queue == nil {
		return
	}
	a, err := toAny(event)
	if err != nil {
		p.log.Error("event", "topic", topic, "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.log.Warn("event after the end", "topic", topic)
		return
	}
	select {
	case p.queue <- &types.Envelope{Timestamp: timestamppb.New(time.Now()), Namespace: p.namespace, Topic: topic, Event: a}:
	default:
		p.log.Error("too many events: containerd does not take them", "topic", topic)
	}
}

// publishSpare is publish for events that a guest can cause by itself. They leave half of the queue to those of containerd's own
// doing and to exits, which must not be lost while containerd is away.
func (p *publisher) publishSpare(topic string, event proto.Message) {
	if len(p.queue) > maxEvents/2 {
		p.log.Warn("event dropped: containerd does not take them", "topic", topic)
		return
	}
	p.publish(topic, event)
}

// close sends what is queued, for at most d. What is published afterwards is dropped.
func (p *publisher) close(d time.Duration) {
	if p.queue == nil {
		return
	}
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.queue)
	}
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(d):
		close(p.hurry)
		// One attempt may be under way: not waited for.
		select {
		case <-p.done:
		case <-time.After(time.Second):
		}
	}
}

// routineForward sends events until the queue is closed and empty.
func (p *publisher) routineForward() {
	defer close(p.done)
	defer p.hangUp()
	for e := range p.queue {
		begin, refusals := time.Now(), 0
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
			err := p.forward(e)
			if err == nil {
				break
			}
			p.hangUp()
			if _, answered := status.FromError(err); answered {
				refusals++
			}
			if refusals > maxRefusals || time.Since(begin) > eventPatience {
				p.log.Error("event dropped", "topic", e.Topic, "err", err)
				break
			}
			select {
			case <-time.After(pause):
			case <-p.hurry:
				return
			}
		}
	}
}

func (p *publisher) forward(e *types.Envelope) error {
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
	defer cancel()
	if p.client == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", strings.TrimPrefix(p.address, "unix://"))
		if err != nil {
			return err
		}
		p.client = ttrpc.NewClient(conn)
	}
	_, err := apievents.NewTTRPCEventsClient(p.client).Forward(ctx, &apievents.ForwardRequest{Envelope: e})
	if errors.Is(err, ttrpc.ErrClosed) {
		return errors.New("containerd has closed the connection")
	}
	return err
}

func (p *publisher) hangUp() {
	if p.client != nil {
		_ = p.client.Close()
		p.client = nil
	}
}
