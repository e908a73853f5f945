package server

import (
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

// table lists the requests. A new one gets a line here, its type in
// internal/wire and a method that does it.
func (s *Server) table() map[string]handler {
	c := s.cfg.Containers
	return map[string]handler{
		wire.MethodConfigure:       simple(s.cfg.Guest.Configure),
		wire.MethodPrepare:         s.prepare,
		wire.MethodGrow:            simple(s.cfg.Guest.Grow),
		wire.MethodCreateContainer: process(c.Create),
		wire.MethodStartContainer:  simple(c.Start),
		wire.MethodExec:            process(c.Exec),
		wire.MethodSignal:          simple(c.Signal),
		wire.MethodResizeTTY:       simple(c.Resize),
		wire.MethodCloseStdin:      simple(c.CloseStdin),
		wire.MethodFreeze:          simple(c.Freeze),
		wire.MethodStats:           query(c.Stats),
		wire.MethodPids:            query(c.Pids),
		wire.MethodUpdate:          simple(c.Update),
		wire.MethodDeleteContainer: simple(s.delete),
		wire.MethodShutdown:        s.shutdown,
	}
}

// simple is a request without a result.
func simple[P any](do func(*P) error) handler {
	return func(raw []byte) (any, func(), error) {
		p, err := decode[P](raw)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, do(p)
	}
}

// query is a request with a result.
func query[P, R any](do func(*P) (*R, error)) handler {
	return func(raw []byte) (any, func(), error) {
		p, err := decode[P](raw)
		if err != nil {
			return nil, nil, err
		}
		r, err := do(p)
		if err != nil {
			return nil, nil, err
		}
		return r, nil, nil
	}
}

// process is a request that makes a process, whose exit may be reported once
// the reply is out.
func process[P any](do func(*P) (*wire.Created, func(), error)) handler {
	return func(raw []byte) (any, func(), error) {
		p, err := decode[P](raw)
		if err != nil {
			return nil, nil, err
		}
		r, after, err := do(p)
		if err != nil {
			return nil, nil, err
		}
		return r, after, nil
	}
}

func decode[P any](raw []byte) (*P, error) {
	p := new(P)
	if len(raw) == 0 {
		return p, nil
	}
	if err := wire.Unmarshal(raw, p); err != nil {
		return nil, &wire.Error{Kind: wire.KindInvalid, Message: err.Error()}
	}
	return p, nil
}

// endGrace is how long the host has to end the VM after the reply to shutdown.
// A written reply is on its way, not there: a reboot would overtake it.
const endGrace = 2 * time.Second

// shutdown writes back what the guest has in memory of the host's files. The
// host then ends the VM; if it does not, the guest ends itself.
func (s *Server) shutdown([]byte) (any, func(), error) {
	s.cfg.Guest.Sync()
	return nil, func() {
		time.AfterFunc(endGrace, func() {
			if err := s.cfg.Guest.End(); err != nil {
				s.debug("shutdown:", err.Error())
			}
		})
	}, nil
}

// delete takes a container away, and with its files what the guest has of them
// in memory: nobody else in the guest may be there to write them back.
func (s *Server) delete(r *wire.DeleteContainer) error {
	if err := s.cfg.Containers.Delete(r); err != nil {
		return err
	}
	s.cfg.Guest.Sync()
	return nil
}

// prepare makes the guest one that can be saved. What runs or waits in it would
// be in every clone.
func (s *Server) prepare([]byte) (any, func(), error) {
	if n := s.cfg.Containers.Len(); n > 0 {
		return nil, nil, &wire.Error{Kind: wire.KindState, Message: "a guest with containers is no template"}
	}
	p, err := s.cfg.Guest.Prepare()
	if err != nil {
		return nil, nil, err
	}
	return p, nil, nil
}
