//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Many clones of one template. The defaults fit the set that CI runs; issue 6 promises
//
//	LUCID_E2E_SOAK=1000,4 LUCID_E2E_WRITERS=100 LUCID_E2E_IDLE=50 \
//	  go run ./test/e2e/run -where lab -run '^TestTemplate(Soak|Writers|IdleMemory)'
const (
	soak    = "12,4" // containers, at a time
	writers = 3      // clones that write all of their memory
	idle    = 10     // idle clones at a time
)

// countFromEnv is how many to make.
func countFromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no count", name, text)
	}
	return n
}

// TestTemplateSoak runs containers from one template, some at a time: all give the right output and exit status, and
// nothing is left of them.
func TestTemplateSoak(t *testing.T) {
	count, atOnce := batches(t, "LUCID_E2E_SOAK", soak)
	s := newStore(t)
	s.do("template", "create", "box")
	var bundles []*bundle
	for range atOnce {
		bundles = append(bundles, newBundle(t))
	}
	s.soakOne(bundles[0], 0) // what the first leaves in caches
	before, memory, hash := leftovers(t), available(t), sum(t, filepath.Join(s.dir, "box", "memory"))
	begin := time.Now()
	var wg sync.WaitGroup
	var done atomic.Int64
	for i, b := range bundles {
		wg.Go(func() {
			for n := i; n < count && !t.Failed(); n += atOnce {
				s.soakOne(b, n)
				if d := done.Add(1); d%100 == 0 {
					t.Logf("%d containers in %v", d, time.Since(begin).Round(time.Second))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d containers, %d at a time, in %v", count, atOnce, time.Since(begin).Round(100*time.Millisecond))
	wantSettled(t, before, memory)
	if sum(t, filepath.Join(s.dir, "box", "memory")) != hash {
		t.Error("the memory file has been written")
	}
}

// soakOne runs one container whose output and status tell its number.
func (s *store) soakOne(b *bundle, n int) {
	status := n % 100
	b.spec.Process.Args = []string{"sh", "-c", fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", n, n, status)}
	b.write()
	id := fmt.Sprintf("soak-%d", n)
	r := lucid(s.t, nil, s.args("--template", "box", "run", "--bundle", b.dir, id)...)
	out, errs := fmt.Sprintf("out %d\n", n), fmt.Sprintf("err %d\n", n)
	if r.code != status || r.stdout != out || r.stderr != errs {
		s.t.Errorf("container %d: status %d, stdout %q, stderr %q", n, r.code, tail(r.stdout), tail(r.stderr))
	}
}

// TestTemplateWriters: clones that write all the memory they can get share nothing of it with their template.
func TestTemplateWriters(t *testing.T) {
	s := newStore(t)
	s.do("template", "create", "box")
	file := filepath.Join(s.dir, "box", "memory")
	before := sum(t, file)
	// Of 128 MiB kernel, agent and page cache have the rest.
	const mib = 84
	const script = `tr '\0' x </dev/zero >/dev/shm/full 2>/dev/null; stat -c %s /dev/shm/full`
	for range countFromEnv(t, "LUCID_E2E_WRITERS", writers) {
		b := newBundle(t, "sh", "-c", script)
		for i, m := range b.spec.Mounts {
			if m.Destination == "/dev/shm" {
				b.spec.Mounts[i].Options = []string{fmt.Sprintf("size=%dm", mib)}
			}
		}
		b.write()
		r := lucid(t, nil, s.args("--template", "box", "run", "--bundle", b.dir, b.id)...)
		r.wantCode(t, 0)
		r.wantStdout(t, fmt.Sprintln(mib<<20))
	}
	if sum(t, file) != before {
		t.Error("the memory file has been written")
	}
	if got := s.do("template", "verify", "box"); got != "box: ok\n" {
		t.Errorf("verify: %q", got)
	}
}
