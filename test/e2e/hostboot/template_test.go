//go:build e2e

// Package hostboot has the tests for which the host boots: each lab is another boot of it, and what one leaves in a directory
// of this machine's the next one finds.
//
//	make all bin/lab && go test -tags e2e -v ./test/e2e/hostboot
package hostboot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/rootfs"
	"github.com/lucid-containers/lucid/test/stage"
)

// TestTemplate: a template is used in the next boots of the host; one whose contents have changed in between, without a trace
// in inode, size and time, is made anew, once.
func TestTemplate(t *testing.T) {
	t.Chdir("../../..")
	copies, err := stage.Checkout("lucid-hostboot-")
	if err != nil {
		t.Fatalf("%v: make all bin/lab", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(copies) })
	h := &host{t: t, bin: filepath.Join(copies, "bin"), dir: t.TempDir()}
	h.bundle()

	h.wantClone("")
	files, err := filepath.Glob(filepath.Join(h.dir, "templates/auto-*/*"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v, want the files of one template", files, err)
	}
	memory := files[0]
	made := digest(t, memory)
	info, err := os.Stat(memory)
	if err != nil {
		t.Fatal(err)
	}
	h.wantClone("")
	if now, err := os.Stat(memory); err != nil || !os.SameFile(info, now) || !now.ModTime().Equal(info.ModTime()) || digest(t, memory) != made {
		t.Errorf("in the second boot the template was made anew, or written: %v, %v", now, err)
	}

	spoil(t, memory, info)
	h.wantClone(memory + ": has other contents than when it was made")
	if now, err := os.Stat(memory); err != nil || os.SameFile(info, now) {
		t.Errorf("in the third boot it was not made anew: %v", err)
	}
	h.wantClone("")
	if len(h.boots) != 4 {
		t.Errorf("%d boots of the host, not 4", len(h.boots))
	}
}

// host is an emulated machine that boots for each command.
type host struct {
	t        *testing.T
	bin, dir string // dir outlives a boot
	boots    map[string]bool
}

// bundle makes one whose root file system is this test binary, which is static.
func (h *host) bundle() {
	h.t.Helper()
	root := filepath.Join(h.dir, "bundle/rootfs")
	if err := errors.Join(os.MkdirAll(root, 0o755), stage.Program("/proc/self/exe", filepath.Join(root, "program"))); err != nil {
		h.t.Fatal(err)
	}
	spec, err := rootfs.ReadConfig(h.t.Context(), filepath.Join(h.bin, "lucid"), filepath.Dir(root))
	if err != nil {
		h.t.Fatal(err)
	}
	spec.Process.Terminal, spec.Process.Args = false, []string{"/program", cmdline}
	if err := rootfs.WriteConfig(filepath.Dir(root), spec); err != nil {
		h.t.Fatal(err)
	}
}

// cmdline is what the test binary prints when it is its argument.
const cmdline = "/proc/cmdline"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == cmdline {
		data, err := os.ReadFile(cmdline)
		if err != nil {
			panic(err)
		}
		fmt.Print(string(data))
		return
	}
	os.Exit(m.Run())
}

// wantClone boots the host and runs a container there, whose VM has to go on from a template. warning is what the log says of
// that template; empty: nothing.
func (h *host) wantClone(warning string) {
	h.t.Helper()
	lucid := filepath.Join(h.bin, "lucid") + " --root /run/lucid --template auto --template-dir " + h.dir + "/templates"
	cmd := exec.Command(filepath.Join(h.bin, "lab"), "cat /proc/sys/kernel/random/boot_id; "+lucid+" run --bundle "+h.dir+"/bundle box")
	cmd.Env = append(os.Environ(), "LAB_MEM=2048", "LAB_TIMEOUT=10m", "LAB_OUT="+h.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	boot, words, _ := strings.Cut(out.String(), "\n")
	if h.boots == nil {
		h.boots = map[string]bool{}
	}
	h.boots[boot] = true
	if !strings.Contains(words, " maxcpus=") {
		h.t.Errorf("it is no clone: %q", words)
	}
	if said := errs.String(); !strings.Contains(said, warning) || warning == "" && said != "" {
		h.t.Errorf("stderr %q, want %q", said, warning)
	}
}

// spoil changes a byte of a file where there is something, and nothing else that shows.
func spoil(t *testing.T, path string, info os.FileInfo) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0) // root may, whatever the mode
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, err := unix.Seek(int(f.Fd()), 1<<20, unix.SEEK_DATA)
	var b [1]byte
	if err == nil {
		_, err = f.ReadAt(b[:], at)
	}
	if err == nil {
		b[0] ^= 4
		_, err = f.WriteAt(b[:], at)
	}
	if err = errors.Join(err, os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}
