package runtime

// Where a VM begins: it boots, or goes on from a template (internal/template).
//
//	Create ── chooseTemplate: off ─────────────────────────▶ boot
//	            NAME ── fit for this VM? ── yes ───────────▶ restore ── KindTemplate ──▶ boot
//	                        └── no: one line in the log ───▶ boot
//	            auto ── as NAME; missing or refused: this process makes it,
//	                    unless another one is at it ───────▶ boot
//
// After a KindTemplate the template's hashes are compared: if it is spoilt, the next one
// finds it refused.
//
// A restore costs no process more than a boot: the sandbox process gets a
// directory with its configuration. Making one is a sandbox process of its own.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/template"
)

// makeTimeout is for a boot on software KVM and for writing it down.
const makeTimeout = 6 * time.Minute

// DefaultTemplates is Config.Templates outside of tests: root's, or in the
// user's data directory (XDG base directory specification). What one user's
// VMs share, no other's do.
func DefaultTemplates() string {
	if os.Geteuid() == 0 {
		return "/var/lib/lucid/templates"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lucid/templates")
	}
	return filepath.Join(os.Getenv("HOME"), ".local/share/lucid/templates")
}

// TemplateEnv is the environment's word for CreateConfig.Template, where
// neither a flag nor an annotation has one.
const TemplateEnv = "LUCID_TEMPLATE"

// TemplateFromEnv reads TemplateEnv.
func TemplateFromEnv() (string, error) {
	word := os.Getenv(TemplateEnv)
	if word == "" {
		return template.Off, nil
	}
	if err := template.CheckChoice(word); err != nil {
		return "", fmt.Errorf("$%s: %w", TemplateEnv, err)
	}
	return word, nil
}

// chooseTemplate returns the directory to begin from; empty: boot. Only a
// name that is none, or that no template has, is an error.
func (r *Runtime) chooseTemplate(ctx context.Context, cfg *CreateConfig) (string, error) {
	word := cfg.Template
	if word == "" || word == template.Off {
		return "", nil
	}
	if err := template.CheckChoice(word); err != nil {
		return "", err
	}
	dir, err := r.findTemplate(ctx, word, cfg)
	switch {
	case err == nil:
		return dir, nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case word != template.Auto && errors.Is(err, template.ErrNotExist):
		return "", err
	case errors.Is(err, template.ErrBusy):
		r.log.Info("booting: " + err.Error())
	default:
		r.log.Warn("booting: the template is of no use: " + err.Error())
	}
	return "", nil
}

func (r *Runtime) findTemplate(ctx context.Context, word string, cfg *CreateConfig) (string, error) {
	store, key, err := r.templateKey(cfg)
	if err != nil {
		return "", err
	}
	if word != template.Auto {
		return store.Use(word, key)
	}
	return r.autoTemplate(ctx, store, key, false, cfg)
}

// autoTemplate returns the template that serves VMs of this key: the smallest one,
// from which all sizes go on, or, if the guest's kernel cannot grow, one of exactly
// this size.
func (r *Runtime) autoTemplate(ctx context.Context, store *template.Store, key *template.Key, wait bool, cfg *CreateConfig) (string, error) {
	small := *key
	small.Memory, small.VCPUs = min(key.Memory, oci.DefaultMemory), oci.DefaultVCPUs
	dir, err := store.Use(small.Name(), key)
	if usable := err == nil || errors.Is(err, template.ErrSize); !usable {
		if err := r.makeAuto(ctx, store, &small, err, wait, cfg); err != nil {
			return "", err
		}
		dir, err = store.Use(small.Name(), key)
	}
	if !errors.Is(err, template.ErrSize) {
		return dir, err
	}
	if _, err = store.Use(key.Name(), key); err != nil {
		err = r.makeAuto(ctx, store, key, err, wait, cfg)
	}
	return store.Dir(key.Name()), err
}

// makeAuto makes the template of a key; why says what is wrong with the one that is
// there.
func (r *Runtime) makeAuto(ctx context.Context, store *template.Store, key *template.Key, why error, wait bool, cfg *CreateConfig) error {
	var refused *template.Error
	switch {
	case errors.As(why, &refused):
		r.log.Warn("making the template anew: " + why.Error())
	case errors.Is(why, template.ErrNotExist):
		r.log.Info("making the template " + store.Dir(key.Name()))
	default:
		return why
	}
	_, err := r.makeTemplate(ctx, store, key.Name(), key, wait, cfg)
	return err
}

// MakeTemplate makes a template for VMs like cfg's, of which it reads
// Plan.VM, Kernel, Initramfs and where to log, unless there is one. Without a name
// it is the one that auto uses for such a VM, which may be a smaller one; with a
// name it has this size. It waits for whoever else is making one, and returns the
// template's directory.
func (r *Runtime) MakeTemplate(ctx context.Context, name string, cfg CreateConfig) (string, error) {
	store, key, err := r.templateKey(&cfg)
	if err != nil {
		return "", err
	}
	if name == "" {
		return r.autoTemplate(ctx, store, key, true, &cfg)
	}
	if err := template.CheckName(name); err != nil {
		return "", err
	}
	return r.makeTemplate(ctx, store, name, key, true, &cfg)
}

func (r *Runtime) makeTemplate(ctx context.Context, store *template.Store, name string, key *template.Key, wait bool, cfg *CreateConfig) (string, error) {
	vm := cfg.Plan.VM
	vm.Memory, vm.VCPUs = key.Memory, key.VCPUs
	return store.Make(ctx, name, key, wait, func(dir string) error { return r.saveVM(ctx, dir, vm, cfg) })
}

// templateKey looks at what a template for this VM depends on.
func (r *Runtime) templateKey(cfg *CreateConfig) (*template.Store, *template.Key, error) {
	vm := cfg.Plan.VM
	switch {
	case vm.Transport != oci.TransportVsock:
		return nil, nil, errors.New("a VM can only be saved with the transport vsock")
	case vm.DebugUART:
		return nil, nil, errors.New("a VM with a UART for debugging cannot be saved")
	}
	store, err := template.New(r.templates)
	if err != nil {
		return nil, nil, err
	}
	k := &template.Key{
		KernelParams: vm.KernelParams, Memory: vm.Memory, VCPUs: vm.VCPUs, Transport: vm.Transport,
	}
	if k.Host, err = template.ThisHost(); err != nil {
		return nil, nil, err
	}
	for path, f := range map[string]*template.File{r.sandbox[0]: &k.Program, cfg.Kernel: &k.Kernel, cfg.Initramfs: &k.Initramfs} {
		if *f, err = template.FileOf(path); err != nil {
			return nil, nil, err
		}
	}
	return store, k, nil
}

// saveVM runs a sandbox process that saves such a VM into dir. It has a directory
// inside of that one to work in, which the store takes away.
func (r *Runtime) saveVM(ctx context.Context, dir string, vm oci.VM, cfg *CreateConfig) (err error) {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	said, err := os.OpenFile(filepath.Join(work, "stderr"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer said.Close()
	c := &Container{dir: work, id: "template", log: r.log}
	saving := CreateConfig{
		ID: c.id, Plan: &oci.Plan{VM: vm}, Kernel: cfg.Kernel, Initramfs: cfg.Initramfs, makeTemplate: dir,
		Stdio: [3]*os.File{null, null, said}, SandboxLog: cfg.SandboxLog, LogJSON: cfg.LogJSON,
	}
	launch, err := r.start(c, saving)
	if err != nil {
		return err
	}
	defer launch.Close() // and it ends, if it has not
	if err := sendLaunch(launch, c, saving); err == nil {
		select {
		case <-c.child.exited:
		case <-ctx.Done():
		}
	}
	_ = c.child.cmd.Process.Kill() // an error says that it has ended
	<-c.child.exited
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case exitStatus(c.child.cmd.ProcessState) != 0:
		return fmt.Errorf("saving a VM: %s", lastLine(said, c.child.cmd.ProcessState.String()))
	}
	return nil
}

// lastLine is the last one in a file; without one it is other.
func lastLine(f *os.File, other string) string {
	const most = 4 << 10
	buf := make([]byte, most)
	info, err := f.Stat()
	if err != nil {
		return other
	}
	n, _ := f.ReadAt(buf, max(info.Size()-most, 0))
	text := strings.TrimSpace(string(buf[:n]))
	if text == "" {
		return other
	}
	return strings.TrimPrefix(text[strings.LastIndexByte(text, '\n')+1:], "lucid: ")
}

// doubt compares the hashes of a template that a sandbox process could not begin from. A spoilt one is refused from then on,
// and so made anew if it made itself. What else stands in the way a new one would meet, too.
func (r *Runtime) doubt(dir string) {
	store, err := template.New(filepath.Dir(dir))
	if err == nil {
		err = store.Verify(filepath.Base(dir))
	}
	if err != nil {
		r.log.Warn("the template is spoilt: " + err.Error())
	}
}

// templateRefused says whether a sandbox process could not begin from its
// template, and no more than that.
func templateRefused(err error) bool {
	var ce *control.Error
	return errors.As(err, &ce) && ce.Kind == control.KindTemplate
}
