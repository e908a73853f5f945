package kernel

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// interval between two progress lines: alive for a person, short in a CI log.
const interval = 10 * time.Second

// progress counts the lines that make writes, one per file, and reports the
// count every few seconds on a line of its own. RoutineReport owns the timer;
// stop waits for it.
type progress struct {
	log   io.Writer
	start time.Time
	quit  chan struct{}
	done  chan struct{}

	mu    sync.Mutex
	files int
	last  string // newest complete line
	rest  []byte // begin of an incomplete line
}

func startProgress(log io.Writer) *progress {
	p := &progress{log: log, start: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	go p.RoutineReport()
	return p
}

// Write takes make's output.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		p.files++
		p.last = string(bytes.Join(bytes.Fields(line), []byte(" ")))
		p.rest = rest
	}
}

// RoutineReport is the life of the reporting goroutine.
func (p *progress) RoutineReport() {
	defer close(p.done)
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.report()
		case <-p.quit:
			return
		}
	}
}

func (p *progress) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.log, "kernel: %4.0f s, %d files, %s\n", time.Since(p.start).Seconds(), p.files, p.last)
}

func (p *progress) stop() {
	close(p.quit)
	<-p.done
	p.report()
}
