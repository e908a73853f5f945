package sandbox

import "runtime"

// logMemory tells --debug what the Go runtime holds.
func (s *sandbox) logMemory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.log.Debug("memory", "heap", m.HeapInuse, "idle", m.HeapIdle-m.HeapReleased, "stacks", m.StackInuse,
		"runtime", m.MSpanSys+m.MCacheSys+m.GCSys+m.OtherSys, "live", m.HeapAlloc, "goroutines", runtime.NumGoroutine())
}
