package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxConns bounds the connections that are served at once. Callers are of
// our own user; the bound is against a caller that leaks them. Each exec that runs holds one.
const maxConns = 1024

// idleTimeout closes a connection that asks nothing.
const idleTimeout = time.Minute

// Handler carries out requests. ctx ends when the connection's peer goes
// away or the server closes. An *Error keeps its kind on the way back. files
// are what came with the request; they are closed when Control returns, so a
// handler duplicates what it keeps.
type Handler interface {
	Control(ctx context.Context, method string, params json.RawMessage, files []*os.File) (result any, err error)
}

// Server answers on a control socket.
type Server struct {
	l      *net.UnixListener
	h      Handler
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup
	busy   atomic.Int32 // requests that are not answered yet
}

// Serve starts answering on l; Close ends it.
func Serve(l *net.UnixListener, h Handler, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{l: l, h: h, log: log, ctx: ctx, cancel: cancel, slots: make(chan struct{}, maxConns)}
	s.wg.Go(s.routineAccept)
	return s
}

// Close stops accepting, cancels what runs and waits for it.
func (s *Server) Close() error {
	s.cancel()
	err := s.l.Close()
	s.wg.Wait()
	return err
}

func (s *Server) routineAccept() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := s.l.AcceptUnix()
		if err != nil {
			<-s.slots
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors: others are being closed meanwhile.
			s.log.Warn("control socket", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			s.routineConn(c)
		})
	}
}

func (s *Server) routineConn(c *net.UnixConn) {
	defer c.Close()
	if err := checkPeer(c); err != nil {
		s.log.Warn("control socket", "err", err)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()

	// One request is read ahead, so that the end of the stream is seen while
	// a long call (wait) is under way.
	requests := make(chan received)
	s.wg.Go(func() {
		defer close(requests)
		defer cancel()
		receiveAll(ctx, c, requests)
	})
	idle := time.NewTimer(idleTimeout)
	defer idle.Stop()
	for {
		select {
		case <-idle.C:
			return
		case req, ok := <-requests:
			if !ok {
				return
			}
			s.busy.Add(1)
			err := Send(c, s.answer(ctx, req))
			closeFiles(req.files)
			s.busy.Add(-1)
			if err != nil {
				return
			}
			idle.Reset(idleTimeout)
		}
	}
}

// received is a request with what came along.
type received struct {
	Request
	files []*os.File
}

// receiveAll reads requests until there are no more or ctx ends.
func receiveAll(ctx context.Context, c *net.UnixConn, to chan<- received) {
	r := &fileReader{c: c}
	defer func() { closeFiles(r.take()) }()
	for ctx.Err() == nil {
		var req received
		if err := Receive(r, &req.Request); err != nil {
			return
		}
		req.files = r.take()
		select {
		case to <- req:
		case <-ctx.Done():
			closeFiles(req.files)
			return
		}
	}
}

func (s *Server) answer(ctx context.Context, req received) Response {
	result, err := s.h.Control(ctx, req.Method, req.Params, req.files)
	if err != nil {
		return Response{Error: asError(err)}
	}
	if result == nil {
		return Response{}
	}
	data, err := json.Marshal(result)
	if err != nil {
		return Response{Error: asError(err)}
	}
	return Response{Result: data}
}

// Drain stops accepting and waits, at most for d, until the requests under
// way are answered.
func (s *Server) Drain(d time.Duration) {
	_ = s.l.Close()
	for begin := time.Now(); s.busy.Load() > 0 && time.Since(begin) < d; {
		time.Sleep(time.Millisecond)
	}
}
