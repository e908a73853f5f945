package p9server_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// bench serves a file of 1 MiB, open as fid 1, in a directory with three more
// below each other; fid 2 is the directory, open.
func bench(b *testing.B) (*p9server.Session, *p9test.Raw) {
	b.Helper()
	dir := b.TempDir()
	check(b, os.MkdirAll(filepath.Join(dir, "usr/lib/x"), 0o755))
	check(b, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<20), 0o644))
	for i := range 1000 {
		check(b, os.WriteFile(filepath.Join(dir, "usr", fmt.Sprintf("file-%d", i)), nil, 0o644))
	}
	s, err := p9server.New(p9server.Config{
		Exports: []p9server.Export{{Name: "x", Root: dir}}, Limits: p9server.Limits{FDs: 1000},
	})
	check(b, err)
	sess := s.NewSession()
	b.Cleanup(func() {
		sess.Close()
		check(b, s.Close())
	})
	r := &p9test.Raw{H: sess, Msize: 512 << 10}
	_, err = r.Call(&p9.Tversion{Msize: 512 << 10, Version: []byte(p9.Version)})
	check(b, err)
	check(b, r.Attach(0, "x", 0))
	check(b, r.Walk(0, 1, "f"))
	check(b, r.Open(1, p9.OpenRDWR))
	check(b, r.Walk(0, 2, "usr"))
	check(b, r.Open(2, 0))
	return sess, r
}

// repeat sends frames in turn.
func repeat(b *testing.B, sess *p9server.Session, room int, frames ...[]byte) {
	b.Helper()
	reply := [][]byte{make([]byte, 11), make([]byte, room)}
	req := make([][][]byte, len(frames))
	for i, f := range frames {
		req[i] = [][]byte{f}
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, q := range req {
			if sess.Handle(q, reply) == 0 || reply[0][4] == byte(p9.TypeRlerror) {
				b.Fatalf("reply %v", reply[0])
			}
		}
	}
}

func BenchmarkGetattr(b *testing.B) {
	sess, _ := bench(b)
	repeat(b, sess, 200, p9.Append(nil, 1, &p9.Tgetattr{FID: 1, Mask: p9.StatsBasic}))
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{512, 4096, 128 << 10, 500 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sess, _ := bench(b)
			b.SetBytes(int64(n))
			repeat(b, sess, n, p9.Append(nil, 1, &p9.Tread{FID: 1, Count: uint32(n)}))
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{512, 4096, 128 << 10, 500 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sess, _ := bench(b)
			frame := append(p9.Append(nil, 1, &p9.Twrite{FID: 1, Count: uint32(n)}), make([]byte, n)...)
			binary.LittleEndian.PutUint32(frame, uint32(len(frame)))
			b.SetBytes(int64(n))
			repeat(b, sess, 100, frame)
		})
	}
}

// BenchmarkWalk1 is what the client does to look a name up: one name, then a
// clunk.
func BenchmarkWalk1(b *testing.B) {
	sess, _ := bench(b)
	repeat(b, sess, 300, p9.Append(nil, 1, walkTo(0, 9, "usr")), p9.Append(nil, 1, &p9.Tclunk{FID: 9}))
}

func BenchmarkWalk3(b *testing.B) {
	sess, _ := bench(b)
	m := &p9.Twalk{FID: 0, NewFID: 9, N: 3}
	m.Names[0], m.Names[1], m.Names[2] = []byte("usr"), []byte("lib"), []byte("x")
	repeat(b, sess, 300, p9.Append(nil, 1, m), p9.Append(nil, 1, &p9.Tclunk{FID: 9}))
}

func BenchmarkClone(b *testing.B) {
	sess, _ := bench(b)
	repeat(b, sess, 300, p9.Append(nil, 1, &p9.Twalk{FID: 0, NewFID: 9}), p9.Append(nil, 1, &p9.Tclunk{FID: 9}))
}

// BenchmarkReaddir lists 1002 entries in one message.
func BenchmarkReaddir(b *testing.B) {
	sess, _ := bench(b)
	repeat(b, sess, 64<<10, p9.Append(nil, 1, &p9.Treaddir{FID: 2, Count: 64 << 10}))
}

// BenchmarkOpenReadClose is open, read and close of a small file by a client
// that has its directory.
func BenchmarkOpenReadClose(b *testing.B) {
	sess, _ := bench(b)
	repeat(b, sess, 4096, p9.Append(nil, 1, walkTo(0, 9, "f")), p9.Append(nil, 1, &p9.Tgetattr{FID: 9, Mask: p9.StatsBasic}),
		p9.Append(nil, 1, &p9.Tlopen{FID: 9}), p9.Append(nil, 1, &p9.Tread{FID: 9, Count: 4096}),
		p9.Append(nil, 1, &p9.Tclunk{FID: 9}))
}
