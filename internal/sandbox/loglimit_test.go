package sandbox

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLimit(t *testing.T) {
	var out bytes.Buffer
	log := limitLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	device := log.With("device", "x") // shares the budget
	for range 10_000 {
		device.Warn("bad chain")
		log.Error("worse")
	}
	log.Debug("asked for")
	lines := strings.Count(out.String(), "\n")
	if lines < logBurst || lines > logBurst+10 {
		t.Errorf("%d lines, want about %d", lines, logBurst)
	}
	if !strings.Contains(out.String(), "asked for") || !strings.Contains(out.String(), "device=x") {
		t.Error("lines of --debug or attributes are missing")
	}
	b := logBucket{last: time.Unix(0, 0)}
	if ok, _ := b.take(time.Unix(0, 1)); ok {
		t.Error("an empty bucket gave")
	}
	if ok, dropped := b.take(time.Unix(5, 0)); !ok || dropped != 1 {
		t.Errorf("after 5 s: %v, %d dropped, want 1", ok, dropped)
	}
}
