package sandbox

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const (
	// guestLogMax bounds console.log: a guest can print without end, and the
	// state directory is memory.
	guestLogMax = 1 << 20
	// guestTail is how much of the end is kept for error messages.
	guestTail = 2 << 10
)

// guestLog takes what the guest's kernel and agent print on the console.
// Devices write to it through a spool, so it may block for a moment.
type guestLog struct {
	out io.Writer
	log *slog.Logger // nil unless each line is to be logged

	mu   sync.Mutex
	left int    // bytes that out still takes
	lost uint64 // bytes that it did not take
	tail []byte // the last guestTail bytes
	line []byte // an unfinished line for log
}

func newGuestLog(out io.Writer, log *slog.Logger) *guestLog {
	return &guestLog{out: out, log: log, left: guestLogMax}
}

// Write never fails: the guest does not depend on our log.
func (g *guestLog) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(p), g.left)
	if n > 0 {
		_, _ = g.out.Write(p[:n])
		if g.left -= n; g.left == 0 {
			_, _ = io.WriteString(g.out, "\n[lucid: console log is full]\n")
		}
	}
	g.lost += uint64(len(p) - n)
	g.tail = append(g.tail, p...)
	if extra := len(g.tail) - guestTail; extra > 0 {
		g.tail = append(g.tail[:0], g.tail[extra:]...)
	}
	if g.log != nil {
		g.logLines(p[:n])
	}
	return len(p), nil
}

// finish writes the end of what did not fit: there a kernel says why it died.
func (g *guestLog) finish() {
	last := g.lastLines(4)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost == 0 {
		return
	}
	if g.log != nil {
		g.log.Debug("guest's last lines", "lines", last)
	}
	end := g.tail[len(g.tail)-int(min(uint64(len(g.tail)), g.lost)):]
	_, _ = fmt.Fprintf(g.out, "[lucid: %d bytes left out]\n%s", g.lost-uint64(len(end)), end)
	g.lost = 0
}

func (g *guestLog) logLines(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			// A line without end is cut.
			if g.line = append(g.line, p...); len(g.line) < guestTail {
				return
			}
			i = len(p) - 1
		} else {
			g.line = append(g.line, p[:i]...)
		}
		if text := strings.TrimRight(string(g.line), "\r"); text != "" {
			g.log.Debug("guest", "line", text)
		}
		g.line, p = g.line[:0], p[i+1:]
	}
}

// lastLines are the last lines with something in them: what a panicking kernel
// said, mostly.
func (g *guestLog) lastLines(n int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var lines []string
	for l := range strings.Lines(strings.ToValidUTF8(string(g.tail), "?")) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, printable(l))
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, " | ")
}
