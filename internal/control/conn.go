package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Conn is a client's connection to a sandbox process.
type Conn struct {
	mu sync.Mutex // held for one call
	c  *net.UnixConn
}

// Close ends the connection and any call on it.
func (c *Conn) Close() error { return c.c.Close() }

// Call sends one request and waits for its answer. params and result may be
// nil. A failure that the sandbox reports is an *Error. After any other
// failure the connection is of no more use.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	return c.CallFiles(ctx, method, params, result)
}

// CallFiles is Call with files, at most MaxFiles, that the sandbox gets
// duplicates of.
func (c *Conn) CallFiles(ctx context.Context, method string, params, result any, files ...*os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline, _ := ctx.Deadline()
	if err := c.c.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := c.call(method, params, result, files)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("control: %s: %w", method, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded): // a moment before ctx itself says so
		return fmt.Errorf("control: %s: %w", method, context.DeadlineExceeded)
	}
	return err
}

func (c *Conn) call(method string, params, result any, files []*os.File) error {
	req := Request{Method: method}
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		req.Params = data
	}
	data, err := frame(req)
	if err != nil {
		return err
	}
	if err := sendFiles(c.c, data, files); err != nil {
		return err
	}
	var resp Response
	if err := Receive(c.c, &resp); err != nil {
		return err
	}
	if resp.Error != nil {
		return resp.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(resp.Result, result); err != nil {
		return fmt.Errorf("control: answer to %s: %w", method, err)
	}
	return nil
}

// asError turns any error into what travels.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindInternal, Message: err.Error()}
}
