package oci

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FieldError says which field of config.json is wrong and why. Field is its
// path, such as "process.args" or "mounts[3].source". File is where it stands;
// empty means config.json.
type FieldError struct {
	File  string
	Field string
	Text  string
}

// Error is one line.
func (e *FieldError) Error() string {
	if e.File == "" {
		return ConfigFile + ": " + e.Field + ": " + e.Text
	}
	return e.File + ": " + e.Field + ": " + e.Text
}

func fieldErr(field, format string, args ...any) error {
	return &FieldError{Field: field, Text: fmt.Sprintf(format, args...)}
}

// Validate checks a specification for what this runtime needs and refuses
// what it cannot apply: the OCI specification wants create to fail then.
func Validate(spec *specs.Spec) error {
	if err := checkVersion(spec.Version); err != nil {
		return err
	}
	if spec.Windows != nil || spec.Solaris != nil || spec.ZOS != nil || spec.FreeBSD != nil {
		return errors.New(ConfigFile + ": made for another platform: only linux and vm are supported")
	}
	if spec.Root == nil {
		return fieldErr("root", "must be set")
	}
	if spec.Root.Path == "" {
		return fieldErr("root.path", "must not be empty")
	}
	if spec.Process == nil {
		return fieldErr("process", "must be set")
	}
	if err := ValidateProcess(spec.Process); err != nil {
		return err
	}
	for i, m := range spec.Mounts {
		if err := checkMount(i, m); err != nil {
			return err
		}
	}
	if err := checkHooks(spec.Hooks); err != nil {
		return err
	}
	if err := checkLinux(spec.Linux); err != nil {
		return err
	}
	return checkVM(spec.VM)
}

// checkVersion accepts any 1.x.y, as the specification's semver rules ask.
func checkVersion(v string) error {
	if v == "" {
		return fieldErr("ociVersion", "must not be empty")
	}
	core, _, _ := strings.Cut(v, "-")
	core, _, _ = strings.Cut(core, "+")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return fieldErr("ociVersion", "%q is not of the form MAJOR.MINOR.PATCH", v)
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return fieldErr("ociVersion", "%q is not of the form MAJOR.MINOR.PATCH", v)
		}
	}
	if parts[0] != strconv.Itoa(specs.VersionMajor) {
		return fieldErr("ociVersion", "%s is not supported, this runtime follows %s", v, specs.Version)
	}
	return nil
}

// ValidateProcess checks one process, the container's or that of an exec.
func ValidateProcess(p *specs.Process) error {
	if len(p.Args) == 0 {
		return fieldErr("process.args", "must not be empty")
	}
	if p.Cwd == "" {
		return fieldErr("process.cwd", "must not be empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return fieldErr("process.cwd", "%q is not an absolute path", p.Cwd)
	}
	for _, list := range []struct {
		name string
		of   []string
	}{{"process.args", p.Args}, {"process.env", p.Env}} {
		for i, s := range list.of {
			if strings.IndexByte(s, 0) >= 0 {
				return fieldErr(fmt.Sprintf("%s[%d]", list.name, i), "contains a NUL byte")
			}
		}
	}
	if strings.IndexByte(p.Cwd, 0) >= 0 {
		return fieldErr("process.cwd", "contains a NUL byte")
	}
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		field := fmt.Sprintf("process.rlimits[%d]", i)
		switch {
		case !rlimitNames[r.Type]:
			return fieldErr(field+".type", "%q is not a resource limit", r.Type)
		case seen[r.Type]:
			return fieldErr(field+".type", "%s is given twice", r.Type)
		case r.Soft > r.Hard:
			return fieldErr(field, "soft %d is above hard %d", r.Soft, r.Hard)
		}
		seen[r.Type] = true
	}
	return checkScheduler(p.Scheduler)
}

// rlimitNames are getrlimit(2)'s names as the specification writes them.
var rlimitNames = map[string]bool{
	"RLIMIT_AS": true, "RLIMIT_CORE": true, "RLIMIT_CPU": true, "RLIMIT_DATA": true,
	"RLIMIT_FSIZE": true, "RLIMIT_LOCKS": true, "RLIMIT_MEMLOCK": true,
	"RLIMIT_MSGQUEUE": true, "RLIMIT_NICE": true, "RLIMIT_NOFILE": true,
	"RLIMIT_NPROC": true, "RLIMIT_RSS": true, "RLIMIT_RTPRIO": true,
	"RLIMIT_RTTIME": true, "RLIMIT_SIGPENDING": true, "RLIMIT_STACK": true,
}

func checkMount(i int, m specs.Mount) error {
	field := fmt.Sprintf("mounts[%d]", i)
	if m.Destination == "" {
		return fieldErr(field+".destination", "must not be empty")
	}
	if strings.IndexByte(m.Destination, 0) >= 0 || strings.IndexByte(m.Source, 0) >= 0 {
		return fieldErr(field, "contains a NUL byte")
	}
	if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
		return fieldErr(field, "uidMappings and gidMappings are not supported")
	}
	for _, o := range m.Options {
		if o == "idmap" || o == "ridmap" {
			return fieldErr(field+".options", "%s is not supported", o)
		}
	}
	if !IsBind(m) {
		return nil
	}
	if m.Source == "" {
		return fieldErr(field+".source", "must not be empty for a bind mount")
	}
	// Host files that only make sense on the host's own kernel. What the
	// guest has itself is given from there (see guestMount).
	src := filepath.Clean(m.Source)
	if _, own := guestOwned[src]; own {
		return nil
	}
	for _, top := range []string{"/proc", "/sys", "/dev"} {
		if src == top || strings.HasPrefix(src, top+"/") {
			return fieldErr(field+".source", "%s belongs to the host's kernel and cannot be bound into a VM", src)
		}
	}
	return nil
}

func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, list := range []struct {
		name string
		of   []specs.Hook
	}{
		//lint:ignore SA1019 docker up to 27 still uses it
		{"prestart", h.Prestart},
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
		{"poststop", h.Poststop},
	} {
		for i, hook := range list.of {
			field := fmt.Sprintf("hooks.%s[%d]", list.name, i)
			if !filepath.IsAbs(hook.Path) {
				return fieldErr(field+".path", "%q is not an absolute path", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fieldErr(field+".timeout", "must be above 0")
			}
			for _, s := range append([]string{hook.Path}, append(hook.Args[:len(hook.Args):len(hook.Args)], hook.Env...)...) {
				if strings.IndexByte(s, 0) >= 0 {
					return fieldErr(field, "contains a NUL byte")
				}
			}
		}
	}
	return nil
}

func checkVM(vm *specs.VM) error {
	if vm == nil {
		return nil
	}
	if vm.Hypervisor.Path != "" || len(vm.Hypervisor.Parameters) > 0 {
		return fieldErr("vm.hypervisor", "not supported: lucid is the hypervisor")
	}
	if vm.Image.Path != "" || vm.Image.Format != "" {
		return fieldErr("vm.image", "not supported: the guest boots from an initramfs")
	}
	for _, f := range []struct{ name, path string }{
		{"vm.kernel.path", vm.Kernel.Path}, {"vm.kernel.initrd", vm.Kernel.InitRD},
	} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			return fieldErr(f.name, "%q is not an absolute path", f.path)
		}
	}
	if hw := vm.HwConfig; hw != nil && (hw.DeviceTree != "" || len(hw.DtDevs) > 0 || len(hw.IOMems) > 0 || len(hw.Irqs) > 0) {
		return fieldErr("vm.hwConfig", "only vcpus and memory are supported")
	}
	return nil
}
