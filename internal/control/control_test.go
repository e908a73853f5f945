package control_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
)

// echo answers with its parameters, "fail" with an error, and "block" when
// its caller has gone.
type echo struct{ blocked chan error }

func (e echo) Control(ctx context.Context, method string, params json.RawMessage, _ []*os.File) (any, error) {
	switch method {
	case "fail":
		return nil, &control.Error{Kind: control.KindGuest, Message: "because"}
	case "break":
		return nil, errors.New("plain")
	case "block":
		<-ctx.Done()
		e.blocked <- ctx.Err()
		return nil, ctx.Err()
	case "nothing":
		return nil, nil
	}
	return params, nil
}

func serve(t *testing.T, h control.Handler) (dir string, s *control.Server) {
	t.Helper()
	dir = t.TempDir()
	return dir, serveIn(t, dir, h)
}

func serveIn(t *testing.T, dir string, h control.Handler) *control.Server {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := control.Listen(d)
	if err != nil {
		t.Fatal(err)
	}
	s := control.Serve(l, h, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func dial(t *testing.T, dir string) *control.Conn {
	t.Helper()
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCalls(t *testing.T) {
	dir, _ := serve(t, echo{})
	info, err := os.Stat(filepath.Join(dir, control.SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v, want mode 0600", info, err)
	}
	c := dial(t, dir)
	for i := range 3 { // one connection, several calls
		var got control.KillParams
		if err := c.Call(t.Context(), "echo", control.KillParams{Signal: i}, &got); err != nil || got.Signal != i {
			t.Errorf("%+v, %v", got, err)
		}
	}
	var ce *control.Error
	if err := c.Call(t.Context(), "fail", nil, nil); !errors.As(err, &ce) || ce.Kind != control.KindGuest || ce.Message != "because" {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "break", nil, nil); !errors.As(err, &ce) || ce.Kind != control.KindInternal || ce.Message != "plain" {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "nothing", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCalls(t *testing.T) {
	dir, _ := serve(t, echo{})
	var wg sync.WaitGroup
	for i := range 100 { // more than are served at once
		wg.Go(func() {
			c, err := control.Dial(t.Context(), dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			var got control.KillParams
			if err := c.Call(t.Context(), "echo", control.KillParams{Signal: i}, &got); err != nil || got.Signal != i {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	wg.Wait()
}

// TestCallerGone: what runs for a caller ends with it.
func TestCallerGone(t *testing.T) {
	e := echo{blocked: make(chan error, 1)}
	dir, _ := serve(t, e)
	c := dial(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "block", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	_ = c.Close()
	select {
	case <-e.blocked:
	case <-time.After(10 * time.Second):
		t.Error("the handler still runs")
	}
}

func TestServerClose(t *testing.T) {
	e := echo{blocked: make(chan error, 1)}
	dir, s := serve(t, e)
	c := dial(t, dir)
	failed := make(chan error, 1)
	go func() { failed <- c.Call(t.Context(), "block", nil, nil) }()
	time.Sleep(20 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("a call on a closed server succeeded")
	}
	if _, err := control.Dial(t.Context(), dir); !errors.Is(err, unix.ECONNREFUSED) || strings.Contains(err.Error(), "/proc/") {
		t.Errorf("dial after close: %v", err)
	}
}

func TestDialNothing(t *testing.T) {
	if _, err := control.Dial(t.Context(), "/no/such/dir"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := control.Dial(t.Context(), t.TempDir()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}

func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serveIn(t, dir, echo{})
	if err := dial(t, dir).Call(t.Context(), "nothing", nil, nil); err != nil {
		t.Error(err)
	}
}

// TestGarbage: a broken caller loses its connection; others are served.
func TestGarbage(t *testing.T) {
	dir, _ := serve(t, echo{})
	huge := binary.LittleEndian.AppendUint32(nil, 0xffffffff)
	for name, data := range map[string][]byte{
		"huge length": huge,
		"no JSON":     append(binary.LittleEndian.AppendUint32(nil, 3), "abc"...),
		"cut off":     {9, 0, 0, 0, '{'},
	} {
		c, err := net.Dial("unix", filepath.Join(dir, control.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.UnixConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: answer %q, %v", name, got, err)
		}
		_ = c.Close()
	}
	if err := dial(t, dir).Call(t.Context(), "nothing", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	if err := control.Send(&b, control.Launch{ID: "x", Spawned: 7}); err != nil {
		t.Fatal(err)
	}
	var l control.Launch
	if err := control.Receive(&b, &l); err != nil || l.ID != "x" || l.Spawned != 7 {
		t.Errorf("%+v, %v", l, err)
	}
	if err := control.Receive(&b, &l); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	if err := control.Send(io.Discard, strings.Repeat("x", control.MaxFrame)); !errors.Is(err, control.ErrFrame) {
		t.Errorf("too long: %v", err)
	}
	if err := control.Receive(bytes.NewReader([]byte{1, 0}), &l); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a length: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r control.Request
		if control.Receive(bytes.NewReader(data), &r) == nil {
			var b bytes.Buffer
			if err := control.Send(&b, r); err != nil {
				t.Errorf("sending what was received (%s): %v", strconv.Quote(r.Method), err)
			}
		}
	})
}
