package p9server_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

func want(t testing.TB, what string, err error, errnos ...syscall.Errno) {
	t.Helper()
	for _, e := range errnos {
		if errors.Is(err, e) {
			return
		}
	}
	t.Errorf("%s: %v, want %v", what, err, errnos)
}

// TestFrameSizes: the size field must say what is there, and no more than
// msize.
func TestFrameSizes(t *testing.T) {
	r, _, _ := serve(t)
	good := p9.Append(nil, 5, &p9.Tgetattr{FID: 0, Mask: p9.StatsBasic})
	for _, size := range []uint32{0, 1, 6, 7, uint32(len(good)) - 1, uint32(len(good)) + 1, 65537, 1 << 31, 1<<32 - 1} {
		f := append([]byte(nil), good...)
		binary.LittleEndian.PutUint32(f, size)
		_, err := p9test.Body(r.Frame(f), p9.TypeTgetattr, 5)
		want(t, "wrong size", err, syscall.EINVAL, syscall.EMSGSIZE)
	}
	for n := range p9.HeaderSize {
		if reply := r.Frame(good[:n]); reply != nil {
			t.Errorf("%d bytes of a frame are answered: %v", n, reply)
		}
	}
	if reply := r.Frame(nil); reply != nil {
		t.Errorf("nothing is answered: %v", reply)
	}
	// Longer than msize, size field right.
	_, err := r.CallData(&p9.Twrite{FID: 0, Count: 70000}, make([]byte, 70000))
	want(t, "Twrite larger than msize", err, syscall.EMSGSIZE)
	// A name that fills the message.
	_, err = r.Call(&p9.Tmkdir{DFID: 0, Name: []byte(strings.Repeat("n", 60000))})
	want(t, "64 kB name", err, syscall.ENAMETOOLONG)
	if _, err := p9test.Body(r.Frame(good), p9.TypeTgetattr, 5); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestReplyRoom: whatever room there is, no byte is written beyond it.
func TestReplyRoom(t *testing.T) {
	_, dir, s := serve(t)
	_ = dir
	sess := s.NewSession()
	defer sess.Close()
	r, err := p9test.NewRaw(sess)
	check(t, err)
	check(t, r.Attach(0, "x", 0))
	check(t, r.Walk(0, 1))
	check(t, r.Create(1, "f", p9.OpenRDWR, 0o644, 0))
	_, err = r.Write(1, 0, make([]byte, 1000))
	check(t, err)
	check(t, r.Walk(0, 2))
	check(t, r.Open(2, 0))
	for _, m := range []p9.Message{
		&p9.Tgetattr{FID: 0, Mask: p9.StatsBasic}, &p9.Tread{FID: 1, Count: 1000}, &p9.Tstatfs{FID: 0},
		&p9.Tread{FID: 1, Count: 1<<32 - 1}, &p9.Treaddir{FID: 2, Count: 1000}, &p9.Tflush{OldTag: 9},
	} {
		frame := p9.Append(nil, 1, m)
		for room := range 200 {
			buf := make([]byte, 400)
			for i := range buf {
				buf[i] = 0xee
			}
			n := sess.Handle([][]byte{frame}, [][]byte{buf[: room/2 : room/2], {}, buf[room/2 : room : room]})
			if n > room || n != 0 && int(binary.LittleEndian.Uint32(buf)) != n {
				t.Fatalf("%T in %d bytes of room: %d bytes, says %d", m, room, n, binary.LittleEndian.Uint32(buf))
			}
			if room < p9.RlerrorSize && n != 0 {
				t.Fatalf("%T is answered in %d bytes", m, room)
			}
			for _, b := range buf[room:] {
				if b != 0xee {
					t.Fatalf("%T in %d bytes of room wrote beyond it", m, room)
				}
			}
		}
	}
}

func TestVersion(t *testing.T) {
	_, _, s := serve(t)
	sess := s.NewSession()
	defer sess.Close()
	r := &p9test.Raw{H: sess, Msize: 64 << 10}
	want(t, "attach before Tversion", r.Attach(0, "x", 0), syscall.EPROTO)
	for _, tt := range []struct {
		msize   uint32
		version string
		want    string
	}{
		{0, "9P2000.L", "unknown"},
		{1, "9P2000.L", "unknown"},
		{4095, "9P2000.L", "unknown"},
		{8192, "9P2000", "unknown"},
		{8192, "9P2000.u", "unknown"},
		{8192, "9P2000.Lx", "unknown"},
		{8192, "", "unknown"},
		{4096, "9P2000.L", "9P2000.L"},
		{8192, "9P2000.L.Google.7", "9P2000.L"},
		{1<<32 - 1, "9P2000.L", "9P2000.L"},
	} {
		body, err := r.Call(&p9.Tversion{Msize: tt.msize, Version: []byte(tt.version)})
		check(t, err)
		msize := binary.LittleEndian.Uint32(body)
		if got := string(body[6:]); got != tt.want || msize > tt.msize || msize > 512<<10 {
			t.Errorf("Tversion %d %q: %d %q, want %q", tt.msize, tt.version, msize, got, tt.want)
		}
	}
	// In mid-session it drops every fid.
	check(t, r.Attach(7, "x", 0))
	before := s.FDs()
	check(t, r.Walk(7, 8))
	check(t, r.Create(8, "f", p9.OpenRDWR, 0o644, 0))
	_, err := r.Call(&p9.Tversion{Msize: 8192, Version: []byte(p9.Version)})
	check(t, err)
	if got := s.FDs(); got > before {
		t.Errorf("%d fds after Tversion, %d before the file was opened", got, before)
	}
	for _, fid := range []uint32{7, 8} {
		_, err := r.Call(&p9.Tgetattr{FID: fid})
		want(t, "old fid", err, syscall.EBADF)
	}
	check(t, r.Attach(7, "x", 0))
}

func TestFids(t *testing.T) {
	r, _, _ := serve(t)
	check(t, r.Walk(0, 1))
	want(t, "walk to a fid in use", r.Walk(0, 1), syscall.EBADF)
	want(t, "attach to a fid in use", r.Attach(1, "x", 0), syscall.EBADF)
	want(t, "walk to NOFID", r.Walk(0, p9.NoFID), syscall.EBADF)
	want(t, "attach to NOFID", r.Attach(p9.NoFID, "x", 0), syscall.EBADF)
	want(t, "walk from an unknown fid", r.Walk(99, 2), syscall.EBADF)
	check(t, r.Clunk(1))
	want(t, "second clunk", r.Clunk(1), syscall.EBADF)
	want(t, "no such export", r.Attach(3, "y", 0), syscall.ENOENT)
	for _, name := range []string{"..", "../x", "x/..", "/..", "//x", "x\x00", "."} {
		want(t, "attach to "+name, r.Attach(3, name, 0), syscall.EINVAL)
	}
	_, err := r.Call(&p9.Tattach{FID: 3, AFID: 0, Aname: []byte("x")})
	want(t, "attach with an afid", err, syscall.EINVAL)
	_, err = r.Call(&p9.Tauth{AFID: 3})
	want(t, "auth", err, syscall.EOPNOTSUPP)
	_, err = r.Read(0, 0, 10)
	want(t, "read of a fid that is not open", err, syscall.EBADF)
	_, err = r.Write(0, 0, []byte("x"))
	want(t, "write to one", err, syscall.EBADF)
	_, err = r.Call(&p9.Treaddir{FID: 0, Count: 100})
	want(t, "readdir of one", err, syscall.EBADF)
	_, err = r.Call(&p9.Tfsync{FID: 0})
	want(t, "fsync of one", err, syscall.EBADF)
	_, err = r.Call(&p9.Tlock{FID: 0})
	want(t, "lock of one", err, syscall.EBADF)
	check(t, r.Open(0, 0))
	want(t, "second open", r.Open(0, 0), syscall.EBADF)
	want(t, "walk of an open fid onto itself", r.Walk(0, 0), syscall.EINVAL)
}

func TestUnknownTypes(t *testing.T) {
	r, _, _ := serve(t)
	for typ := range 256 {
		frame := []byte{7, 0, 0, 0, byte(typ), 3, 0}
		reply := r.Frame(frame)
		_, err := p9test.Body(reply, p9.Type(typ), 3)
		want(t, "empty body", err, syscall.EOPNOTSUPP, syscall.EINVAL)
	}
}

// TestNames: no field that names an entry takes anything but a plain name.
func TestNames(t *testing.T) {
	r, dir, _ := serve(t)
	check(t, r.Walk(0, 1))
	check(t, r.Create(1, "f", p9.OpenRDWR, 0o644, 0))
	bad := []string{"", ".", "..", "/", "a/b", "../x", "a\x00b", "\x00", strings.Repeat("n", 256), strings.Repeat("n", 5000)}
	for _, name := range bad {
		n := []byte(name)
		for what, m := range map[string]p9.Message{
			"walk":        walkTo(0, 9, name),
			"lcreate":     &p9.Tlcreate{FID: 0, Name: n, Flags: p9.OpenRDWR, Mode: 0o644},
			"symlink":     &p9.Tsymlink{DFID: 0, Name: n, Target: []byte("t")},
			"mknod":       &p9.Tmknod{DFID: 0, Name: n, Mode: syscall.S_IFIFO | 0o600},
			"mkdir":       &p9.Tmkdir{DFID: 0, Name: n, Mode: 0o755},
			"link":        &p9.Tlink{DFID: 0, FID: 1, Name: n},
			"renameat":    &p9.Trenameat{OldDirFID: 0, OldName: []byte("f"), NewDirFID: 0, NewName: n},
			"renameat of": &p9.Trenameat{OldDirFID: 0, OldName: n, NewDirFID: 0, NewName: []byte("g")},
			"unlinkat":    &p9.Tunlinkat{DirFID: 0, Name: n},
			"rmdirat":     &p9.Tunlinkat{DirFID: 0, Name: n, Flags: p9.AtRemoveDir},
		} {
			_, err := r.Call(m)
			want(t, what+" "+name, err, syscall.EINVAL, syscall.ENOENT, syscall.ENAMETOOLONG)
		}
	}
	names := onHost(t, dir)
	if len(names) != 1 || names[0] != "f" {
		t.Errorf("the directory has %v", names)
	}
	_, err := r.Call(&p9.Tsymlink{DFID: 0, Name: []byte("s")})
	want(t, "empty target", err, syscall.ENOENT)
}

func TestWalk(t *testing.T) {
	r, _, _ := serve(t)
	var names []string
	fid := uint32(0)
	for range p9.MaxWalk {
		_, err := r.Call(&p9.Tmkdir{DFID: fid, Name: []byte("d"), Mode: 0o755})
		check(t, err)
		check(t, r.Walk(fid, fid+1, "d"))
		fid++
		names = append(names, "d")
	}
	check(t, r.Walk(0, 100, names...))
	check(t, r.Walk(0, 101))
	// Half way: the reply has what was found, and there is no new fid.
	m := &p9.Twalk{FID: 0, NewFID: 102, N: 3}
	m.Names[0], m.Names[1], m.Names[2] = []byte("d"), []byte("d"), []byte("nothing")
	body, err := r.Call(m)
	check(t, err)
	if n := binary.LittleEndian.Uint16(body); n != 2 || len(body) != 2+2*p9.QIDSize {
		t.Errorf("walk half way: %d qids in %d bytes", n, len(body))
	}
	want(t, "its new fid", r.Clunk(102), syscall.EBADF)
	want(t, "first name missing", r.Walk(0, 102, "nothing"), syscall.ENOENT)
	// Onto itself.
	check(t, r.Walk(101, 101, "d"))
	check(t, r.Walk(101, 101, "d"))
	want(t, "onto itself, missing", r.Walk(101, 101, "nothing"), syscall.ENOENT)
	check(t, r.Walk(101, 103, "d"))
}

// TestTags: a tag in flight is refused and the first request not disturbed.
func TestTags(t *testing.T) {
	_, _, s := serve(t)
	sess := s.NewSession()
	defer sess.Close()
	r, err := p9test.NewRaw(sess)
	check(t, err)
	check(t, r.Attach(0, "x", 0))
	frame := p9.Append(nil, 4, &p9.Tgetattr{FID: 0})
	first := sess.Accept([][]byte{frame})
	r.Tag = 4
	_, err = r.Call(&p9.Tgetattr{FID: 0})
	want(t, "tag in flight", err, syscall.EBUSY)
	buf := make([]byte, 1000)
	n := first.Serve([][]byte{buf})
	if _, err := p9test.Body(buf[:n], p9.TypeTgetattr, 4); err != nil {
		t.Errorf("the first: %v", err)
	}
	// The client may have seen that reply, so the tag is its again.
	if _, err = r.Call(&p9.Tgetattr{FID: 0}); err != nil {
		t.Errorf("tag after its reply: %v", err)
	}
	first.Done()
	r.Tag = p9.NoTag
	_, err = r.Call(&p9.Tgetattr{FID: 0})
	want(t, "NOTAG", err, syscall.EINVAL)

	// All tags at once: those beyond the limit are refused, all are answered.
	const limit = 1024
	var held []*p9server.Request
	refused := 0
	for tag := range 65535 {
		req := sess.Accept([][]byte{p9.Append(nil, uint16(tag), &p9.Tgetattr{FID: 0})})
		if tag < limit {
			held = append(held, req)
			continue
		}
		n := req.Serve([][]byte{buf})
		if _, err := p9test.Body(buf[:n], p9.TypeTgetattr, uint16(tag)); err == syscall.EAGAIN {
			refused++
		}
		req.Done()
	}
	for tag, req := range held {
		n := req.Serve([][]byte{buf})
		if _, err := p9test.Body(buf[:n], p9.TypeTgetattr, uint16(tag)); err != nil {
			t.Errorf("tag %d: %v", tag, err)
		}
		req.Done()
	}
	if refused != 65535-limit {
		t.Errorf("%d of 65535 tags refused, want all but 1024", refused)
	}
}

func TestFlush(t *testing.T) {
	_, _, s := serve(t)
	sess := s.NewSession()
	defer sess.Close()
	r, err := p9test.NewRaw(sess)
	check(t, err)
	check(t, r.Attach(0, "x", 0))
	flush := func(tag, old uint16) *p9server.Request {
		return sess.Accept([][]byte{p9.Append(nil, tag, &p9.Tflush{OldTag: old})})
	}
	serve := func(req *p9server.Request) chan error {
		done := make(chan error, 1)
		go func() {
			buf := make([]byte, 100)
			n := req.Serve([][]byte{buf})
			req.Done()
			if n != p9.HeaderSize {
				done <- syscall.Errno(binary.LittleEndian.Uint32(buf[7:]))
				return
			}
			done <- nil
		}()
		return done
	}
	quick := func(what string, done chan error) {
		t.Helper()
		select {
		case err := <-done:
			check(t, err)
		case <-time.After(5 * time.Second):
			t.Fatalf("%s is not answered", what)
		}
	}
	quick("flush of itself", serve(flush(1, 1)))
	quick("flush of an unknown tag", serve(flush(1, 77)))
	quick("flush of NOTAG", serve(flush(1, p9.NoTag)))

	// In flight: Rflush waits until the request is done, not just served.
	target := sess.Accept([][]byte{p9.Append(nil, 2, &p9.Tgetattr{FID: 0})})
	flushed := serve(flush(3, 2))
	again := serve(flush(4, 3)) // a flush of the flush
	target.Serve([][]byte{make([]byte, 200)})
	select {
	case <-flushed:
		t.Error("Rflush before the reply was sent")
	case <-time.After(50 * time.Millisecond):
	}
	target.Done()
	quick("flush", flushed)
	quick("flush of a flush", again)

	// Each flushes the other: the later waits for the earlier, which does not
	// wait.
	a, b := flush(5, 6), flush(6, 5)
	bDone := serve(b)
	aDone := serve(a)
	quick("flush of a later flush", aDone)
	quick("flush of an earlier flush", bDone)

	// A closed session keeps nobody waiting.
	target = sess.Accept([][]byte{p9.Append(nil, 2, &p9.Tgetattr{FID: 0})})
	stuck := serve(flush(3, 2))
	sess.Close()
	select {
	case err := <-stuck:
		want(t, "flush in a closed session", err, syscall.EIO)
	case <-time.After(5 * time.Second):
		t.Fatal("flush hangs in a closed session")
	}
	target.Serve([][]byte{make([]byte, 200)})
	target.Done()
}

// TestTOCTOU changes a request all the time while it is served.
func TestTOCTOU(t *testing.T) {
	o := newOutside(t, t.TempDir())
	s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: o.export()})
	r := newRaw(t, s)
	names := [][]byte{p9.Append(nil, 1, walkTo(0, 1, "dir")), p9.Append(nil, 1, walkTo(0, 1, "../"))}
	frame := append([]byte(nil), names[0]...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go flipper(&wg, stop, frame, names)
	reply := make([]byte, 200)
	for range 20000 {
		n := r.H.Handle([][]byte{frame}, [][]byte{reply})
		if n < p9.HeaderSize {
			t.Fatalf("reply of %d bytes", n)
		}
		if p9.Type(reply[4]) == p9.TypeTwalk.Reply() {
			check(t, r.Clunk(1))
		}
	}
	close(stop)
	wg.Wait()
	o.check(t)
}
