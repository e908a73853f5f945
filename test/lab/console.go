package main

import (
	"bufio"
	"bytes"
	"io"
	"regexp"
	"sync"
)

// console reads L1's kernel console. It keeps the last lines, and from the
// first sign of a crash on it passes every line to the user.
type console struct {
	out     io.Writer
	verbose bool

	mu    sync.Mutex
	tail  [][]byte // last lines, oldest first
	crash string   // the line that showed the crash
}

// crashSign is how the kernel begins to say that it is lost.
var crashSign = regexp.MustCompile(`Kernel panic|Oops:|BUG: |general protection fault|kernel BUG at|double fault|not syncing`)

const tailLines = 60

// routine runs until the console closes.
func (c *console) routine(r io.Reader) {
	br := bufio.NewReaderSize(r, 4096)
	for {
		line, err := br.ReadSlice('\n') // longer lines come in pieces
		if len(line) > 0 {
			c.line(bytes.TrimRight(line, "\r\n"))
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (c *console) line(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crash == "" && crashSign.Match(line) {
		c.crash = string(line)
		if !c.verbose {
			c.flush()
		}
	}
	if c.verbose || c.crash != "" {
		c.print(line)
		return
	}
	c.tail = append(c.tail, bytes.Clone(line))
	if len(c.tail) > tailLines {
		c.tail = c.tail[1:]
	}
}

func (c *console) print(line []byte) {
	_, _ = c.out.Write(append(append([]byte("L1: "), line...), '\n'))
}

func (c *console) flush() {
	for _, l := range c.tail {
		c.print(l)
	}
	c.tail = nil
}

// failed shows what was kept and returns the crash line, if there was one.
func (c *console) failed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	return c.crash
}
