package initramfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/guest/initramfs"
)

func TestWriteReadBack(t *testing.T) {
	files := append(initramfs.Agent([]byte("\x7fELF agent")),
		initramfs.Symlink("bin", "run/bin"),
		initramfs.Dir("run/a", 0o1777),
		initramfs.Regular("run/a/empty", 0o600, nil),
		initramfs.Regular("run/a/odd", 0o644, []byte("12345")),
		initramfs.File{Name: "dev/vda", Mode: unix.S_IFBLK | 0o600, Major: 254, Minor: 16},
	)
	archive := write(t, files)
	got := read(t, archive)
	if diff := cmp.Diff(files, got, cmp.Comparer(bytes.Equal)); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if again := write(t, files); !bytes.Equal(archive, again) {
		t.Error("the same files gave different bytes")
	}
}

func TestWriteCpioProgram(t *testing.T) {
	program, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio program; try: apt-get install cpio")
	}
	cmd := exec.Command(program, "-t", "-v", "--numeric-uid-gid", "--quiet")
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(write(t, initramfs.Agent(make([]byte, 4097))))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
		"crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
		"crw-rw-rw- 1 0 0 1, 3 Jan 1 1970 dev/null",
		"dr-xr-xr-x 2 0 0 0 Jan 1 1970 proc",
		"dr-xr-xr-x 2 0 0 0 Jan 1 1970 sys",
		"drwxr-xr-x 2 0 0 0 Jan 1 1970 run",
		"-rwxr-xr-x 1 0 0 4097 Jan 1 1970 init",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cpio -tv (-want +got):\n%s", diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := initramfs.Dir("d", 0o755)
	for _, tt := range []struct {
		name  string
		files []initramfs.File
	}{
		{"empty name", []initramfs.File{initramfs.Dir("", 0o755)}},
		{"root itself", []initramfs.File{initramfs.Dir(".", 0o755)}},
		{"absolute", []initramfs.File{initramfs.Dir("/d", 0o755)}},
		{"parent", []initramfs.File{initramfs.Dir("..", 0o755)}},
		{"climbs", []initramfs.File{initramfs.Dir("../d", 0o755)}},
		{"not clean", []initramfs.File{dir, initramfs.Dir("d//e", 0o755)}},
		{"trailer", []initramfs.File{initramfs.Regular("TRAILER!!!", 0o644, nil)}},
		{"NUL", []initramfs.File{initramfs.Regular("a\x00b", 0o644, nil)}},
		{"long name", []initramfs.File{initramfs.Regular(strings.Repeat("a", 4096), 0o644, nil)}},
		{"twice", []initramfs.File{dir, dir}},
		{"no parent", []initramfs.File{initramfs.Regular("d/e", 0o644, nil)}},
		{"parent later", []initramfs.File{initramfs.Regular("d/e", 0o644, nil), dir}},
		{"parent is a file", []initramfs.File{initramfs.Regular("d", 0o644, nil), initramfs.Regular("d/e", 0o644, nil)}},
		{"directory with content", []initramfs.File{{Name: "d", Mode: unix.S_IFDIR, Data: []byte("x")}}},
		{"link without target", []initramfs.File{initramfs.Symlink("l", "")}},
		{"socket", []initramfs.File{{Name: "s", Mode: unix.S_IFSOCK}}},
		{"no type", []initramfs.File{{Name: "s", Mode: 0o644}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := initramfs.Write(&bytes.Buffer{}, tt.files)
			if !errors.Is(err, initramfs.ErrFile) {
				t.Errorf("Write: %v, want ErrFile", err)
			}
		})
	}
}

type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteReportsWriterError(t *testing.T) {
	for _, room := range []int{0, 100 << 10} {
		err := initramfs.Write(&failing{left: room}, initramfs.Agent(make([]byte, 1<<20)))
		if !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v, want the writer's error", room, err)
		}
	}
}

func write(t *testing.T, files []initramfs.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := initramfs.Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read parses an archive as the kernel's init/initramfs.c does, written from
// the format's description and independent of the writer.
func read(t *testing.T, b []byte) []initramfs.File {
	t.Helper()
	var files []initramfs.File
	up := func(n int) int { return (n + 3) &^ 3 }
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header at %q", b[:min(len(b), 20)])
		}
		var f [13]int
		for i := range f {
			v, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			f[i] = int(v)
		}
		size, nameSize := f[6], f[11]
		name, _, _ := strings.Cut(string(b[110:110+nameSize]), "\x00")
		if b[110+nameSize-1] != 0 {
			t.Fatalf("name %q does not end in NUL", name)
		}
		if name == "TRAILER!!!" {
			if rest := b[up(110+nameSize):]; len(rest) != 0 {
				t.Errorf("%d bytes behind the trailer", len(rest))
			}
			return files
		}
		if f[0] != len(files)+1 || f[2] != 0 || f[3] != 0 || f[5] != 0 || f[12] != 0 {
			t.Errorf("%s: inode %d, uid %d, gid %d, mtime %d, check %d", name, f[0], f[2], f[3], f[5], f[12])
		}
		b = b[up(110+nameSize):]
		files = append(files, initramfs.File{Name: name, Mode: uint32(f[1]), Data: b[:size], Major: uint32(f[9]), Minor: uint32(f[10])})
		b = b[up(size):]
	}
}

func ExampleWrite() {
	var b bytes.Buffer
	err := initramfs.Write(&b, []initramfs.File{initramfs.Dir("dev", 0o755), initramfs.Regular("init", 0o755, []byte("#!/bin/sh\n"))})
	fmt.Println(err, b.String()[:6])
	// Output: <nil> 070701
}

// TestPageAligned: the guest's kernel takes pages of the archive for pages of
// the file, so a large file must begin on one.
func TestPageAligned(t *testing.T) {
	mark := []byte("here it begins")
	data := append(append([]byte{}, mark...), make([]byte, 5000)...)
	for name, files := range map[string][]initramfs.File{
		"init":                   initramfs.Agent(data), // behind other entries
		strings.Repeat("x", 200): {initramfs.Regular(strings.Repeat("x", 200), 0o755, data)},
	} {
		b := write(t, files)
		if at := bytes.Index(b, mark); at <= 0 || at%4096 != 0 {
			t.Errorf("%s: content at %d of the archive, want a multiple of 4096", name, at)
		}
		if !bytes.Contains(b, []byte(name+"\x00")) {
			t.Errorf("%s: the name does not end where it should", name)
		}
	}
}
