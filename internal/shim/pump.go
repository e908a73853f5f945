package shim

import (
	"io"
	"sync"
)

const (
	// pumpChunk is one read: half of what a pipe holds, so that both of its ends are busy.
	pumpChunk = 32 << 10
	// pumpQueue is how many bytes wait for a reader before the process that writes has
	// to: as many as in a pipe.
	pumpQueue = 64 << 10
	// pumpRest is how many may wait when the process has ended. What it wrote sits in
	// pipes and streams of a few hundred KiB, and the VM cannot end before it is out.
	pumpRest = 8 << 20
)

// pump copies one output to a fifo whose reader may be slow or gone: reading and
// writing are apart, with a bounded queue between.
type pump struct {
	from io.Reader
	to   io.Writer

	mu     sync.Mutex
	change *sync.Cond // any of the following
	queue  [][]byte   // protected by mu
	bytes  int        // in queue; protected by mu
	limit  int        // of bytes; protected by mu
	ended  bool       // nothing more comes; protected by mu
	dead   bool       // nobody takes any more; protected by mu

	done chan struct{} // closed when all is written, or cannot be
}

func newPump(to io.Writer, from io.Reader) *pump {
	p := &pump{from: from, to: to, limit: pumpQueue, done: make(chan struct{})}
	p.change = sync.NewCond(&p.mu)
	return p
}

// start begins to copy.
func (p *pump) start() {
	go p.routineRead()
	go p.routineWrite()
}

// relax lets the rest in, whether anybody reads or not.
func (p *pump) relax() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = pumpRest
	p.change.Broadcast()
}

func (p *pump) routineRead() {
	for {
		buf := make([]byte, pumpChunk)
		n, err := p.from.Read(buf)
		p.mu.Lock()
		if n > 0 {
			p.queue = append(p.queue, buf[:n])
			p.bytes += n
		}
		p.ended = err != nil
		p.change.Broadcast()
		for p.bytes >= p.limit && !p.dead {
			p.change.Wait()
		}
		over := p.ended || p.dead
		p.mu.Unlock()
		if over {
			return
		}
	}
}

func (p *pump) routineWrite() {
	defer close(p.done)
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.ended {
			p.change.Wait()
		}
		if len(p.queue) == 0 {
			p.mu.Unlock()
			return
		}
		data := p.queue[0]
		p.mu.Unlock()
		_, err := p.to.Write(data)
		p.mu.Lock()
		// Only now: what is being written counts.
		p.queue = p.queue[1:]
		p.bytes -= len(data)
		p.dead = err != nil
		p.change.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}
