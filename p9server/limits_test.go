package p9server_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
	"golang.org/x/sys/unix"
)

// TestFidLimit: a million fids are refused beyond the limit, and their fds
// beyond theirs.
func TestFidLimit(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	s := newServer(t, p9server.Limits{Fids: 1000, FDs: 500}, p9server.Export{Name: "x", Root: dir})
	r := newRaw(t, s)
	made := 1
	for fid := uint32(1); fid < 1_000_000; fid++ {
		err := r.Walk(0, fid) // clones share the fd
		if err == nil {
			made++
			continue
		}
		if err != syscall.ENFILE {
			t.Fatalf("fid %d: %v", fid, err)
		}
	}
	if made != 1000 || s.FDs() != 1 {
		t.Errorf("%d fids, %d fds; want 1000 and the export's one", made, s.FDs())
	}
	_, err := r.Call(&p9.Tversion{Msize: 65536, Version: []byte(p9.Version)})
	check(t, err)
	check(t, r.Attach(0, "x", 0))
	for fid := uint32(1); ; fid++ {
		err := r.Walk(0, fid, "d")
		if err == syscall.EMFILE {
			break
		}
		check(t, err)
		if fid > 500 {
			t.Fatal("more fds than the limit")
		}
	}
	if s.FDs() != 500 {
		t.Errorf("%d fds, want 500", s.FDs())
	}
	want(t, "open", r.Open(1, 0), syscall.EMFILE)
	want(t, "create", r.Create(0, "f", p9.OpenRDWR, 0o644, 0), syscall.EMFILE)
	check(t, r.Clunk(2))
	check(t, r.Open(1, 0))
}

// steady runs do n times and fails if it leaves fds, goroutines or more than
// a little memory.
func steady(t *testing.T, s *p9server.Server, n int, do func(i int)) {
	t.Helper()
	if testing.Short() {
		n /= 10
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for i := range 100 {
		do(i)
	}
	fds, goroutines, before := s.FDs(), runtime.NumGoroutine(), heap()
	for i := range n {
		do(i)
	}
	if got := s.FDs(); got != fds {
		t.Errorf("%d fds, %d before", got, fds)
	}
	// Fewer is a goroutine of before, such as a cleanup of the runtime, that has ended: no leak.
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines, %d before", got, goroutines)
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("heap grew by %d bytes in %d rounds", grown, n)
	}
}

// TestLeaks does 100,000 of what once leaked in QEMU (2016-8577, -9105, -9106,
// -9102, 2017-7377, 2017-8086) or in other servers.
func TestLeaks(t *testing.T) {
	r, dir, s := serve(t)
	check(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 100), 0o644))
	check(t, r.Walk(0, 1, "f"))
	check(t, r.Walk(0, 2, "f"))
	check(t, r.Open(2, p9.OpenRDWR))
	const rounds = 100_000
	for name, do := range map[string]func(i int){
		"read":         func(int) { _, _ = r.Read(2, 0, 100) },
		"write":        func(int) { _, _ = r.Write(2, 0, []byte("x")) },
		"link":         func(int) { _, _ = r.Call(&p9.Tlink{DFID: 0, FID: 1, Name: []byte("f")}) },
		"unlinkNone":   func(i int) { _, _ = r.Call(&p9.Tunlinkat{DirFID: 0, Name: fmt.Appendf(nil, "n%d", i)}) },
		"walkNone":     func(i int) { _ = r.Walk(0, 9, "f", fmt.Sprint(i)) },
		"lcreateFails": func(int) { _ = r.Create(1, "f", p9.OpenRDWR, 0o644, 0) },
		"attach": func(int) {
			_ = r.Attach(9, "x", 0)
			_ = r.Clunk(9)
		},
		"xattrcreate": func(int) {
			// Each turns the fid into another attribute, none is written.
			_ = r.Walk(1, 9)
			_, _ = r.Call(&p9.Txattrcreate{FID: 9, Name: []byte("user.a"), Size: 100})
			_, _ = r.Call(&p9.Txattrcreate{FID: 9, Name: []byte("user.b"), Size: 100})
			_ = r.Clunk(9)
		},
		"xattrwalk": func(int) {
			_, _ = r.Call(&p9.Txattrwalk{FID: 1, NewFID: 9})
			_ = r.Clunk(9)
			_, _ = r.Call(&p9.Txattrwalk{FID: 1, NewFID: 9, Name: []byte("user.none")})
		},
		"lock": func(i int) {
			_, _ = r.Call(&p9.Tlock{FID: 2, Kind: uint8(i % 3), Start: uint64(i % 7), Length: 5, ProcID: 1})
			_, _ = r.Call(&p9.Tlock{FID: 2, Kind: p9.LockTypeUNLCK, ProcID: 2})
		},
	} {
		t.Run(name, func(t *testing.T) { steady(t, s, rounds, do) })
	}
	t.Run("createOpenUnlink", func(t *testing.T) {
		steady(t, s, rounds/10, func(int) {
			check(t, r.Walk(0, 9))
			check(t, r.Create(9, "tmp", p9.OpenRDWR, 0o644, 0))
			_, err := r.Call(&p9.Tunlinkat{DirFID: 0, Name: []byte("tmp")})
			check(t, err)
			check(t, r.Clunk(9))
		})
	})
	t.Run("session", func(t *testing.T) {
		steady(t, s, rounds/10, func(int) {
			sess := s.NewSession()
			r, err := p9test.NewRaw(sess)
			check(t, err)
			check(t, r.Attach(0, "x", 0))
			check(t, r.Open(0, 0))
			sess.Close()
			want(t, "attach to a closed session", r.Attach(1, "x", 0), syscall.EBADF)
		})
	})
}

func TestOffsets(t *testing.T) {
	r, dir, _ := serve(t)
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o644))
	check(t, r.Walk(0, 1, "f"))
	check(t, r.Open(1, p9.OpenRDWR))
	check(t, r.Walk(0, 2))
	check(t, r.Open(2, 0))
	for _, off := range []uint64{1 << 63, 1<<63 + 1, math.MaxUint64, math.MaxUint64 - 4} {
		_, err := r.Read(1, off, 10)
		want(t, "read", err, syscall.EINVAL)
		_, err = r.Write(1, off, []byte("x"))
		want(t, "write", err, syscall.EINVAL)
		_, err = r.Call(&p9.Treaddir{FID: 2, Offset: off, Count: 1000})
		want(t, "readdir", err, syscall.EINVAL)
		_, err = r.Call(&p9.Tsetattr{FID: 1, Valid: p9.AttrSize, Size: off})
		want(t, "setattr size", err, syscall.EINVAL)
		_, err = r.Call(&p9.Tlock{FID: 1, Kind: p9.LockTypeWRLCK, Start: off})
		want(t, "lock start", err, syscall.EINVAL)
		_, err = r.Call(&p9.Tlock{FID: 1, Kind: p9.LockTypeWRLCK, Length: off})
		want(t, "lock length", err, syscall.EINVAL)
	}
	_, err := r.Call(&p9.Tlock{FID: 1, Kind: p9.LockTypeWRLCK, Start: math.MaxInt64, Length: 2})
	want(t, "lock past the last byte", err, syscall.EOVERFLOW)
	if _, err = r.Read(1, math.MaxInt64, 10); err == syscall.EIO {
		t.Errorf("read at the last offset: %v", err)
	}
	_, err = r.Write(1, math.MaxInt64, []byte("x"))
	want(t, "write at the last offset", err, syscall.EFBIG, syscall.EINVAL)
	// A count beyond everything reads what there is.
	body, err := r.Call(&p9.Tread{FID: 1, Count: math.MaxUint32})
	if err != nil || string(body[4:]) != "data" {
		t.Errorf("read of 2^32-1 bytes: %q, %v", body, err)
	}
	// Twrite's count must be the data that is there.
	for _, count := range []uint32{0, 3, 5, math.MaxUint32} {
		_, err := r.CallData(&p9.Twrite{FID: 1, Count: count}, []byte("four"))
		want(t, "write with a wrong count", err, syscall.EINVAL)
	}
	n, err := r.Write(1, 4, nil)
	if n != 0 || err != nil {
		t.Errorf("empty write: %d, %v", n, err)
	}
}

// TestLocks: 1000 fids want one lock; nobody waits in the server.
func TestLocks(t *testing.T) {
	r, dir, _ := serve(t)
	p := filepath.Join(dir, "f")
	check(t, os.WriteFile(p, nil, 0o644))
	lock := func(fid uint32, kind uint8, start, n uint64, proc uint32) uint8 {
		t.Helper()
		body, err := r.Call(&p9.Tlock{
			FID: fid, Kind: kind, Flags: p9.LockFlagsBlock,
			Start: start, Length: n, ProcID: proc, ClientID: []byte("guest"),
		})
		check(t, err)
		return body[0]
	}
	for fid := uint32(1); fid <= 1000; fid++ {
		check(t, r.Walk(0, fid, "f"))
		check(t, r.Open(fid, p9.OpenRDWR))
	}
	threads := runtime.NumGoroutine()
	won := 0
	for fid := uint32(1); fid <= 1000; fid++ {
		if lock(fid, p9.LockTypeWRLCK, 0, 0, fid) == p9.LockSuccess {
			won++
		}
	}
	if won != 1 || runtime.NumGoroutine() != threads {
		t.Errorf("%d of 1000 got the lock, %d goroutines more", won, runtime.NumGoroutine()-threads)
	}
	check(t, r.Clunk(1))
	if lock(2, p9.LockTypeWRLCK, 0, 0, 2) != p9.LockSuccess {
		t.Error("the clunk of its fid did not release the lock")
	}
	// The host sees it.
	h, err := os.OpenFile(p, os.O_RDWR, 0)
	check(t, err)
	defer h.Close()
	try := func(kind int16) error {
		return unix.FcntlFlock(h.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: 0, Len: 1})
	}
	want(t, "lock by the host", try(unix.F_WRLCK), syscall.EAGAIN)
	// One process, two fids: no conflict with itself.
	if got := lock(3, p9.LockTypeRDLCK, 10, 10, 2); got != p9.LockSuccess {
		t.Errorf("the same owner through another fid: %d", got)
	}
	body, err := r.Call(&p9.Tgetlock{FID: 4, Kind: p9.LockTypeUNLCK, Start: 12, Length: 1, ProcID: 4, ClientID: []byte("guest")})
	check(t, err)
	if kind, proc := body[0], binary.LittleEndian.Uint32(body[17:]); kind != p9.LockTypeRDLCK || proc != 2 {
		t.Errorf("getlock: type %d, process %d", kind, proc)
	}
	// Unlocking through one fid unlocks the owner's range on all.
	if lock(3, p9.LockTypeUNLCK, 0, 0, 2) != p9.LockSuccess || try(unix.F_WRLCK) != nil {
		t.Error("unlock left something")
	}
	if got := lock(5, p9.LockTypeWRLCK, 0, 1, 5); got != p9.LockBlocked {
		t.Errorf("lock of what the host holds: %d", got)
	}
	body, err = r.Call(&p9.Tgetlock{FID: 5, Kind: p9.LockTypeWRLCK, ProcID: 5, ClientID: []byte("guest")})
	check(t, err)
	if body[0] != p9.LockTypeWRLCK {
		t.Errorf("getlock of what the host holds: %d", body[0])
	}
	check(t, try(unix.F_UNLCK))
	_, err = r.Call(&p9.Tlock{FID: 5, Kind: 9})
	want(t, "unknown type of lock", err, syscall.EINVAL)
	// Records are bounded.
	small := newServer(t, p9server.Limits{Locks: 100}, p9server.Export{Name: "x", Root: dir})
	r = newRaw(t, small)
	check(t, r.Walk(0, 1, "f"))
	check(t, r.Open(1, p9.OpenRDWR))
	for i := uint64(0); ; i++ {
		_, err := r.Call(&p9.Tlock{FID: 1, Kind: p9.LockTypeRDLCK, Start: 2 * i, Length: 1, ProcID: 1})
		if err != nil {
			want(t, "locks beyond the limit", err, syscall.ENOLCK)
			break
		}
		if i > 100 {
			t.Fatal("more lock records than the limit")
		}
	}
}
