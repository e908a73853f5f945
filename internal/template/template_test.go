package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/vmstate"
)

// The tests save "machines" of a few bytes: what is in the files is internal/sandbox's
// business.

func testKey(t testing.TB, dir string) *Key {
	t.Helper()
	host, err := ThisHost()
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{Memory: 128 << 20, VCPUs: 1, Transport: "vsock", Host: host}
	for name, f := range map[string]*File{"lucid": &k.Program, "vmlinux": &k.Kernel, "initramfs": &k.Initramfs} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if *f, err = FileOf(path); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// save writes a sparse memory of 1 MiB with two blocks in it, and rubbish that a
// maker may leave.
func save(dir string) error {
	f, err := os.Create(filepath.Join(dir, vmstate.MemoryFile))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, at := range []int64{4096, 700_000} {
		if _, err := f.WriteAt([]byte("memory"), at); err != nil {
			return err
		}
	}
	if err := f.Truncate(1 << 20); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, vmstate.StateFile), []byte("state"), 0o600)
}

func newStore(t testing.TB) (*Store, *Key) {
	t.Helper()
	dir := t.TempDir()
	s, err := New(filepath.Join(dir, "lib/templates"))
	if err != nil {
		t.Fatal(err)
	}
	return s, testKey(t, dir)
}

func mustMake(t testing.TB, s *Store, name string, k *Key) {
	t.Helper()
	if _, err := s.Make(t.Context(), name, k, true, save); err != nil {
		t.Fatal(err)
	}
}

func names(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestMakeAndUse(t *testing.T) {
	s, k := newStore(t)
	if all, err := s.List(); err != nil || all != nil {
		t.Errorf("a store that is not there: %v, %v", all, err)
	}
	if _, err := s.Use("box", k); !errors.Is(err, ErrNotExist) {
		t.Errorf("no template: %v", err)
	}
	dir, err := s.Make(t.Context(), "box", k, false, save)
	if err != nil || dir != filepath.Join(s.root, "box") {
		t.Fatalf("%s, %v", dir, err)
	}
	if got := names(t, dir); got != "memory meta.json state verified" {
		t.Errorf("it has %s", got)
	}
	if got := names(t, s.root); got != "box" {
		t.Errorf("the store has %s", got)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, "memory": 0o400, "state": 0o400, "meta.json": 0o600, "verified": 0o600, "..": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if got, err := s.Use("box", k); err != nil || got != dir {
		t.Errorf("%s, %v", got, err)
	}
	never := func(string) error { t.Error("it is made again"); return nil }
	if got, err := s.Make(t.Context(), "box", k, false, never); err != nil || got != dir {
		t.Errorf("again: %s, %v", got, err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Name != "box" || all[0].Problem != "" || all[0].Disk == 0 || all[0].Disk > 512<<10 || all[0].Key.Memory != 128<<20 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.Remove("box"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("box"); !errors.Is(err, ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if got := names(t, s.root); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestMakeFails: nothing is left, and the reason is told.
func TestMakeFails(t *testing.T) {
	s, k := newStore(t)
	for want, save := range map[string]func(string) error{
		"no luck":                    func(string) error { return errors.New("no luck") },
		"memory: is missing":         func(string) error { return nil },
		"memory: is empty":           func(dir string) error { return os.WriteFile(dir+"/memory", nil, 0o600) },
		"memory: is a symbolic link": func(dir string) error { return os.Symlink("/dev/null", dir+"/memory") },
		"memory: has 2 names":        func(dir string) error { _ = save(dir); return os.Link(dir+"/memory", s.root+"/.gone-x") },
		"state: is not a regular": func(dir string) error {
			_ = save(dir)
			_ = os.Remove(dir + "/state")
			return unix.Mkfifo(dir+"/state", 0o600)
		},
	} {
		_, err := s.Make(t.Context(), "box", k, false, save)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		_ = os.Remove(s.root + "/.gone-x")
		if got := names(t, s.root); got != "" {
			t.Errorf("%s: left: %s", want, got)
		}
	}
	if _, err := New("relative"); err == nil {
		t.Error("a relative path is a store")
	}
}

// TestSize: a template serves VMs that are larger, unless it is fixed.
func TestSize(t *testing.T) {
	for _, c := range []struct {
		memory uint64
		vcpus  int
		fixed  bool
		want   string // empty: used
	}{
		{256 << 20, 2, false, ""},
		{256 << 20, 4, false, ""},
		{512 << 20, 2, false, ""},
		{512 << 20, 1, false, "vCPUs: it has 2, not 1"},
		{128 << 20, 2, false, "guest memory: it has 256 MiB, not 128"},
		{256 << 20, 2, true, ""},
		{512 << 20, 2, true, "guest memory: it has 256 MiB, not 512"},
		{256 << 20, 4, true, "vCPUs: it has 2, not 4"},
	} {
		s, k := newStore(t)
		k.Memory, k.VCPUs = 256<<20, 2
		_, err := s.Make(t.Context(), "box", k, true, func(dir string) error {
			if c.fixed {
				if err := os.WriteFile(filepath.Join(dir, vmstate.FixedFile), nil, 0o600); err != nil {
					return err
				}
			}
			return save(dir)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := names(t, s.Dir("box")); got != "memory meta.json state verified" {
			t.Errorf("it has %s", got)
		}
		k.Memory, k.VCPUs = c.memory, c.vcpus
		_, err = s.Use("box", k)
		if used := err == nil; used != (c.want == "") || !used && (!errors.Is(err, ErrSize) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestRefused: whatever is wrong is told in one line that names the file; auto
// makes it anew, and a template of the user's stays as it is.
func TestRefused(t *testing.T) {
	write := func(path string, at int64, data string) error {
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte(data), at)
		return err
	}
	root := os.Geteuid() == 0
	for name, c := range map[string]struct {
		spoil func(dir string, k *Key) error
		want  string
		skip  bool
	}{
		"written":   {spoil: func(dir string, _ *Key) error { return write(dir+"/memory", 4097, "X") }, want: "/memory: has been written since it was made"},
		"truncated": {spoil: func(dir string, _ *Key) error { return os.Truncate(dir+"/memory", 4096) }, want: "/memory: has 4096 bytes, not 1048576", skip: !root},
		"longer":    {spoil: func(dir string, _ *Key) error { return write(dir+"/state", 5, "more") }, want: "/state: has 9 bytes, not 5"},
		"replaced": {spoil: func(dir string, _ *Key) error {
			info, err := os.Stat(dir + "/state")
			return errors.Join(err, os.WriteFile(dir+"/new", []byte("etats"), 0o400), os.Chtimes(dir+"/new", info.ModTime(), info.ModTime()), os.Rename(dir+"/new", dir+"/state"))
		}, want: "/state: has been replaced"},
		"missing": {spoil: func(dir string, _ *Key) error { return os.Remove(dir + "/state") }, want: "/state: is missing"},
		"a link": {spoil: func(dir string, _ *Key) error {
			return errors.Join(os.Rename(dir+"/state", dir+"/x"), os.Symlink("x", dir+"/state"))
		}, want: "/state: is a symbolic link"},
		"a fifo": {spoil: func(dir string, _ *Key) error {
			return errors.Join(os.Remove(dir+"/state"), unix.Mkfifo(dir+"/state", 0o600))
		}, want: "/state: is not a regular file"},
		"another name":    {spoil: func(dir string, _ *Key) error { return os.Link(dir+"/memory", dir+"/other") }, want: "/memory: has 2 names"},
		"loose file":      {spoil: func(dir string, _ *Key) error { return os.Chmod(dir+"/memory", 0o444) }, want: "/memory: has mode 0444: others can get at it"},
		"loose directory": {spoil: func(dir string, _ *Key) error { return os.Chmod(dir, 0o750) }, want: ": has mode 0750: others can get at it"},
		"loose meta":      {spoil: func(dir string, _ *Key) error { return os.Chmod(dir+"/meta.json", 0o620) }, want: "/meta.json: has mode 0620: others can get at it"},
		"other owner":     {spoil: func(dir string, _ *Key) error { return os.Chown(dir+"/memory", 12345, -1) }, want: "/memory: belongs to user 12345", skip: !root},
		"other's dir":     {spoil: func(dir string, _ *Key) error { return os.Chown(dir, 12345, -1) }, want: ": belongs to user 12345", skip: !root},
		"no meta":         {spoil: func(dir string, _ *Key) error { return os.Remove(dir + "/meta.json") }, want: "/meta.json: is missing"},
		"empty meta":      {spoil: func(dir string, _ *Key) error { return os.Truncate(dir+"/meta.json", 0) }, want: "/meta.json: unexpected end of JSON input"},
		"giant meta":      {spoil: func(dir string, _ *Key) error { return os.Truncate(dir+"/meta.json", 1<<40) }, want: "/meta.json: has 1099511627776 bytes"},
		"other format":    {spoil: func(dir string, _ *Key) error { return os.WriteFile(dir+"/meta.json", []byte(`{"Format": 7}`), 0o600) }, want: `/meta.json: is of template "", format 7`},
		"contents, after a boot": {spoil: func(dir string, _ *Key) error {
			info, err := os.Stat(dir + "/memory")
			return errors.Join(err, write(dir+"/memory", 4097, "X"), os.Chmod(dir+"/memory", 0o400), os.Chtimes(dir+"/memory", info.ModTime(), info.ModTime()), os.Remove(dir+"/verified"))
		}, want: "/memory: has other contents than when it was made"},
		"other lucid":      {spoil: func(_ string, k *Key) error { k.Program.MTime++; return nil }, want: ": the lucid has changed since: "},
		"other kernel":     {spoil: func(_ string, k *Key) error { k.Kernel.Path = "/boot/other"; k.Kernel.Inode++; return nil }, want: ": it is for the guest kernel "},
		"other initramfs":  {spoil: func(_ string, k *Key) error { k.Initramfs.Size++; return nil }, want: ": the initramfs has changed since: "},
		"other memory":     {spoil: func(_ string, k *Key) error { k.Memory /= 2; return nil }, want: `: guest memory: it has 128 MiB, not 64`},
		"other parameters": {spoil: func(_ string, k *Key) error { k.KernelParams = []string{"nosmt", "x"}; return nil }, want: `: kernel parameters: it has "", not "nosmt x"`},
		"other transport":  {spoil: func(_ string, k *Key) error { k.Transport = "serial"; return nil }, want: `: transport: it has "vsock", not "serial"`},
		"other host":       {spoil: func(_ string, k *Key) error { k.Host.Kernel = "7.0"; return nil }, want: ": it was made with the host kernel "},
		"other KVM":        {spoil: func(_ string, k *Key) error { k.Host.KVM = "kvm_pvm"; return nil }, want: ": it was made with the KVM "},
		"other CPU":        {spoil: func(_ string, k *Key) error { k.Host.CPU = "8086"; return nil }, want: ": it was made with the host CPU "},
		"other flags":      {spoil: func(_ string, k *Key) error { k.Host.Features = "f00"; return nil }, want: ": it was made with the host CPU's flags "},
	} {
		t.Run(name, func(t *testing.T) {
			if c.skip {
				t.Skip("needs root: run the tests as root")
			}
			for _, template := range []string{"box", "auto-1"} {
				s, k := newStore(t)
				mustMake(t, s, template, k)
				if err := c.spoil(s.Dir(template), k); err != nil {
					t.Fatal(err)
				}
				_, err := s.Use(template, k)
				var refused *Error
				if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), s.Dir(template)) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("Use: %v, want %q", err, c.want)
				}
				dir, err := s.Make(t.Context(), template, k, false, save)
				if template == "box" {
					if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
						t.Errorf("Make: %s, %v, want %q", dir, err, c.want)
					}
					continue
				}
				if err != nil {
					t.Fatalf("Make: %v", err)
				}
				if _, err := s.Use(template, k); err != nil {
					t.Errorf("made anew: %v", err)
				}
				if err := s.Verify(template); err != nil {
					t.Errorf("made anew: %v", err)
				}
				if got := names(t, s.root); got != template {
					t.Errorf("the store has %s", got)
				}
			}
		})
	}
}

// TestLooseRoot: a store that others can write is not used, and not made use of.
func TestLooseRoot(t *testing.T) {
	s, k := newStore(t)
	mustMake(t, s, "box", k)
	if err := os.Chmod(s.root, 0o777); err != nil {
		t.Fatal(err)
	}
	want := s.root + ": has mode 0777: others can get at it"
	_, err1 := s.Use("box", k)
	_, err2 := s.Make(t.Context(), "auto-1", k, false, save)
	_, err3 := s.List()
	_, err4 := s.Prune()
	for _, err := range []error{err1, err2, err3, err4, s.Remove("box"), s.Verify("box")} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestVerifiedOncePerBoot: the hashes are compared at the first use after a boot
// and by Verify, and then no more.
func TestVerifiedOncePerBoot(t *testing.T) {
	s, k := newStore(t)
	mustMake(t, s, "box", k)
	// A change that identity does not show.
	path := s.Dir("box") + "/memory"
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs root: run the tests as root") // mode 0400
	}
	defer f.Close()
	poke := func(c string) {
		if _, err := f.WriteAt([]byte(c), 4096); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	poke("X")
	if _, err := s.Use("box", k); err != nil {
		t.Errorf("in the same boot: %v", err)
	}
	if err := s.Verify("box"); err == nil || !strings.Contains(err.Error(), "other contents") {
		t.Errorf("Verify: %v", err)
	}
	if _, err := s.Use("box", k); err == nil || !strings.Contains(err.Error(), "other contents") {
		t.Errorf("in the same boot, after Verify has found it: %v", err)
	}
	poke("m")
	if _, err := s.Use("box", k); err != nil {
		t.Errorf("put right: %v", err)
	}
	poke("X")
	s.bootID = filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(s.bootID, []byte("the next\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Use("box", k); err == nil || !strings.Contains(err.Error(), "other contents") {
		t.Errorf("after a boot: %v", err)
	}
	poke("m")
	if _, err := s.Use("box", k); err != nil {
		t.Errorf("put right: %v", err)
	}
	poke("X")
	if _, err := s.Use("box", k); err != nil {
		t.Errorf("once verified: %v", err)
	}
}

// TestTwoMakers: one makes, the other waits for it or does not.
func TestTwoMakers(t *testing.T) {
	s, k := newStore(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := s.Make(context.Background(), "auto-1", k, false, func(dir string) error {
			close(begun)
			<-finish
			return save(dir)
		})
		first <- err
	}()
	<-begun
	never := func(string) error { t.Error("made twice"); return nil }
	if _, err := s.Make(t.Context(), "auto-1", k, false, never); !errors.Is(err, ErrBusy) {
		t.Errorf("not waiting: %v", err)
	}
	if _, err := s.Use("auto-1", k); !errors.Is(err, ErrNotExist) {
		t.Errorf("half-made: %v", err)
	}
	if got, err := s.Prune(); err != nil || got != nil {
		t.Errorf("prune: %v, %v", got, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Make(short, "auto-1", k, true, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting too long: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := s.Make(context.Background(), "auto-1", k, true, never)
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}

// killedEnv makes this test binary a maker that stops at a step and waits to be
// killed.
const killedEnv = "TEMPLATE_TEST_KILLED"

func TestMain(m *testing.M) {
	if at := os.Getenv(killedEnv); at != "" {
		fmt.Println(killedMain(at))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

type quiet struct{ testing.TB }

func (quiet) Helper()           {}
func (quiet) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// killedMain takes ROOT STEP.
func killedMain(arg string) error {
	root, step, _ := strings.Cut(arg, " ")
	at, err := strconv.Atoi(step)
	if err != nil {
		return err
	}
	s, err := New(root)
	if err != nil {
		return err
	}
	n := 0
	stop := func() {
		if n++; n == at {
			fmt.Println("here")
			select {}
		}
	}
	s.onStep = stop
	_, err = s.Make(context.Background(), "auto-1", testKey(quiet{}, filepath.Dir(root)), false, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, vmstate.MemoryFile), []byte("half"), 0o600); err != nil {
			return err
		}
		stop()
		_ = os.Remove(filepath.Join(dir, vmstate.MemoryFile))
		return save(dir)
	})
	return err
}

// TestKilledMaker: kill -9 between any two steps leaves what is not taken for a
// template, or a whole one, and nothing in the way of the next maker.
func TestKilledMaker(t *testing.T) {
	for step := 1; ; step++ {
		dir := t.TempDir()
		s, err := New(filepath.Join(dir, "templates"))
		if err != nil {
			t.Fatal(err)
		}
		k := testKey(t, dir)
		// What it replaces is refused.
		mustMake(t, s, "auto-1", k)
		if err := os.Remove(s.Dir("auto-1") + "/state"); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), killedEnv+"="+s.root+" "+strconv.Itoa(step))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var word string
		_, _ = fmt.Fscanln(out, &word)
		if word != "here" {
			_ = cmd.Wait()
			if word != "<nil>" || step < 6 {
				t.Fatalf("step %d: %q", step, word)
			}
			return
		}
		if _, err := s.Make(t.Context(), "auto-1", k, false, save); !errors.Is(err, ErrBusy) && err != nil {
			t.Errorf("step %d, alive: %v", step, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		before := names(t, s.root)
		_, err = s.Use("auto-1", k)
		var refused *Error
		if err != nil && !errors.Is(err, ErrNotExist) && !errors.As(err, &refused) {
			t.Errorf("step %d: %v", step, err)
		}
		if all, err := s.List(); err != nil || len(all) > 1 {
			t.Errorf("step %d: %+v, %v", step, all, err)
		}
		t.Logf("step %d: left %s (%v)", step, before, err)
		mustMake(t, s, "auto-1", k)
		if err := s.Verify("auto-1"); err != nil {
			t.Errorf("step %d: %v", step, err)
		}
		if _, err := s.Prune(); err != nil {
			t.Error(err)
		}
		if got := names(t, s.root); got != "auto-1" {
			t.Errorf("step %d: the store has %s", step, got)
		}
	}
}

// TestPrune: what nothing on this host can use goes, and so does what is left
// half-made; the rest stays. Automatic templates make room for themselves so.
func TestPrune(t *testing.T) {
	s, k := newStore(t)
	other := testKey(t, t.TempDir())
	mustMake(t, s, "good", k)
	mustMake(t, s, "stale", other)
	mustMake(t, s, "auto-stale", other)
	mustMake(t, s, "broken", k)
	if err := errors.Join(os.Remove(other.Kernel.Path), os.Truncate(s.Dir("broken")+"/meta.json", 3), os.Mkdir(s.root+"/.making-x", 0o700)); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, i := range all {
		if (i.Problem == "") != (i.Name == "good") {
			t.Errorf("%s: %q", i.Name, i.Problem)
		}
	}
	mustMake(t, s, "auto-new", k)
	if got := names(t, s.root); got != "auto-new broken good stale" {
		t.Errorf("after a new one: %s", got)
	}
	if err := os.Mkdir(s.root+"/.making-x", 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Prune(); err != nil || strings.Join(got, " ") != "broken stale" {
		t.Errorf("%v, %v", got, err)
	}
	if got := names(t, s.root); got != "auto-new good" {
		t.Errorf("left: %s", got)
	}
	for i := range maxAuto {
		_, err = s.Make(t.Context(), fmt.Sprintf("auto-%d", i), k, false, save)
	}
	if err == nil || !strings.Contains(err.Error(), "has 16 templates that made themselves already") {
		t.Errorf("one too many: %v", err)
	}
}

// TestRemoveLower: a host whose root is an overlay may have templates in its
// image.
func TestRemoveLower(t *testing.T) {
	s, k := newStore(t)
	mustMake(t, s, "one", k)
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "all"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	all := filepath.Join(dir, "all")
	if err := unix.Mount("overlay", all, "overlay", 0, "lowerdir="+s.root+",upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(all, 0); err != nil {
			t.Error(err)
		}
	}()
	merged, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := merged.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if left := names(t, all); left != "" {
		t.Errorf("left: %s", left)
	}
	mustMake(t, merged, "one", k)
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "auto-0123", "A.b_c-9", strings.Repeat("x", maxName)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".making-x", "-a", "a/b", "a b", "é", "a\n", "auto", "off", strings.Repeat("x", maxName+1)} {
		if err := CheckName(bad); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"auto", "off", "box"} {
		if err := CheckChoice(good); err != nil {
			t.Error(err)
		}
	}
}

// TestKeyName: the name depends on everything but where files lie.
func TestKeyName(t *testing.T) {
	_, k := newStore(t)
	name := k.Name()
	if CheckName(name) != nil || !strings.HasPrefix(name, autoPrefix) {
		t.Errorf("name %q", name)
	}
	moved := *k
	moved.Kernel.Path = "/elsewhere"
	if moved.Name() != name || moved.differs(k) != "" {
		t.Error("a path changes the key")
	}
	k.VCPUs++
	if k.Name() == name {
		t.Error("vCPUs do not change the name")
	}
}

func TestHost(t *testing.T) {
	h, err := ThisHost()
	if err != nil || h.Kernel == "" || h.CPU == "" || h.Features == "" {
		t.Errorf("%+v, %v", h, err)
	}
	var a, b Host
	text := "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\ncpu MHz\t: %s\nflags\t\t: fpu vme\n\nprocessor\t: 1\nmodel\t: 7\n"
	a.parseCPUInfo(fmt.Sprintf(text, "2000"))
	b.parseCPUInfo(fmt.Sprintf(text, "3000"))
	if a != b || a.CPU != "GenuineIntel, model 85" {
		t.Errorf("%+v, %+v", a, b)
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/kvm", 0o755), os.Mkdir(dir+"/kvm_amd", 0o755), os.WriteFile(dir+"/kvm_amd/srcversion", []byte("ABC\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := kvmModules(dir); got != "kvm, kvm_amd ABC" {
		t.Errorf("%q", got)
	}
}

// TestDigest: holes and zeros are alike; size, contents and their place count.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	sum := func(name string, write func(f *os.File) error) string {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := write(f); err != nil {
			t.Fatal(err)
		}
		d, err := digest(f)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	put := func(at, size int64) func(f *os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteAt([]byte("data"), at)
			return errors.Join(err, f.Truncate(size))
		}
	}
	const mib = 1 << 20
	sparse := sum("sparse", put(3*block+5, mib))
	full := sum("full", func(f *os.File) error {
		_, err := f.Write(make([]byte, mib))
		return errors.Join(err, put(3*block+5, mib)(f))
	})
	if sparse != full {
		t.Error("holes count")
	}
	for name, other := range map[string]string{
		"moved":  sum("moved", put(4*block+5, mib)),
		"longer": sum("longer", put(3*block+5, mib+block)),
		"odd":    sum("odd", put(3*block+5, mib+1)),
		"empty":  sum("empty", func(f *os.File) error { return f.Truncate(mib) }),
	} {
		if other == sparse {
			t.Errorf("%s: the same digest", name)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "sparse"))
	if err != nil || info.Sys().(*syscall.Stat_t).Blocks > 1024 {
		t.Errorf("%v, %v: the hash filled the holes", info, err)
	}
}
