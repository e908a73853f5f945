package vsock

import (
	"errors"
	"fmt"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

var _ virtio.Stateful = (*Device)(nil)

// maxHeld bounds the requests that are kept unanswered: one is what a template
// has.
const maxHeld = 8

// hold is a host port whose connection requests are kept and not answered.
type hold struct {
	came     chan struct{} // closed with the first request
	requests []request     // at most maxHeld
}

// request is a connection that the guest asks for.
type request struct {
	Guest, Host uint32 // ports
	BufAlloc    uint32 // the guest's credit
}

// Hold keeps connection requests of the guest to a host port unanswered from now
// on, whether anybody listens there or not. The channel is closed when the first
// one has come: a guest whose only program waits for that answer is idle, and
// this is how the host learns it without asking. Saved (Freeze) and restored
// (Thaw), the request is answered as if it had come then.
func (d *Device) Hold(port uint32) <-chan struct{} {
	m := &d.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.holds[port]
	if h == nil {
		h = &hold{came: make(chan struct{})}
		if m.holds == nil {
			m.holds = map[uint32]*hold{}
		}
		m.holds[port] = h
	}
	return h.came
}

// keep takes a request for a port that is held, and says whether it is one. m.mu
// is held.
func (m *mux) keep(k connKey, h *header) (kept bool) {
	held := m.holds[k.host]
	if held == nil || h.fwdCnt != 0 || len(held.requests) == maxHeld {
		return false
	}
	held.requests = append(held.requests, request{Guest: k.guest, Host: k.host, BufAlloc: h.bufAlloc})
	if len(held.requests) == 1 {
		close(held.came)
	}
	return true
}

// Freeze implements virtio.Stateful. It saves the guest's CID and the requests
// that are held, and refuses while a connection is open: its other end is a
// socket of this process.
//
// A checkpoint of a running container either closes its streams here and has the
// agent open them again after Thaw, as after TransportReset, or saves per
// connection the fields of Conn that mirror the guest's: ports, credit, counts,
// shutdown flags, unread bytes. The first is the plan: bytes are counted end to
// end already (wire.ContainerExited).
func (d *Device) Freeze() ([]byte, error) {
	d.mu.Lock()
	tx, events := d.tx, d.events
	d.mu.Unlock()
	tx.Freeze()
	events.Freeze()
	d.wg.Wait()
	if err := d.mux.rx.freeze(); err != nil {
		return nil, err
	}
	m := &d.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.conns); n > 0 {
		return nil, fmt.Errorf("vsock: %d connections are open", n)
	}
	var w vmstate.Writer
	w.U32(m.guestCID)
	var all []request
	for _, h := range m.holds {
		all = append(all, h.requests...)
	}
	w.U32(uint32(len(all)))
	for _, q := range all {
		w.Struct(q)
	}
	return w.Data(), nil
}

// Thaw implements virtio.Stateful. Preconditions: who listens for the requests
// that were held does so before Activate.
func (d *Device) Thaw(state []byte) error {
	r := vmstate.NewReader(state)
	cid := r.U32()
	all := make([]request, r.Count(maxHeld, 12))
	for i := range all {
		r.Struct(&all[i])
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	if cid != d.mux.guestCID {
		return fmt.Errorf("vsock: saved guest has CID %d, this one %d", cid, d.mux.guestCID)
	}
	d.mu.Lock()
	d.owedRequests = all
	d.mu.Unlock()
	return nil
}

// answerHeld gives the requests of a guest that was saved to who listens.
// Preconditions: the queues run.
func (d *Device) answerHeld(all []request) {
	for _, q := range all {
		d.mux.accept(connKey{guest: q.Guest, host: q.Host}, &header{
			srcCID: uint64(d.mux.guestCID), dstCID: HostCID, srcPort: q.Guest, dstPort: q.Host,
			typ: typeStream, op: opRequest, bufAlloc: q.BufAlloc,
		})
	}
}

var errRXBusy = errors.New("vsock: the guest has not taken all that it was sent")

// freeze returns when no goroutine touches the guest's memory, and puts the
// buffer that waits for a packet back into the ring.
func (r *rxq) freeze() error {
	r.mu.Lock()
	if r.q != nil {
		r.q.Freeze()
	}
	if r.chain != nil {
		r.q.Unpop(r.chain)
		r.chain = nil
	}
	r.broken = true // run does nothing from here on
	busy := r.first != nil || len(r.resets) > 0
	r.mu.Unlock()
	r.wg.Wait()
	if busy {
		return errRXBusy
	}
	return nil
}
