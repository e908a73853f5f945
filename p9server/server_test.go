package p9server_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// newServer serves exports and closes with the test, which fails if an fd is
// left.
func newServer(t testing.TB, limits p9server.Limits, exports ...p9server.Export) *p9server.Server {
	t.Helper()
	if limits.FDs == 0 {
		limits.FDs = 4096
	}
	s, err := p9server.New(p9server.Config{Exports: exports, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := s.FDs(); n != 0 {
			t.Errorf("%d fds left after Close", n)
		}
	})
	return s
}

// newRaw starts a session of s with the root of export "x" as fid 0.
func newRaw(t testing.TB, s *p9server.Server) *p9test.Raw {
	t.Helper()
	sess := s.NewSession()
	t.Cleanup(sess.Close)
	r, err := p9test.NewRaw(sess)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Attach(0, "x", 0); err != nil {
		t.Fatal(err)
	}
	return r
}

// serve exports a new directory as "x".
func serve(t testing.TB, change ...func(*p9server.Export)) (*p9test.Raw, string, *p9server.Server) {
	t.Helper()
	dir := t.TempDir()
	e := p9server.Export{Name: "x", Root: dir}
	for _, c := range change {
		c(&e)
	}
	s := newServer(t, p9server.Limits{}, e)
	return newRaw(t, s), dir, s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadWrite(t *testing.T) {
	for _, split := range []int{0, 1, 7, 4096} {
		r, dir, _ := serve(t)
		r.Split = split
		check(t, r.Walk(0, 1))
		check(t, r.Create(1, "f", p9.OpenRDWR, 0o640, 0))
		n, err := r.Write(1, 0, []byte("hello, world"))
		if n != 12 || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
		got, err := r.Read(1, 7, 100)
		if string(got) != "world" || err != nil {
			t.Fatalf("read: %q, %v", got, err)
		}
		onHost, err := os.ReadFile(filepath.Join(dir, "f"))
		if string(onHost) != "hello, world" || err != nil {
			t.Fatalf("host has %q, %v", onHost, err)
		}
		check(t, r.Clunk(1))
	}
}

// onHost lists a directory without the server.
func onHost(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
