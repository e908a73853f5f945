package kernel

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestKey(t *testing.T) {
	base := Inputs{Source: "s", Options: []Option{{"CONFIG_A", "y", "why", "a:1"}}, Toolchain: "t", Recipe: "1"}
	key := base.Key()
	if len(key) != 32 || strings.Trim(key, "0123456789abcdef") != "" {
		t.Errorf("key %q is not 32 hex digits", key)
	}
	same := base
	same.Options = []Option{{"CONFIG_A", "y", "other reason", "b:9"}}
	if same.Key() != key {
		t.Error("a note or a place changed the key")
	}
	for name, change := range map[string]func(*Inputs){
		"source":    func(in *Inputs) { in.Source = "s2" },
		"toolchain": func(in *Inputs) { in.Toolchain = "t2" },
		"recipe":    func(in *Inputs) { in.Recipe = "2" },
		"value":     func(in *Inputs) { in.Options = []Option{{"CONFIG_A", "n", "why", "a:1"}} },
		"name":      func(in *Inputs) { in.Options = []Option{{"CONFIG_B", "y", "why", "a:1"}} },
		"order":     func(in *Inputs) { in.Options = append(in.Options, Option{Name: "CONFIG_B", Value: "y"}) },
		"skip":      func(in *Inputs) { in.Skips = []Skip{{"f", "why"}} },
		"shift":     func(in *Inputs) { in.Source, in.Toolchain = "st", "" },
	} {
		in := base
		change(&in)
		if in.Key() == key {
			t.Errorf("a change of %s kept the key", name)
		}
	}
}

// fakeEntry makes a finished cache entry for c and returns it.
func fakeEntry(t *testing.T, c Config) string {
	t.Helper()
	if err := c.defaults(); err != nil {
		t.Fatal(err)
	}
	key, err := c.key(context.Background())
	if err != nil {
		t.Skipf("%v; try: apt-get install gcc binutils", err)
	}
	entry := filepath.Join(c.Cache, key)
	if err := os.MkdirAll(entry, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range results {
		if err := os.WriteFile(filepath.Join(entry, name), []byte("built "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return entry
}

func testConfig(t *testing.T) (Config, *bytes.Buffer) {
	t.Helper()
	source := filepath.Join(t.TempDir(), "linux.tar.xz")
	if err := os.WriteFile(source, []byte("not a tarball"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkTools(source); err != nil {
		t.Skip(err)
	}
	var log bytes.Buffer
	return Config{Source: source, Cache: t.TempDir(), Out: filepath.Join(t.TempDir(), "out"), Log: &log}, &log
}

func TestBuildFromCache(t *testing.T) {
	c, log := testConfig(t)
	want := fakeEntry(t, c)
	got, err := Build(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("entry %s, want %s", got, want)
	}
	if !strings.Contains(log.String(), "cached") {
		t.Errorf("log %q", log)
	}
	for name := range results {
		data, err := os.ReadFile(filepath.Join(c.Out, name))
		if err != nil || string(data) != "built "+name {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

func TestBuildFailureLeavesNothing(t *testing.T) {
	c, _ := testConfig(t)
	// An entry that lacks a file is none: Build compiles, and this source fails.
	if err := os.Remove(filepath.Join(fakeEntry(t, c), "System.map")); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), c); err == nil {
		t.Fatal("Build of something that is no tarball succeeded")
	}
	if _, err := os.Stat(c.Out); !os.IsNotExist(err) {
		t.Errorf("output directory: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(c.Cache, "build-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestBuildWaitsForLock(t *testing.T) {
	c, log := testConfig(t)
	lock, err := os.OpenFile(filepath.Join(c.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Build(context.Background(), c)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("Build did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	fakeEntry(t, c) // the other process finishes
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := "kernel: waiting for another build to end\n"; !strings.HasPrefix(log.String(), want) {
		t.Errorf("log %q, want %q first", log, want)
	}
}

func TestCacheDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/x")
	t.Setenv("LUCID_CACHE", "")
	for _, tt := range []struct{ set, want string }{{"", "/x/lucid/kernel"}, {"/c", "/c/kernel"}} {
		t.Setenv("LUCID_CACHE", tt.set)
		got, err := CacheDir()
		if err != nil || got != tt.want {
			t.Errorf("LUCID_CACHE=%q: %q, %v, want %q", tt.set, got, err, tt.want)
		}
	}
}

func TestProgressCountsWholeLines(t *testing.T) {
	var log bytes.Buffer
	p := startProgress(&log)
	for _, s := range []string{"  CC      a.o\n  CC ", "     b.o\n", "  LD      vm"} {
		if n, err := p.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	p.stop()
	if want := "kernel:    0 s, 2 files, CC b.o\n"; log.String() != want {
		t.Errorf("report %q, want %q", log.String(), want)
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := checkTools(DefaultSource)
	if err == nil {
		t.Fatal("no tool in the PATH, yet none is missed")
	}
	if diff := cmp.Diff(1, strings.Count(err.Error(), "apt-get install")); diff != "" || !strings.Contains(err.Error(), "flex bison") {
		t.Errorf("message %q", err)
	}
}
