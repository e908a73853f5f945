package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/template"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

// startsEnv names a file that each fake sandbox process adds a line to.
const startsEnv = "FAKE_STARTS"

func noteStart(l control.Launch) {
	path := os.Getenv(startsEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	word := "boot"
	switch {
	case l.MakeTemplate != "":
		word = "make"
	case l.Template != "":
		word = "restore"
	}
	_, _ = fmt.Fprint(f, word, " ")
}

// save is the fake's way to make a template.
func (f *fake) save(dir string) int {
	for _, file := range []string{vmstate.MemoryFile, vmstate.StateFile} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("saved"), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if f.is(fakeNoSave) {
			fmt.Fprintln(os.Stderr, "a word before\nlucid: /dev/kvm: no such device")
			return 1
		}
	}
	if f.is(fakeFixed) {
		if err := os.WriteFile(filepath.Join(dir, vmstate.FixedFile), nil, 0o600); err != nil {
			return 1
		}
	}
	if f.is(fakeSlowSave) {
		select {}
	}
	return 0
}

// templates is a world whose containers may begin from templates.
type templates struct {
	*world
	starts string
	cfg    runtime.CreateConfig
}

func newTemplates(t *testing.T, behave ...string) *templates {
	t.Helper()
	starts := filepath.Join(t.TempDir(), "starts")
	w := &templates{world: newWorld(t, startsEnv+"="+starts), starts: starts}
	cfg, err := config("c", w.bundle, behave...)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = cfg
	for name, path := range map[string]*string{"vmlinux": &w.cfg.Kernel, "initramfs": &w.cfg.Initramfs} {
		*path = filepath.Join(w.bundle, name)
		if err := os.WriteFile(*path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// run creates and deletes a container, and tells which sandbox processes there
// were.
func (w *templates) run(choice string) (string, error) {
	w.t.Helper()
	_ = os.Remove(w.starts)
	cfg := w.cfg
	cfg.Template = choice
	_, err := w.rt.Create(w.t.Context(), cfg)
	if err == nil {
		err = w.rt.Delete(cfg.ID, true)
	}
	w.wantNothing(cfg.ID)
	data, _ := os.ReadFile(w.starts)
	return strings.TrimSpace(string(data)), err
}

func (w *templates) want(choice, starts string) {
	w.t.Helper()
	if got, err := w.run(choice); err != nil || got != starts {
		w.t.Errorf("%s: %q, %v, want %q", choice, got, err, starts)
	}
}

func (w *templates) dir() string { return filepath.Join(filepath.Dir(w.root), "templates") }

func TestTemplateChoice(t *testing.T) {
	w := newTemplates(t)
	w.want("", "boot")
	w.want("off", "boot")
	if _, err := os.Stat(w.dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store that nobody asked for: %v", err)
	}
	w.want("auto", "make restore")
	w.want("auto", "restore") // as many processes as a boot
	// One serves all sizes, but smaller ones.
	w.cfg.Plan.VM.Memory, w.cfg.Plan.VM.VCPUs = 2*oci.DefaultMemory, 3
	w.want("auto", "restore")
	w.cfg.Plan.VM.Memory, w.cfg.Plan.VM.VCPUs = oci.DefaultMemory/2, 2
	w.want("auto", "make restore")
	w.want("auto", "restore")
	w.cfg.Plan.VM.Memory, w.cfg.Plan.VM.VCPUs = oci.DefaultMemory, 1

	if starts, err := w.run("box"); !errors.Is(err, template.ErrNotExist) || starts != "" {
		t.Errorf("a name that nobody made: %q, %v", starts, err)
	}
	if starts, err := w.run("../x"); err == nil || starts != "" {
		t.Errorf("no name: %q, %v", starts, err)
	}
	dir, err := w.rt.MakeTemplate(t.Context(), "box", w.cfg)
	if err != nil || dir != filepath.Join(w.dir(), "box") {
		t.Fatalf("%s, %v", dir, err)
	}
	w.want("box", "restore")
	w.cfg.Plan.VM.VCPUs++
	w.want("box", "restore")
	w.cfg.Plan.VM.Memory /= 2
	w.want("box", "boot") // for another VM
	if _, err := w.rt.MakeTemplate(t.Context(), "box", w.cfg); err == nil || !strings.Contains(err.Error(), `it has 128 MiB, not 64`) {
		t.Errorf("made for another VM: %v", err)
	}
	if _, err := w.rt.MakeTemplate(t.Context(), "auto", w.cfg); err == nil || !strings.Contains(err.Error(), "no name of a template") {
		t.Errorf("a word for a name: %v", err)
	}
}

// TestTemplateFixed: where a template serves one size, each size has its own.
func TestTemplateFixed(t *testing.T) {
	w := newTemplates(t, fakeFixed)
	w.want("auto", "make restore")
	w.cfg.Plan.VM.Memory *= 2
	w.want("auto", "make restore")
	w.want("auto", "restore")
	w.cfg.Plan.VM.VCPUs = 2
	w.want("auto", "make restore")
	w.want("auto", "restore")
	dir, err := w.rt.MakeTemplate(t.Context(), "", w.cfg)
	if all, _ := os.ReadDir(w.dir()); err != nil || len(all) != 3 || !strings.Contains(dir, "/auto-") {
		t.Errorf("%s, %v, %v", dir, err, all)
	}
}

// TestTemplateRefused: a spoilt template is a boot if it has a name, and made
// anew if it made itself.
func TestTemplateRefused(t *testing.T) {
	w := newTemplates(t)
	box, err1 := w.rt.MakeTemplate(t.Context(), "box", w.cfg)
	auto, err2 := w.rt.MakeTemplate(t.Context(), "", w.cfg)
	if err := errors.Join(err1, err2, os.Remove(box+"/state"), os.Remove(auto+"/state")); err != nil {
		t.Fatal(err)
	}
	w.want("box", "boot")
	w.want("auto", "make restore")
	w.want("auto", "restore")
	if err := os.WriteFile(w.cfg.Kernel, []byte("another kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want("auto", "make restore") // of another key
	if err := os.Chmod(w.dir(), 0o777); err != nil {
		t.Fatal(err)
	}
	w.want("auto", "boot")
	w.cfg.Plan.VM.Transport = oci.TransportSerial
	w.want("auto", "boot")
	w.cfg.Plan.VM.Transport, w.cfg.Plan.VM.DebugUART = oci.TransportVsock, true
	w.want("auto", "boot")
}

// TestTemplateRestoreFails: the sandbox process that could not restore is
// followed by one that boots. If the template is spoilt, in a way that its
// identity does not show, it is made anew the next time.
func TestTemplateRestoreFails(t *testing.T) {
	w := newTemplates(t, fakeNoRestore)
	w.want("auto", "make restore boot")
	w.want("auto", "restore boot")

	found, err := filepath.Glob(filepath.Join(w.dir(), "auto-*", vmstate.StateFile))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(found[0], 0o600), os.WriteFile(found[0], []byte("SAVED"), 0), os.Chmod(found[0], 0o400),
		os.Chtimes(found[0], info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	w.want("auto", "restore boot")
	w.want("auto", "make restore boot")
}

func TestTemplateCannotBeMade(t *testing.T) {
	w := newTemplates(t, fakeNoSave)
	w.want("auto", "make boot")
	if _, err := w.rt.MakeTemplate(t.Context(), "box", w.cfg); err == nil || err.Error() != "saving a VM: /dev/kvm: no such device" {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(w.dir()); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestTemplateBeingMade: whoever comes meanwhile boots, and an interrupted maker
// leaves nothing.
func TestTemplateBeingMade(t *testing.T) {
	w := newTemplates(t, fakeSlowSave)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	cfg := w.cfg
	cfg.ID, cfg.Template = "first", template.Auto
	go func() {
		_, err := w.rt.Create(ctx, cfg)
		first <- err
	}()
	eventually(t, "the maker begins", func() bool {
		data, _ := os.ReadFile(w.starts)
		return string(data) == "make "
	})
	w.want("auto", "boot")
	cancel()
	select {
	case err := <-first:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the maker goes on")
	}
	w.wantNothing("first")
	if entries, err := os.ReadDir(w.dir()); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestTemplateFromEnv(t *testing.T) {
	for word, want := range map[string]string{"": "off", "auto": "auto", "box": "box"} {
		t.Setenv(runtime.TemplateEnv, word)
		if got, err := runtime.TemplateFromEnv(); got != want || err != nil {
			t.Errorf("%q: %q, %v", word, got, err)
		}
	}
	t.Setenv(runtime.TemplateEnv, "../x")
	if _, err := runtime.TemplateFromEnv(); err == nil || !strings.HasPrefix(err.Error(), `$LUCID_TEMPLATE: "../x" is no name`) {
		t.Errorf("%v", err)
	}
	t.Setenv("HOME", "/h")
	t.Setenv("XDG_DATA_HOME", "")
	want := map[bool]string{true: "/var/lib/lucid/templates", false: "/h/.local/share/lucid/templates"}[os.Geteuid() == 0]
	if got := runtime.DefaultTemplates(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
