package sandbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A guest can make devices fail, reset and fail again for ever, and each time
// is worth a line. These bound what that puts into a log.
const (
	logBurst  = 200
	logPerSec = 1
	// After that many lines it is one per minute: the log lies in memory, and a
	// container may live for years.
	logMany       = 10_000
	logPerSecMany = 1.0 / 60
)

// limitLog returns a logger that drops lines above the rate. Lines of --debug
// pass: they were asked for.
func limitLog(log *slog.Logger) *slog.Logger {
	return slog.New(&logLimit{Handler: log.Handler(), bucket: &logBucket{tokens: logBurst, last: time.Now()}})
}

type logLimit struct {
	slog.Handler
	bucket *logBucket
}

type logBucket struct {
	mu      sync.Mutex
	tokens  float64
	last    time.Time
	passed  int
	dropped int
}

// take says whether a line may pass, and how many did not since the last.
func (b *logBucket) take(now time.Time) (ok bool, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	perSec := float64(logPerSec)
	if b.passed >= logMany {
		perSec = logPerSecMany
	}
	b.tokens = min(logBurst, b.tokens+now.Sub(b.last).Seconds()*perSec)
	b.last = now
	if b.tokens < 1 {
		b.dropped++
		return false, 0
	}
	b.tokens--
	b.passed++
	dropped, b.dropped = b.dropped, 0
	return true, dropped
}

// Handle implements slog.Handler.
func (l *logLimit) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return l.Handler.Handle(ctx, r)
	}
	ok, dropped := l.bucket.take(r.Time)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r.AddAttrs(slog.Int("dropped", dropped))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *logLimit) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logLimit{Handler: l.Handler.WithAttrs(attrs), bucket: l.bucket}
}

// WithGroup implements slog.Handler.
func (l *logLimit) WithGroup(name string) slog.Handler {
	return &logLimit{Handler: l.Handler.WithGroup(name), bucket: l.bucket}
}
