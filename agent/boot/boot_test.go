package boot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

func TestParseOptions(t *testing.T) {
	for line, want := range map[string]Options{
		"":                           {},
		"console=hvc0 quiet\n":       {},
		"a lucid.transport=serial b": {Serial: true},
		"lucid.transport=serial lucid.transport=vsock": {},
		"lucid.debug lucid.count":                      {Debug: true, Count: true},
		"lucid.debug=1 lucid.unknown":                  {},
		"xlucid.debug":                                 {},
	} {
		if got, err := parseOptions([]byte(line)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	if _, err := parseOptions([]byte("lucid.transport=pigeon")); err == nil {
		t.Error("an unknown transport was accepted")
	}
}

// addPort makes a port as sysfs shows it.
func addPort(t *testing.T, dir, port, name, dev string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, port), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"name": name, "dev": dev} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, port, file), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindPort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "virtio-ports")
	if _, err := findPort(dir, "b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no class: %v", err)
	}
	addPort(t, dir, "vport0p0", "", "250:0")
	addPort(t, dir, "vport0p1", "a", "250:1")
	if _, err := findPort(dir, "b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no port: %v", err)
	}
	addPort(t, dir, "vport0p2", "b", "250:300")
	if got, err := findPort(dir, "b"); err != nil || got != unix.Mkdev(250, 300) {
		t.Errorf("%#x, %v", got, err)
	}
	addPort(t, dir, "vport0p3", "c", "250")
	if _, err := findPort(dir, "c"); err == nil {
		t.Error("a bad device number was accepted")
	}
}

func TestSharePathRefusesNames(t *testing.T) {
	var s Share
	for _, name := range []string{"", ".", "..", "a/b", "/", "../etc", "a\x00"} {
		if p, err := s.Path(name); err == nil {
			t.Errorf("%q: %s", name, p)
		}
	}
}

func TestShareMountArgs(t *testing.T) {
	for _, c := range []struct {
		opts      wire.Share
		tag, data string
	}{
		{wire.Share{}, "lucid", "trans=virtio,version=9p2000.L,access=client,cache=mmap,msize=512000"},
		{
			wire.Share{Tag: "t", Cache: "none", MSize: 8192, Options: "posixacl"},
			"t", "trans=virtio,version=9p2000.L,access=client,cache=none,msize=8192,posixacl",
		},
	} {
		if tag, data := shareMountArgs(c.opts); tag != c.tag || data != c.data {
			t.Errorf("%+v: %s %s", c.opts, tag, data)
		}
	}
}

// struct rand_pool_info { int entropy_count; int buf_size; __u32 buf[]; }
func TestRandPoolInfo(t *testing.T) {
	if got := randPoolInfo([]byte{9, 8, 7}); !bytes.Equal(got, []byte{24, 0, 0, 0, 3, 0, 0, 0, 9, 8, 7}) {
		t.Errorf("%v", got)
	}
}

func TestHelloSaysWhatThisIs(t *testing.T) {
	h := hello()
	if h.Version != wire.Version || h.Kernel == "" || h.UptimeNS <= 0 {
		t.Errorf("%+v", h)
	}
}

// TestScale: limits follow the memory; what means "none" stays.
func TestScale(t *testing.T) {
	for in, want := range map[string]string{
		"899\n":                 "1798",
		"1310\t1747\t2620\n":    "2620 3494 5240",
		"9223372036854775807\n": "9223372036854775807",
		"1000000000\n":          "1073741824", // has to fit into 32 bits
		"no number":             "no number",
	} {
		if got := scale(in, 1<<27, 1<<28); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
