package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/template"
)

// templateInputs are templates that are none, and words that name none.
func templateInputs() []badInput {
	const dir = "--template-dir BUNDLE/templates "
	spoil := func(do func(store string) error) func(*testing.T, string) {
		return func(t *testing.T, bundle string) {
			storeTemplate(t, filepath.Join(bundle, "templates"), "box")
			if err := do(filepath.Join(bundle, "templates")); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothing := spoil(func(string) error { return nil })
	return []badInput{
		{name: "template nosuch", args: "template nosuch", code: 1, want: `no such command: "nosuch"`, runc: none},
		{name: "template create two", args: "template create a b", code: 1, want: `"create" requires a maximum of 1 argument(s)`, runc: none},
		{name: "template list one", args: "template list a", code: 1, want: `"list" requires exactly 0 argument(s)`, runc: none},
		{name: "template show none", args: "template show", code: 1, want: `"show" requires exactly 1 argument(s)`, runc: none},
		{name: "template remove none", args: "template remove", code: 1, want: `"remove" requires a minimum of 1 argument(s)`, runc: none},
		{name: "template prune one", args: "template prune a", code: 1, want: `"prune" requires exactly 0 argument(s)`, runc: none},
		{name: "template flag", args: "template create --nosuch", code: 1, want: "flag provided but not defined: -nosuch", runc: none},
		{name: "template create memory word", args: "template create --memory lots", code: 1, want: `--memory: "lots" is not a size`, runc: none},
		{name: "template create little memory", args: "template create --memory 1m", code: 1, want: "--memory: 1048576 bytes is outside", runc: none},
		{name: "template create vcpus", args: "template create --vcpus 9", code: 1, want: "--vcpus: 9 is outside 1 to 8", runc: none},
		{name: "template create negative vcpus", args: "template create --vcpus -1", code: 1, want: "--vcpus: -1 is outside 1 to 8", runc: none},
		{name: "template create auto", args: "template create --kernel FILE --initramfs FILE auto", code: 1, want: `"auto" is no name of a template`, runc: none},
		{name: "template create path", args: "template create --kernel FILE --initramfs FILE ../x", code: 1, want: `"../x" is no name of a template`, runc: none},
		{name: "template create kernel", args: "template create --kernel /no/such", code: 1, want: "--kernel: open /no/such: no such file", runc: none},
		{name: "template create serial", args: "--transport serial template create --kernel FILE --initramfs FILE", code: 1, want: "only be saved with the transport vsock", runc: none},
		{name: "template show of nothing", args: dir + "template show box", code: 1, want: "template does not exist: ", runc: none},
		{name: "template verify of nothing", args: dir + "template verify box", code: 1, want: "template does not exist: ", runc: none},
		{name: "template remove of nothing", args: dir + "template remove box", code: 1, want: "template does not exist: ", runc: none},
		{name: "template show of a path", args: dir + "template show a/b", code: 1, want: `"a/b" is no name of a template`, runc: none},
		{name: "template list format", args: "template list -f xml", code: 1, want: "invalid format option", runc: none},
		{name: "template remove half", args: dir + "template remove box other", code: 1, want: "/other", prepare: nothing, runc: none},
		{name: "template verify written", args: dir + "template verify", code: 1, want: "templates/box/memory: has 9 bytes, not 6", runc: none, prepare: spoil(func(store string) error {
			return errors.Join(os.Remove(store+"/box/memory"), os.WriteFile(store+"/box/memory", []byte("corrupted"), 0o400))
		})},
		{name: "template loose", args: dir + "template list", code: 1, want: "templates: has mode 0755: others can get at it", prepare: spoil(func(store string) error { return os.Chmod(store, 0o755) }), runc: none},
		{name: "template dir a file", args: "--template-dir FILE template list", code: 1, want: "file: is not a directory", runc: none},
		{name: "create from path", args: "create --template ../x ID", code: 1, want: `--template: "../x" is no name of a template`, runc: none},
		{name: "create from nothing", args: dir + "create --kernel FILE --initramfs FILE --template box ID", code: 1, want: "template does not exist: ", runc: none},
		{name: "annotation template", args: "create ID", from: `"mounts": [`, to: `"annotations": {"lucid.template": "box"}, "mounts": [`, code: 1, want: `annotations[lucid.template]: "box" is neither auto nor off`, runc: none},
	}
}

// storeTemplate makes one without a VM.
func storeTemplate(t *testing.T, store, name string) {
	t.Helper()
	s, err := template.New(store)
	if err != nil {
		t.Fatal(err)
	}
	key := &template.Key{Memory: oci.DefaultMemory, VCPUs: 1, Transport: oci.TransportVsock}
	if key.Host, err = template.ThisHost(); err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(filepath.Dir(store), "vmlinux-"+name)
	if err := os.WriteFile(kernel, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, f := range map[string]*template.File{"/proc/self/exe": &key.Program, kernel: &key.Kernel, "/dev/null": &key.Initramfs} {
		if *f, err = template.FileOf(path); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Make(t.Context(), name, key, true, func(dir string) error {
		return errors.Join(os.WriteFile(dir+"/memory", []byte("memory"), 0o600), os.WriteFile(dir+"/state", []byte("state"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTemplateCommands: what list, show, verify, remove and prune print.
func TestTemplateCommands(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "templates")
	do := func(args ...string) string {
		t.Helper()
		r := lucid(t, dir, append([]string{"--template-dir", "templates", "template"}, args...)...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%v: %d, %s", args, r.code, r.stderr)
		}
		return r.stdout
	}
	const head = "NAME        MEMORY      VCPUS       DISK        CREATED     PROBLEM\n"
	if out := do("list"); out != head {
		t.Errorf("none: %q", out)
	}
	if out := do("list", "-f", "json") + do("prune") + do("verify"); out != "null\n" {
		t.Errorf("none: %q", out)
	}
	storeTemplate(t, store, "a")
	storeTemplate(t, store, "b")
	if err := os.Truncate(store+"/b/meta.json", 0); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(do("list"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "a           128 MiB     1 ") || !strings.HasSuffix(lines[1], " -") ||
		!strings.HasPrefix(lines[2], "b           -           - ") || !strings.HasSuffix(lines[2], "templates/b/meta.json: unexpected end of JSON input") {
		t.Errorf("%q", lines)
	}
	if out := do("list", "-q"); out != "a\nb\n" {
		t.Errorf("%q", out)
	}
	var one template.Info
	if err := json.Unmarshal([]byte(do("show", "a")), &one); err != nil || one.Name != "a" || one.Key.VCPUs != 1 || one.Problem != "" || len(one.Memory.SHA256) != 64 {
		t.Errorf("%+v, %v", one, err)
	}
	if r := lucid(t, dir, "--template-dir", "templates", "template", "verify"); r.code != 1 || r.stdout != "a: ok\n" || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	if out := do("prune"); out != "b\n" {
		t.Errorf("%q", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinux-a"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := do("list"); !strings.Contains(out, "vmlinux-a has changed since\n") {
		t.Errorf("%q", out)
	}
	if out := do("remove", "a") + do("list", "-q"); out != "" {
		t.Errorf("%q", out)
	}
}

// TestTemplateCreateFails: without a KVM, or without a kernel that is one, there
// is one line, and nothing in the store.
func TestTemplateCreateFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := lucid(t, dir, "--template-dir", "templates", "template", "create", "--kernel", "file", "--initramfs", "file", "box")
	if r.code != 1 || r.stdout != "" || !strings.HasPrefix(r.stderr, "lucid: saving a VM: ") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "templates")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
