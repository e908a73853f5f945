package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// clock ends a run in time: each case may use its share of what is left of the limit, begins no further round after that, and is
// cut off when the limit is reached. Without a limit all is measured as often as asked for.
type clock struct {
	limit time.Duration // of all cases together; 0: none
	end   time.Time     // of the limit
	share time.Time     // until when the case may begin rounds; zero: always
}

// start is when the first case begins. The context ends with the limit.
func (c *clock) start(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.limit <= 0 {
		return context.WithCancel(ctx)
	}
	c.end = time.Now().Add(c.limit)
	return context.WithDeadline(ctx, c.end)
}

// next gives a case its share; left are the cases to come, with it.
func (c *clock) next(left int) {
	if c.limit > 0 {
		c.share = c.part(c.end, left)
	}
}

// part is the first of n equal parts of the time until end.
func (c *clock) part(end time.Time, n int) time.Time {
	now := time.Now()
	return now.Add(end.Sub(now) / time.Duration(max(n, 1)))
}

// enough says that round i must not begin. The first always may.
func (c *clock) enough(i int) bool {
	return i > 0 && !c.share.IsZero() && time.Now().After(c.share)
}

// rounds counts up to n, or to where the case has had its share.
func (w *World) rounds(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; i < n && !w.clock.enough(i); i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// over is why a case is not whole if err came from the limit; otherwise it is nil.
func (c *clock) over(ctx context.Context) error {
	if c.limit > 0 && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the limit of %v for all cases was reached", c.limit)
	}
	return nil
}
