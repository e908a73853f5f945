package ninep

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

// fake is a Session that runs a function and counts.
type fake struct {
	handle func(req, reply [][]byte) int
	quick  func(req [][]byte) bool // nil: none is

	running, most, closed atomic.Int32
}

func (f *fake) Accept(req [][]byte) Request { return &fakeRequest{f: f, req: req} }

type fakeRequest struct {
	f    *fake
	req  [][]byte
	done bool
}

func (r *fakeRequest) Quick() bool { return r.f.quick != nil && r.f.quick(r.req) }

func (r *fakeRequest) Serve(reply [][]byte) int {
	f := r.f
	n := f.running.Add(1)
	for m := f.most.Load(); n > m && !f.most.CompareAndSwap(m, n); m = f.most.Load() {
	}
	defer f.running.Add(-1)
	return f.handle(r.req, reply)
}

func (r *fakeRequest) Done() {
	if r.done {
		panic("Done twice")
	}
	r.done = true
}

func (f *fake) Close() {
	if f.running.Load() != 0 {
		panic("Close while Serve runs")
	}
	f.closed.Add(1)
}

// echo answers with the request.
func echo(req, reply [][]byte) int {
	in := bytes.Join(req, nil)
	n := 0
	for _, p := range reply {
		n += copy(p, in[n:])
	}
	return n
}

type rig struct {
	dev      *Device
	drv      *virtqtest.Driver
	tr       *mmio.Transport
	sessions []*fake
	quick    func(req [][]byte) bool // of the sessions to come
}

func start(t testing.TB, workers int, handle func(req, reply [][]byte) int) *rig {
	t.Helper()
	return startQuick(t, workers, handle, nil)
}

func startQuick(t testing.TB, workers int, handle func(req, reply [][]byte) int, quick func(req [][]byte) bool) *rig {
	t.Helper()
	r := &rig{quick: quick}
	dev, err := New(Config{Tag: "lucid", Workers: workers, NewSession: func() Session {
		f := &fake{handle: handle, quick: r.quick}
		r.sessions = append(r.sessions, f)
		return f
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.dev = dev
	g := virtqtest.NewGuest(t)
	r.tr, err = mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.tr.Close(); err != nil {
			t.Error(err)
		}
	})
	r.drv = virtqtest.NewDriver(t, g, r.tr, r.tr.IRQ())
	r.drv.Start(FeatureMountTag)
	return r
}

// awaitServe returns when a request of the first session is being served.
func (r *rig) awaitServe() {
	for r.sessions[0].running.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestConfigSpace(t *testing.T) {
	r := start(t, 0, echo)
	if id := r.drv.Get32(virtqtest.RegDeviceID); id != 9 {
		t.Fatalf("device id %d", id)
	}
	if r.drv.Offered()&FeatureMountTag == 0 {
		t.Fatal("no mount tag offered")
	}
	if got := r.drv.Config(0, 8); string(got) != "\x05\x00lucid\x00" {
		t.Fatalf("config %q", got)
	}
	r.drv.Set32(virtqtest.RegQueueSel, 0)
	if n := r.drv.Get32(virtqtest.RegQueueNumMax); n != 128 {
		t.Fatalf("queue of %d", n)
	}
}

func TestNewRefuses(t *testing.T) {
	ns := func() Session { return &fake{} }
	for name, cfg := range map[string]Config{
		"no tag":       {NewSession: ns},
		"long tag":     {Tag: strings.Repeat("x", 129), NewSession: ns},
		"no session":   {Tag: "x"},
		"many workers": {Tag: "x", NewSession: ns, Workers: 129},
		"few workers":  {Tag: "x", NewSession: ns, Workers: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	r := start(t, 0, echo)
	q := r.drv.Queue(0)
	for i := range 300 {
		want := bytes.Repeat([]byte{byte(i)}, 7+i*3)
		q.Add(q.Out(want[:7]), q.Out(want[7:]), q.In(11), q.In(1000))
		q.Kick()
		if got := q.Data(q.WaitUsed()); !bytes.Equal(got, want) {
			t.Fatalf("round %d: got %d bytes, want %d", i, len(got), len(want))
		}
	}
	if n := r.sessions[0].most.Load(); n != 1 {
		t.Fatalf("%d at once although one request was in flight", n)
	}
}

// TestInline checks that requests one at a time stay on one goroutine.
func TestInline(t *testing.T) {
	before := runtime.NumGoroutine()
	r := start(t, 8, echo)
	q := r.drv.Queue(0)
	out, in := q.Out([]byte("request")), q.In(16)
	for range 200 {
		q.Add(out, in)
		q.Kick()
		q.WaitUsed()
	}
	// The driver's interrupt goroutine, the leader, and one that a scheduling
	// hiccup of this machine may have promoted.
	if n := runtime.NumGoroutine() - before; n > 4 {
		t.Fatalf("%d goroutines for one request at a time", n)
	}
}

func TestParallel(t *testing.T) {
	r := start(t, 4, func(req, reply [][]byte) int {
		time.Sleep(2 * time.Millisecond)
		return echo(req, reply)
	})
	q := r.drv.Queue(0)
	out := q.Out([]byte("request"))
	for range 40 {
		q.Add(out, q.In(16))
	}
	q.Kick()
	for range 40 {
		if u := q.WaitUsed(); u.Written != 7 {
			t.Fatalf("used %+v", u)
		}
	}
	if n := r.sessions[0].most.Load(); n != 4 {
		t.Fatalf("%d requests at once, want 4", n)
	}
}

// TestSlowRequest: a stuck request, also one that was alone when it came, must
// not keep others waiting.
func TestSlowRequest(t *testing.T) {
	release := make(chan struct{})
	r := start(t, 3, func(req, reply [][]byte) int {
		if req[0][0] == 's' {
			<-release
		}
		return echo(req, reply)
	})
	q := r.drv.Queue(0)
	for i := range 2 {
		q.Add(q.Out([]byte("slow")), q.In(16))
		q.Kick()
		for range 20 {
			q.Add(q.Out([]byte("quick")), q.In(16))
			q.Kick()
			if u := q.WaitUsed(); u.Written != 5 {
				t.Fatalf("with %d stuck: used %+v", i+1, u)
			}
		}
	}
	close(release)
	for range 2 {
		if u := q.WaitUsed(); u.Written != 4 {
			t.Fatalf("used %+v", u)
		}
	}
	if got := q.Request([]byte("again"), 16); string(got) != "again" {
		t.Fatalf("got %q", got)
	}
}

// TestAllStuck: with all workers stuck the guest waits, and goes on later.
func TestAllStuck(t *testing.T) {
	release := make(chan struct{})
	r := start(t, 2, func(req, reply [][]byte) int {
		<-release
		return echo(req, reply)
	})
	q := r.drv.Queue(0)
	for range 10 {
		q.Add(q.Out([]byte("slow")), q.In(16))
		q.Kick()
	}
	q.NoUsed(50 * time.Millisecond)
	if n := r.sessions[0].most.Load(); n != 2 {
		t.Fatalf("%d at once, want 2", n)
	}
	close(release)
	for range 10 {
		q.WaitUsed()
	}
}

func TestDropAndOddChains(t *testing.T) {
	r := start(t, 0, func(req, reply [][]byte) int { return 0 })
	q := r.drv.Queue(0)
	for _, bufs := range [][]virtqtest.Buf{
		{q.Out([]byte("no room for a reply"))},
		{q.In(100)},
		{q.Out([]byte("dropped")), q.In(100)},
		{{Addr: 0x1000, Len: 0}},
	} {
		q.Add(bufs...)
		q.Kick()
		if u := q.WaitUsed(); u.Written != 0 {
			t.Fatalf("used %+v", u)
		}
	}
}

func TestBadSession(t *testing.T) {
	for name, handle := range map[string]func(req, reply [][]byte) int{
		"writes too much": func(req, reply [][]byte) int { return 1000 },
		"negative":        func(req, reply [][]byte) int { return -1 },
		"panics":          func(req, reply [][]byte) int { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, 0, handle)
			q := r.drv.Queue(0)
			q.Add(q.Out([]byte("request")), q.In(16))
			q.Kick()
			r.drv.WaitNeedsReset()
			r.drv.Reset()
			if n := r.sessions[0].closed.Load(); n != 1 {
				t.Fatalf("session closed %d times", n)
			}
		})
	}
}

func TestResetMakesNewSession(t *testing.T) {
	r := start(t, 0, echo)
	for i := range 5 {
		if got := r.drv.Queue(0).Request([]byte("hello"), 16); string(got) != "hello" {
			t.Fatalf("got %q", got)
		}
		if len(r.sessions) != i+1 {
			t.Fatalf("%d sessions after %d activations", len(r.sessions), i+1)
		}
		r.drv.Start(FeatureMountTag)
		if n := r.sessions[i].closed.Load(); n != 1 {
			t.Fatalf("session %d closed %d times", i, n)
		}
	}
}

// TestResetInFlight resets while requests run: they end before the device says
// it has stopped, and nothing is written to the old ring after that.
func TestResetInFlight(t *testing.T) {
	var inHandle atomic.Int32
	r := start(t, 4, func(req, reply [][]byte) int {
		inHandle.Add(1)
		defer inHandle.Add(-1)
		time.Sleep(5 * time.Millisecond)
		return echo(req, reply)
	})
	for range 5 {
		q := r.drv.Queue(0)
		for range 20 {
			q.Add(q.Out([]byte("request")), q.In(16))
		}
		q.Kick()
		time.Sleep(7 * time.Millisecond)
		r.drv.Reset()
		if n := inHandle.Load(); n != 0 {
			t.Fatalf("%d requests run after reset", n)
		}
		idx := q.UsedIdx()
		time.Sleep(20 * time.Millisecond)
		if got := q.UsedIdx(); got != idx {
			t.Fatalf("used index went from %d to %d after reset", idx, got)
		}
		r.drv.Start(FeatureMountTag)
	}
}

// TestResetStuck: a request that cannot be stopped must not hold the vCPU for
// ever, and the device must not claim to be reset while it may write.
func TestResetStuck(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	defer free()
	r := start(t, 2, func(req, reply [][]byte) int {
		<-release
		return echo(req, reply)
	})
	q := r.drv.Queue(0)
	q.Add(q.Out([]byte("stuck")), q.In(16))
	q.Kick()
	r.awaitServe()
	begin := time.Now()
	r.drv.Set32(virtqtest.RegStatus, 0)
	if d := time.Since(begin); d > mmio.ResetWait+time.Second {
		t.Fatalf("the vCPU waited %v", d)
	}
	if s := r.drv.Status(); s&virtqtest.StatusNeedsReset == 0 {
		t.Fatalf("status %#x while a request runs", s)
	}
	begin = time.Now()
	r.drv.Set32(virtqtest.RegStatus, 0)
	r.drv.Set32(virtqtest.RegStatus, virtqtest.StatusAcknowledge)
	if d := time.Since(begin); d > time.Second {
		t.Fatalf("later writes waited %v", d)
	}
	if err := r.tr.Reset(); !errors.Is(err, mmio.ErrBusy) {
		t.Fatalf("Reset = %v", err)
	}
	free()
	for r.drv.Status() != 0 {
		time.Sleep(time.Millisecond)
	}
	if q.UsedIdx() != 0 {
		t.Fatal("the stuck request was pushed after reset")
	}
	r.drv.Start(FeatureMountTag)
	if got := r.drv.Queue(0).Request([]byte("hello"), 16); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
}

func TestMalformed(t *testing.T) {
	r := start(t, 0, echo)
	q := r.drv.Queue(0)
	q.SetAvailIdx(500)
	q.ForceKick()
	r.drv.WaitNeedsReset()
	r.drv.Start(FeatureMountTag)
	if got := r.drv.Queue(0).Request([]byte("hello"), 16); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
}

// TestGoroutinesFlat activates and resets often.
func TestGoroutinesFlat(t *testing.T) {
	r := start(t, 8, echo)
	before := runtime.NumGoroutine()
	for range 50 {
		q := r.drv.Queue(0)
		out := q.Out([]byte("request"))
		for range 30 {
			q.Add(out, q.In(16))
		}
		q.Kick()
		q.WaitUsed()
		r.drv.Start(FeatureMountTag)
	}
	time.Sleep(10 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > before+8 {
		t.Fatalf("%d goroutines, %d at the start", n, before)
	}
}
