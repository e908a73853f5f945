package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci/seccomp"
)

// Plan is a validated specification split by who carries it out. It travels
// as JSON from the command to the sandbox process.
type Plan struct {
	VM    VM
	Host  Host
	Guest specs.Spec
	// Seccomp is linux.seccomp, compiled for the guest's kernel; nil without.
	Seccomp *seccomp.Filter `json:",omitempty"`
	// State is what the guest's hooks read, but for id, status and pid; nil
	// without such hooks.
	State *specs.State `json:",omitempty"`
	// Ignored names fields that are set and have no effect. They are logged.
	Ignored []string `json:",omitempty"`
	// Placeholder says that there is a VM, for containers that join, and no
	// container of its own: of Guest only hostname and linux.sysctl count.
	Placeholder bool `json:",omitempty"`
}

// Host is the part of a specification that stays on the host.
type Host struct {
	Rootfs Export
	// Binds has one entry per bind mount of Guest.Mounts, in their order.
	// Some may share an export.
	Binds []Bind `json:",omitempty"`
	// SharedMemory are indices of Guest.Mounts: the pod's /dev/shm goes there.
	SharedMemory []int `json:",omitempty"`
	// NetNS is the path of the network namespace to sit in, NewNetNS asks for
	// a new one. Neither means the caller's.
	NetNS    string `json:",omitempty"`
	NewNetNS bool   `json:",omitempty"`
	// CgroupsPath is linux.cgroupsPath as written.
	CgroupsPath string `json:",omitempty"`
	// Resources is what of linux.resources is for the cgroup there.
	Resources *specs.LinuxResources `json:",omitempty"`
	// OOMScoreAdj is process.oomScoreAdj: the sandbox process's too.
	OOMScoreAdj *int `json:",omitempty"`
	// Hooks are those of the host: all but startContainer.
	Hooks *specs.Hooks `json:",omitempty"`
}

// Export is one directory or file that the guest may see. The name is what
// the guest attaches to.
type Export struct {
	Name     string
	Path     string
	ReadOnly bool
}

// Bind is an export that is mounted at Guest.Mounts[Mount].
type Bind struct {
	Export
	Mount int
	// File says that the source is not a directory.
	File bool
}

// RootfsExport is the name of the container's root file system.
const RootfsExport = "rootfs"

// Split checks what depends on the host's files and splits spec. bundle is
// the absolute path of the bundle, for relative paths. Precondition: spec
// passed Validate.
func Split(spec *specs.Spec, bundle string) (*Plan, error) { return split(spec, bundle, nil) }

// split is Split for a container that joins a pod, if pod is not nil.
func split(spec *specs.Spec, bundle string, pod *Pod) (*Plan, error) {
	vm, notes, err := size(spec)
	if err != nil {
		return nil, err
	}
	p := &Plan{VM: vm, Ignored: notes}
	p.Host.Rootfs, err = rootfs(spec.Root, bundle)
	if err != nil {
		return nil, err
	}
	if err := p.splitLinux(spec); err != nil {
		return nil, err
	}
	p.Guest = guestSpec(spec)
	if err := pod.shareNamespaces(&p.Guest, spec); err != nil {
		return nil, err
	}
	if p.Guest.Hooks != nil {
		p.State = &specs.State{Version: specs.Version, Bundle: bundle, Annotations: spec.Annotations}
	}
	if err := p.splitMounts(bundle, pod); err != nil {
		return nil, err
	}
	p.Ignored = append(p.Ignored, ignored(spec)...)
	return p, nil
}

// splitLinux fills what the host does but for the files.
func (p *Plan) splitLinux(spec *specs.Spec) (err error) {
	p.Host.Hooks, p.Host.OOMScoreAdj = hostHooks(spec.Hooks), spec.Process.OOMScoreAdj
	if l := spec.Linux; l != nil {
		p.Host.CgroupsPath = l.CgroupsPath
		p.Host.Resources = HostResources(l.Resources)
		if p.Seccomp, err = seccomp.Compile(l.Seccomp); err != nil {
			return fmt.Errorf("%s: %w", ConfigFile, err)
		}
		for _, ns := range l.Namespaces {
			if ns.Type == specs.NetworkNamespace {
				p.Host.NetNS, p.Host.NewNetNS = ns.Path, ns.Path == ""
			}
		}
	}
	return nil
}

// splitMounts takes the mounts that come from the host out of the guest's.
func (p *Plan) splitMounts(bundle string, pod *Pod) error {
	names := exportNames{RootfsExport: p.Host.Rootfs}
	for i := range p.Guest.Mounts {
		m := &p.Guest.Mounts[i]
		if !IsBind(*m) {
			continue
		}
		if pod.sharesMemory(*m) {
			m.Source = "shm"
			p.Host.SharedMemory = append(p.Host.SharedMemory, i)
			continue
		}
		if own, ok := guestOwned[filepath.Clean(m.Source)]; ok {
			guestMount(m, own)
			continue
		}
		bind, err := bindOf(i, *m, bundle)
		if err != nil {
			return err
		}
		bind.Export = names.name(bind.Export)
		// The guest learns the export's name and nothing else of the host's
		// paths.
		m.Source = bind.Name
		p.Host.Binds = append(p.Host.Binds, bind)
	}
	return nil
}

// hostHooks are all but those that the agent runs.
func hostHooks(h *specs.Hooks) *specs.Hooks {
	if h == nil {
		return nil
	}
	host := *h
	host.StartContainer = nil
	return &host
}

func rootfs(root *specs.Root, bundle string) (Export, error) {
	path := root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Export{}, fieldErr("root.path", "%v", err)
	}
	if !info.IsDir() {
		return Export{}, fieldErr("root.path", "%s is not a directory", path)
	}
	return Export{Name: RootfsExport, Path: path, ReadOnly: root.Readonly}, nil
}

func bindOf(i int, m specs.Mount, bundle string) (Bind, error) {
	field := fmt.Sprintf("mounts[%d].source", i)
	path := m.Source
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Bind{}, fieldErr(field, "%v", err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return Bind{}, fieldErr(field, "%s is neither a directory nor a regular file (%s): only those can be shared with a VM", path, info.Mode().Type())
	}
	return Bind{
		Export: Export{Path: path, ReadOnly: readOnly(m.Options)},
		Mount:  i,
		File:   !info.IsDir(),
	}, nil
}

// exportNames are the exports of a container by their names.
type exportNames map[string]Export

// name names an export. In the guest's /proc/self/mountinfo the name is the
// root of the mount, where on the host's kernel the source would be: so it is
// the last part of that, if it is free. Two mounts of one source share one.
func (names exportNames) name(e Export) Export {
	base := filepath.Base(e.Path)
	switch {
	case base == "/":
		base = "host"
	case base[0] == '.':
		base = "host" + base // such names are the agent's own
	}
	base = base[:min(len(base), 250)] // a name has at most 255 bytes
	e.Name = base
	for n := 2; ; n++ {
		other, taken := names[e.Name]
		if !taken || other == e {
			names[e.Name] = e
			return e
		}
		e.Name = base + "." + strconv.Itoa(n)
	}
}

// readOnly follows mount(8): the last of ro and rw wins.
func readOnly(options []string) bool {
	ro := false
	for _, o := range options {
		switch o {
		case "ro", "rro":
			ro = true
		case "rw", "rrw":
			ro = false
		}
	}
	return ro
}

// IsBind says whether a mount takes a file or directory of the host.
func IsBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// guestOwned maps host paths of which the guest has its own to what it mounts
// instead.
var guestOwned = map[string]string{
	"/sys":           "sysfs",
	"/sys/fs/cgroup": "cgroup",
	"/proc":          "proc",
	"/dev/shm":       "tmpfs",
	"/dev/mqueue":    "mqueue",
	"/dev/pts":       "devpts",
}

// guestMount turns a bind of a guestOwned path into a mount of fstype.
func guestMount(m *specs.Mount, fstype string) {
	m.Type, m.Source = fstype, fstype
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
		return o == "bind" || o == "rbind"
	})
}

// guestSpec builds what the agent carries out, field by field.
func guestSpec(spec *specs.Spec) specs.Spec {
	g := specs.Spec{
		Root:       &specs.Root{Path: RootfsExport, Readonly: spec.Root.Readonly},
		Hostname:   spec.Hostname,
		Domainname: spec.Domainname,
		Mounts:     slices.Clone(spec.Mounts),
	}
	if h := spec.Hooks; h != nil && len(h.StartContainer) > 0 {
		g.Hooks = &specs.Hooks{StartContainer: h.StartContainer}
	}
	process := GuestProcess(spec.Process)
	g.Process = &process
	if spec.Linux != nil {
		g.Linux = guestLinux(spec.Linux)
	}
	return g
}

// GuestProcess is what of a process reaches the agent.
func GuestProcess(p *specs.Process) specs.Process {
	return specs.Process{
		Terminal:        p.Terminal,
		ConsoleSize:     p.ConsoleSize,
		User:            p.User,
		Args:            p.Args,
		Env:             p.Env,
		Cwd:             p.Cwd,
		Capabilities:    p.Capabilities,
		Rlimits:         p.Rlimits,
		NoNewPrivileges: p.NoNewPrivileges,
		OOMScoreAdj:     p.OOMScoreAdj,
		Scheduler:       p.Scheduler,
	}
}

func guestLinux(l *specs.Linux) *specs.Linux {
	g := &specs.Linux{
		UIDMappings:       l.UIDMappings,
		GIDMappings:       l.GIDMappings,
		Sysctl:            l.Sysctl,
		Devices:           l.Devices,
		RootfsPropagation: l.RootfsPropagation,
		MaskedPaths:       l.MaskedPaths,
		ReadonlyPaths:     l.ReadonlyPaths,
		Personality:       l.Personality,
		TimeOffsets:       l.TimeOffsets,
	}
	if l.Resources != nil {
		g.Resources = GuestResources(l.Resources)
	}
	return g
}
