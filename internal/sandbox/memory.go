package sandbox

import (
	"math"
	"runtime"
	"runtime/debug"

	"github.com/lucid-containers/lucid/internal/ownmem"
)

// gcPercent is for the time after the start, for which the environment says
// otherwise (runtime.SandboxEnv): the process keeps little garbage.
const gcPercent = 25

// trim ends what is meant for the start only and gives back what it needed.
func trim() {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(math.MaxInt64)
	ownmem.Trim()
}

// logMemory tells --debug what the Go runtime holds.
func (s *sandbox) logMemory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.log.Debug("memory", "heap", m.HeapInuse, "idle", m.HeapIdle-m.HeapReleased, "stacks", m.StackInuse,
		"runtime", m.MSpanSys+m.MCacheSys+m.GCSys+m.OtherSys, "live", m.HeapAlloc, "goroutines", runtime.NumGoroutine())
}
