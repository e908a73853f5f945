package p9server_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// outside is what lies next to an export and must never be reached.
type outside struct {
	dir  string
	stat map[string]syscall.Stat_t
}

const secret = "nobody inside may read or change this"

// newOutside makes dir/export, and beside it files that an escape would touch.
// The export is full of ways out.
func newOutside(t testing.TB, dir string) *outside {
	t.Helper()
	o := &outside{dir: dir, stat: make(map[string]syscall.Stat_t)}
	export := filepath.Join(dir, "export")
	for _, d := range []string{export, filepath.Join(dir, "secrets"), filepath.Join(export, "dir")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sentinel := filepath.Join(dir, "secrets", "sentinel")
	for _, f := range []string{sentinel, filepath.Join(export, "file")} {
		if err := os.WriteFile(f, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"out": sentinel, "outdir": filepath.Join(dir, "secrets"), "up": "..", "rel": "../secrets/sentinel",
	} {
		_ = os.Symlink(target, filepath.Join(export, name))
	}
	_ = syscall.Mkfifo(filepath.Join(export, "fifo"), 0o600)
	_ = syscall.Mknod(filepath.Join(export, "socket"), syscall.S_IFSOCK|0o600, 0)
	_ = syscall.Mknod(filepath.Join(export, "null"), syscall.S_IFCHR|0o600, 1<<8|3)
	for _, p := range []string{dir, filepath.Join(dir, "secrets"), sentinel} {
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			t.Fatal(err)
		}
		o.stat[p] = st
	}
	return o
}

func (o *outside) export() string { return filepath.Join(o.dir, "export") }

// check fails if anything outside has changed.
func (o *outside) check(t testing.TB) {
	t.Helper()
	for p, was := range o.stat {
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		st.Atim, was.Atim = syscall.Timespec{}, syscall.Timespec{}
		if st != was {
			t.Fatalf("%s changed:\n was %+v\n  is %+v", p, was, st)
		}
	}
	got, err := os.ReadFile(filepath.Join(o.dir, "secrets", "sentinel"))
	if string(got) != secret || err != nil {
		t.Fatalf("sentinel is %q, %v", got, err)
	}
}

// frames turns fuzz input into requests: type[1] length[1] body. Sizes are
// made right, but for the type 0xff whose body is a whole frame.
func frames(in []byte) [][]byte {
	var out [][]byte
	for len(in) >= 2 && len(out) < 64 {
		typ, n := in[0], int(in[1])
		in = in[2:]
		n = min(n, len(in))
		body := in[:n]
		in = in[n:]
		if typ == 0xff {
			out = append(out, body)
			continue
		}
		f := []byte{0, 0, 0, 0, typ, byte(len(out)), 0}
		f = append(f, body...)
		binary.LittleEndian.PutUint32(f, uint32(len(f)))
		out = append(out, f)
	}
	return out
}

func record(msgs ...p9.Message) []byte {
	var out []byte
	for _, m := range msgs {
		body := p9.Append(nil, 0, m)[p9.HeaderSize:]
		out = append(out, byte(m.Type()), byte(len(body)))
		out = append(out, body...)
	}
	return out
}

func walkTo(fid, newfid uint32, name string) *p9.Twalk {
	m := &p9.Twalk{FID: fid, NewFID: newfid, N: 1}
	m.Names[0] = []byte(name)
	return m
}

// FuzzSession sends sequences of frames to a session. It must not panic, leak
// an fd, or touch what is outside the export.
func FuzzSession(f *testing.F) {
	b := func(s string) []byte { return []byte(s) }
	f.Add(record(walkTo(0, 9, "file"), &p9.Tlopen{FID: 9, Flags: 2}, &p9.Tread{FID: 9, Count: 10},
		&p9.Twrite{FID: 9}, &p9.Tfsync{FID: 9}, &p9.Tlock{FID: 9, ClientID: b("c")},
		&p9.Tgetlock{FID: 9, ClientID: b("c")}, &p9.Tclunk{FID: 9}))
	f.Add(record(walkTo(0, 9, "out"), &p9.Tsetattr{FID: 9, Valid: p9.AttrSize | p9.AttrMode},
		&p9.Treadlink{FID: 9}, &p9.Txattrwalk{FID: 9, NewFID: 10, Name: b("user.a")}, &p9.Tlopen{FID: 9}))
	f.Add(record(&p9.Tlcreate{FID: 1, Name: b("new"), Flags: 0o102, Mode: 0o644},
		&p9.Tmkdir{DFID: 0, Name: b("d")}, &p9.Tsymlink{DFID: 0, Name: b("s"), Target: b("/")},
		&p9.Tmknod{DFID: 0, Name: b("n"), Mode: 0o10644}, &p9.Tlink{DFID: 0, FID: 2, Name: b("ln")}))
	f.Add(record(&p9.Trenameat{OldDirFID: 0, OldName: b("dir"), NewDirFID: 0, NewName: b("d2")},
		&p9.Tunlinkat{DirFID: 0, Name: b("file")}, &p9.Tstatfs{FID: 0}, &p9.Tgetattr{FID: 2},
		&p9.Trename{FID: 2, DFID: 0, Name: b("x")}, &p9.Tremove{FID: 2}))
	f.Add(record(&p9.Tlopen{FID: 1}, &p9.Treaddir{FID: 1, Count: 4096}, &p9.Treaddir{FID: 1, Offset: 7, Count: 99}))
	f.Add(record(&p9.Txattrcreate{FID: 2, Name: b("user.a"), Size: 1}, &p9.Twrite{FID: 2}, &p9.Tclunk{FID: 2},
		&p9.Tflush{OldTag: 0}, &p9.Tversion{Msize: 8192, Version: b(p9.Version)}))
	f.Add([]byte("\xff\x07\x07\x00\x00\x00\x64\xff\xff\xff\x03abc"))

	base, err := os.MkdirTemp("", "lucid-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(base) })
	f.Fuzz(func(t *testing.T, in []byte) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		o := newOutside(t, dir)
		s, err := p9server.New(p9server.Config{
			Exports: []p9server.Export{{Name: "x", Root: o.export()}},
			Limits:  p9server.Limits{FDs: 256, Fids: 64},
		})
		if err != nil {
			t.Fatal(err)
		}
		sess := s.NewSession()
		r, err := p9test.NewRaw(sess)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"", "file", "out", "outdir", "fifo", "socket", "null", "dir"} {
			fid := uint32(i)
			if i == 0 {
				err = r.Attach(fid, "x", 1000)
			} else {
				err = r.Walk(0, fid, name)
			}
			if err != nil {
				t.Fatal(name, err)
			}
		}
		reply := make([]byte, 8192)
		for _, frame := range frames(in) {
			n := sess.Handle([][]byte{frame}, [][]byte{reply[:100], reply[100:]})
			if n < 0 || n > len(reply) {
				t.Fatalf("reply of %d bytes", n)
			}
			if n > 0 && (n < p9.HeaderSize || int(binary.LittleEndian.Uint32(reply)) != n) {
				t.Fatalf("reply of %d bytes says %d", n, binary.LittleEndian.Uint32(reply))
			}
		}
		sess.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := s.FDs(); n != 0 {
			t.Fatalf("%d fds left", n)
		}
		o.check(t)
	})
}
