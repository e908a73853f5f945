// Package arch checks who imports whom: docs/architecture.md says why each rule stands.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/lucid-containers/lucid/"

// listed is the part of `go list -deps -json` that the rules need.
type listed struct {
	ImportPath string
	Name       string
	Imports    []string
	Deps       []string
	CgoFiles   []string
	Module     *struct{ Path string }
}

func (p listed) ours() bool { return strings.HasPrefix(p.ImportPath, module) }

// rel is the import path below the module, "kvm" or "devices/bus".
func rel(path string) string { return strings.TrimPrefix(path, module) }

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Imports,Deps,CgoFiles,Module", module+"...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// under reports whether path is dir or lies below it.
func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// leaves import nothing of ours but what lies below them.
var leaves = []string{
	"kvm", "internal/guestmem", "internal/eventfd", "internal/wire", "internal/control", "internal/oci",
	"p9server/p9", "devices/bus",
}

// forbidden says which package trees must not depend, even indirectly, on which others.
var forbidden = []struct {
	from, to, why string
}{
	{"devices", "kvm", "a device does not know what drives it"},
	{"devices", "vmm", "a device does not know what drives it"},
	{"devices", "p9server", "the transport of 9P knows no files"},
	{"p9server", "devices", "the 9P server knows no virtio"},
	{"vmm", "devices/virtio", "vmm is handed a list; it knows no concrete device"},
	{"vmm", "p9server", "vmm is handed a list; it knows no concrete device"},
	{"kvm", "vmm", "arrows point down"},
	{"internal/runtime", "vmm", "the lifecycle on disk links no VMM: the command line must start quickly"},
}

func TestImportRules(t *testing.T) {
	for _, p := range list(t) {
		if !p.ours() {
			continue
		}
		path := rel(p.ImportPath)
		for _, leaf := range leaves {
			if path != leaf {
				continue
			}
			for _, d := range p.Imports {
				if strings.HasPrefix(d, module) && !under(rel(d), leaf) {
					t.Errorf("%s imports %s: it must import nothing of ours", path, rel(d))
				}
			}
		}
		for _, f := range forbidden {
			if !under(path, f.from) {
				continue
			}
			for _, d := range p.Deps {
				if strings.HasPrefix(d, module) && under(rel(d), f.to) {
					t.Errorf("%s depends on %s: %s", path, rel(d), f.why)
				}
			}
		}
		if under(path, "agent") || path == "cmd/lucid-agent" {
			checkAgent(t, p, path)
		}
		checkThirdParty(t, p, path)
	}
}

// shared is what the guest side may use beside its own packages: what it speaks with the host, and the counting of
// boots, which runs in guests only.
var shared = map[string]bool{"internal/wire": true, "guest/bootcount": true}

// checkAgent keeps host packages out of the guest.
func checkAgent(t *testing.T, p listed, path string) {
	t.Helper()
	for _, d := range p.Deps {
		if strings.HasPrefix(d, module) && !under(rel(d), "agent") && !shared[rel(d)] {
			t.Errorf("%s depends on %s: the agent shares only %v with the host", path, rel(d), shared)
		}
	}
}

// checkThirdParty keeps heavy modules out of the programs that start often.
func checkThirdParty(t *testing.T, p listed, path string) {
	t.Helper()
	if p.Name != "main" {
		return
	}
	for _, d := range p.Deps {
		switch {
		case d == "net/http" && path != "cmd/lucid-bench" && !under(path, "test"):
			t.Errorf("%s links net/http: only cmd/lucid-bench and programs of test may (it triples the resident size)", path)
		case (strings.Contains(d, "ttrpc") || strings.Contains(d, "protobuf") || strings.HasPrefix(d, "github.com/containerd/containerd")) &&
			path != "cmd/containerd-shim-lucid-v2":
			t.Errorf("%s links %s: only the shim may", path, d)
		}
	}
}

// TestNoCgo: a static program for every Debian, and one that seccomp filters can describe.
func TestNoCgo(t *testing.T) {
	for _, p := range list(t) {
		if p.ours() && len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo in %v", rel(p.ImportPath), p.CgoFiles)
		}
	}
}

// TestPackageNames refuses the names that say nothing.
func TestPackageNames(t *testing.T) {
	empty := map[string]bool{"util": true, "utils": true, "common": true, "pkg": true, "types": true, "manager": true, "helpers": true}
	for _, p := range list(t) {
		if p.ours() && empty[p.Name] {
			t.Errorf("%s: a package called %q says nothing", rel(p.ImportPath), p.Name)
		}
	}
}
