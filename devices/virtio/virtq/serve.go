package virtq

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Serve runs handle for each chain until the queue is stopped, then returns
// nil. It is the body of a device's queue goroutine.
//
// handle owns the chain and pushes it, now or later and from any goroutine. What
// it pushes before it returns is notified by Serve, once per drain (and once per
// queue size, so that a driver which keeps adding is not starved); who pushes
// later calls Notify.
//
// Serve returns the error of a malformed ring, the first error of handle that
// is not ErrStopped, or ErrPanic with the stack: a panic in device code must
// cost the guest its device, not the host its process.
func Serve(q *Queue, handle func(*Chain) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, v, debug.Stack())
		}
	}()
	for {
		q.DisableKicks()
		if err := q.drain(handle); err != nil {
			return ignoreStopped(err)
		}
		if q.EnableKicks() {
			continue
		}
		if err := q.Wait(); err != nil {
			return ignoreStopped(err)
		}
	}
}

func (q *Queue) drain(handle func(*Chain) error) error {
	defer q.Notify()
	for n := uint16(1); ; n++ {
		c, err := q.Pop()
		if err != nil {
			return err
		}
		if c == nil {
			return nil
		}
		if err := handle(c); err != nil {
			return err
		}
		if n%q.ring.size == 0 {
			q.Notify()
		}
	}
}

func ignoreStopped(err error) error {
	if errors.Is(err, ErrStopped) {
		return nil
	}
	return err
}
