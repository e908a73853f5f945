package server

import (
	"errors"
	"io"
	"sync"

	"github.com/lucid-containers/lucid/agent/container"
	"github.com/lucid-containers/lucid/internal/wire"
)

// maxInFlight bounds the requests that run at once; more wait in the channel.
const maxInFlight = 64

// Guest is what a request can act on besides containers.
type Guest interface {
	// Configure applies name, clock, entropy and the file server's options.
	Configure(*wire.Configure) error
	// Prepare gets ready to be saved as a template. There is no container.
	Prepare() (*wire.Prepared, error)
	// Grow takes memory and CPUs into use that the saved guest did not have.
	Grow(*wire.Grow) error
	// Sync writes dirty pages of files back to the host.
	Sync()
	// End ends the VM. It does not return unless it fails.
	End() error
}

// Config is what a Server works with.
type Config struct {
	Guest      Guest
	Containers *container.Set
	// Debugf says what happens; nil is silent.
	Debugf func(words ...string)
}

// Server answers requests.
type Server struct {
	cfg      Config
	handlers map[string]handler

	mu   sync.Mutex
	conn *wire.Conn    // protected by mu; nil between two connections
	lost []*wire.Frame // protected by mu; events while conn was nil
}

// maxLost bounds the events that are kept for the next connection.
const maxLost = 1024

// handler does one request. after, if there is one, runs when the reply has
// been sent.
type handler func(params []byte) (result any, after func(), err error)

// New returns a Server. Exited and OOM must be given to container.Config.OnExit and OnOOM.
func New() *Server { return new(Server) }

// Serve answers requests on rw until it ends, and returns why.
func (s *Server) Serve(rw io.ReadWriteCloser, cfg Config) error {
	s.cfg = cfg
	if s.handlers == nil {
		s.handlers = s.table()
	}
	conn := wire.NewConn(rw)
	s.attach(conn)
	defer s.detach(conn)
	slots := make(chan struct{}, maxInFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		f, err := conn.ReadFrame()
		if err != nil {
			return err
		}
		if f.ID == 0 || f.Method == "" {
			return errors.New("frame is no request")
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.answer(conn, f)
		})
	}
}

// attach makes conn the one that events go to, and sends those that waited.
func (s *Server) attach(conn *wire.Conn) {
	s.mu.Lock()
	s.conn = conn
	lost := s.lost
	s.lost = nil
	s.mu.Unlock()
	for _, f := range lost {
		s.send(f)
	}
}

func (s *Server) detach(conn *wire.Conn) {
	s.mu.Lock()
	if s.conn == conn {
		s.conn = nil
	}
	s.mu.Unlock()
	_ = conn.Close()
}

// answer does one request.
func (s *Server) answer(conn *wire.Conn, f *wire.Frame) {
	s.debug("request", f.Method)
	reply := &wire.Frame{ID: f.ID}
	result, after, err := s.do(f)
	if err == nil && result != nil {
		reply.Result, err = wire.Marshal(result)
	}
	if err != nil {
		reply.Error = wireError(err)
		s.debug(f.Method, "failed:", err.Error())
	}
	// A reply that cannot be sent is the end of the connection, which the
	// reader sees.
	_ = conn.WriteFrame(reply)
	if after != nil {
		after()
	}
}

func (s *Server) do(f *wire.Frame) (any, func(), error) {
	h, ok := s.handlers[f.Method]
	if !ok {
		return nil, nil, &wire.Error{Kind: wire.KindUnknownMethod, Message: "unknown method " + f.Method}
	}
	return h(f.Params)
}

// Exited reports the end of a process.
func (s *Server) Exited(e *wire.ContainerExited) { s.event(wire.EventContainerExited, e) }

// OOM reports that memory has run out.
func (s *Server) OOM(e *wire.ContainerOOM) { s.event(wire.EventContainerOOM, e) }

func (s *Server) event(method string, params any) {
	data, err := wire.Marshal(params)
	if err != nil {
		s.debug(method+":", err.Error())
		return
	}
	s.send(&wire.Frame{Method: method, Params: data})
}

// send sends an event, or keeps it for the next connection.
func (s *Server) send(f *wire.Frame) {
	s.mu.Lock()
	conn := s.conn
	if conn == nil && len(s.lost) < maxLost {
		s.lost = append(s.lost, f)
	}
	s.mu.Unlock()
	if conn == nil {
		return
	}
	if err := conn.WriteFrame(f); err != nil {
		s.debug(f.Method+":", err.Error())
	}
}

func (s *Server) debug(words ...string) {
	if s.cfg.Debugf != nil {
		s.cfg.Debugf(words...)
	}
}

// wireError puts an error into the words of the protocol.
func wireError(err error) *wire.Error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	if container.IsInvalid(err) {
		return &wire.Error{Kind: wire.KindInvalid, Message: err.Error()}
	}
	return &wire.Error{Kind: wire.KindFailed, Message: err.Error()}
}
