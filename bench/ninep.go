package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hugelgupf/p9/fsimpl/localfs"
	hp9 "github.com/hugelgupf/p9/p9"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

const (
	p9Msize = 512000 // what the guest's kernel asks for
	p9Files = 1000
)

// p9Job is one thing a client does with a directory; n is how many operations or megabytes it is.
type p9Job struct {
	metric, unit string
	n            float64
	run          func(root hp9.File) error
}

// p9Cases drives both servers by one client, hugelgupf/p9's, over a socket pair each.
func p9Cases(ctx context.Context, w *World) ([]Result, error) {
	dir := filepath.Join(w.dir, "p9")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, bigFile), 0o644); err != nil {
		return nil, err
	}
	for i := range p9Files {
		if err := os.WriteFile(filepath.Join(dir, "a", "b", fmt.Sprint("f", i)), []byte("small"), 0o644); err != nil {
			return nil, err
		}
	}
	var c collector
	for range w.rounds(w.runs(10)) {
		for _, s := range []struct {
			name  string
			serve func(net.Conn) error
		}{
			{"lucid p9server", func(conn net.Conn) error { return serveOurs(conn, dir) }},
			{"hugelgupf localfs", func(conn net.Conn) error { return hp9.NewServer(localfs.Attacher(dir)).Handle(conn, conn) }},
		} {
			if err := p9Once(&c, s.name, s.serve); err != nil {
				return c.results, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if ctx.Err() != nil {
			return c.results, ctx.Err()
		}
	}
	return c.results, nil
}

func serveOurs(conn net.Conn, dir string) error {
	s, err := p9server.New(p9server.Config{Exports: []p9server.Export{{Name: "x", Root: dir}}})
	if err != nil {
		return err
	}
	return errors.Join(p9test.ServeConn(s.NewSession(), conn), s.Close())
}

func p9Once(c *collector, subject string, serve func(net.Conn) error) error {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- serve(there) }()
	defer func() {
		_ = here.Close()
		<-done
	}()
	client, err := hp9.NewClient(here, hp9.WithMessageSize(p9Msize))
	if err != nil {
		return err
	}
	name := ""
	if subject == "lucid p9server" {
		name = "x"
	}
	root, err := client.Attach(name)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, j := range p9Jobs {
		begin := time.Now()
		if err := j.run(root); err != nil {
			return fmt.Errorf("%s: %w", j.metric, err)
		}
		c.add(Result{Subject: subject, Metric: j.metric, Unit: j.unit, Better: More}, j.n/time.Since(begin).Seconds())
	}
	return nil
}

var p9Jobs = []p9Job{
	{"read a file in messages of msize", "MB/s", bigFile / 1e6, p9ReadAll},
	{"read 4 KiB", "ops/s", smallOps, func(root hp9.File) error {
		return p9Open(root, hp9.ReadOnly, func(f hp9.File) error { return p9AtRandom(f.ReadAt) })
	}},
	{"write 4 KiB", "ops/s", smallOps, func(root hp9.File) error {
		return p9Open(root, hp9.ReadWrite, func(f hp9.File) error { return p9AtRandom(f.WriteAt) })
	}},
	{"walk three names, getattr, clunk", "ops/s", p9Files, p9Walk},
	{"list a directory of 1,000", "entries/s", p9Files, p9List},
}

func p9Open(root hp9.File, mode hp9.OpenFlags, f func(hp9.File) error) error {
	_, file, err := root.Walk([]string{"big"})
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, err := file.Open(mode); err != nil {
		return err
	}
	return f(file)
}

// p9AtRandom uses the same places every time.
func p9AtRandom(op func([]byte, int64) (int, error)) error {
	place, buf := places(), bytes.Repeat([]byte{'x'}, smallBlock)
	for range smallOps {
		if _, err := op(buf, place()); err != nil {
			return err
		}
	}
	return nil
}

func p9ReadAll(root hp9.File) error {
	return p9Open(root, hp9.ReadOnly, func(f hp9.File) error {
		buf := make([]byte, bigBlock)
		for at := int64(0); at < bigFile; at += bigBlock {
			if n, err := f.ReadAt(buf, at); n != bigBlock {
				return fmt.Errorf("%d bytes at %d: %w", n, at, err)
			}
		}
		return nil
	})
}

func p9Walk(root hp9.File) error {
	for i := range p9Files {
		_, f, err := root.Walk([]string{"a", "b", fmt.Sprint("f", i)})
		if err != nil {
			return err
		}
		_, _, _, err = f.GetAttr(hp9.AttrMaskAll)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func p9List(root hp9.File) error {
	_, dir, err := root.Walk([]string{"a", "b"})
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, err := dir.Open(hp9.ReadOnly); err != nil {
		return err
	}
	var offset uint64
	entries := 0
	for {
		list, err := dir.Readdir(offset, 64<<10)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		entries += len(list)
		offset = list[len(list)-1].Offset
	}
	if entries < p9Files {
		return fmt.Errorf("%d entries, want at least %d", entries, p9Files)
	}
	return nil
}
