package oci_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci"
)

// bundle makes a bundle directory with a rootfs and returns it.
func bundle(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, oci.ConfigFile), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestExampleLoads(t *testing.T) {
	data, err := json.Marshal(oci.Example())
	if err != nil {
		t.Fatal(err)
	}
	dir := bundle(t, string(data))
	spec, err := oci.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(oci.Example(), spec); diff != "" {
		t.Errorf("read back differs:\n%s", diff)
	}
	plan, err := oci.Split(spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	if plan.VM.VCPUs != 1 || plan.VM.Memory != 128<<20 || plan.VM.Transport != oci.TransportVsock {
		t.Errorf("default VM %+v", plan.VM)
	}
	want := oci.Export{Name: "rootfs", Path: filepath.Join(dir, "rootfs"), ReadOnly: true}
	if plan.Host.Rootfs != want {
		t.Errorf("rootfs %+v, want %+v", plan.Host.Rootfs, want)
	}
	for _, ns := range plan.Guest.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			t.Error("the guest was told to make a network namespace")
		}
	}
	rootless := oci.Example()
	oci.Rootless(rootless, 1000, 1000)
	if err := oci.Validate(rootless); err != nil {
		t.Errorf("rootless example: %v", err)
	}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"missing", "", "JSON specification file config.json not found"},
		{"empty", " ", "config.json: line 1: unexpected end of JSON input"},
		{"null", "null", "config.json: config cannot be null"},
		{"broken", "{\n\"ociVersion\": \"1.0.2\",\n}", "config.json: line 3: invalid character '}'"},
		{"trailing", "{} x", "config.json: line 1: invalid character 'x' after top-level value"},
		{"wrong type", "{\"ociVersion\": \"1.0.2\",\n \"process\": {\"args\": \"sh\"}}", "config.json: line 2: process.args: a JSON string does not fit here"},
		{"nothing", "{}", "config.json: ociVersion: must not be empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := oci.Load(bundle(t, c.config))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
	if _, err := oci.Load("/no/such/bundle"); err == nil || !strings.Contains(err.Error(), "/no/such/bundle") {
		t.Errorf("missing bundle: %v", err)
	}
	file := filepath.Join(bundle(t, "{}"), oci.ConfigFile)
	if _, err := oci.Load(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("bundle is a file: %v", err)
	}
}

func TestValidate(t *testing.T) {
	zero := 0
	for _, c := range []struct {
		field  string
		change func(*specs.Spec)
	}{
		{"ociVersion", func(s *specs.Spec) { s.Version = "2.0.0" }},
		{"ociVersion", func(s *specs.Spec) { s.Version = "1.0" }},
		{"ociVersion", func(s *specs.Spec) { s.Version = "1.x.0" }},
		{"root", func(s *specs.Spec) { s.Root = nil }},
		{"root.path", func(s *specs.Spec) { s.Root.Path = "" }},
		{"process", func(s *specs.Spec) { s.Process = nil }},
		{"process.args", func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.args[0]", func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} }},
		{"process.env[1]", func(s *specs.Spec) { s.Process.Env = []string{"A=B", "C=\x00"} }},
		{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "" }},
		{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }},
		{"process.rlimits[1].type", func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) }},
		{"process.rlimits[0].type", func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_X" }},
		{"process.rlimits[0]", func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 2000 }},
		{"mounts[0].destination", func(s *specs.Spec) { s.Mounts[0].Destination = "" }},
		{"mounts[0].source", func(s *specs.Spec) { s.Mounts[0].Type, s.Mounts[0].Source = "bind", "" }},
		{"mounts[0].source", func(s *specs.Spec) { s.Mounts[0].Type, s.Mounts[0].Source = "bind", "/dev/sda" }},
		{"mounts[0].source", func(s *specs.Spec) { s.Mounts[0].Options, s.Mounts[0].Source = []string{"rbind"}, "/proc/../sys/fs" }},
		{"mounts[0]", func(s *specs.Spec) { s.Mounts[0].UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{"mounts[0].options", func(s *specs.Spec) { s.Mounts[0].Options = []string{"idmap"} }},
		{"hooks.createContainer[0].path", func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "x"}}} }},
		{"hooks.startContainer[1].path", func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}, {}}} }},
		{"hooks.startContainer[0]", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x", Env: []string{"a\x00"}}}}
		}},
		{"hooks.poststop[0].path", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }},
		{"hooks.createRuntime[0].timeout", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x", Timeout: &zero}}}
		}},
		{"linux.namespaces[0].type", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "disk" }},
		{"linux.namespaces[1].type", func(s *specs.Spec) { s.Linux.Namespaces[1] = s.Linux.Namespaces[0] }},
		{"linux.namespaces[1].path", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "ns/net" }},
		{"linux.netDevices", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }},
		{"linux.uidMappings", func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{"linux.maskedPaths[0]", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"x"} }},
		{"vm.hypervisor", func(s *specs.Spec) { s.VM = &specs.VM{Hypervisor: specs.VMHypervisor{Path: "/usr/bin/qemu"}} }},
		{"vm.image", func(s *specs.Spec) { s.VM = &specs.VM{Image: specs.VMImage{Path: "/x"}} }},
		{"vm.kernel.path", func(s *specs.Spec) { s.VM = &specs.VM{Kernel: specs.VMKernel{Path: "vmlinux"}} }},
		{"vm.hwConfig", func(s *specs.Spec) { s.VM = &specs.VM{HwConfig: &specs.HWConfig{DeviceTree: "/x"}} }},
	} {
		spec := oci.Example()
		c.change(spec)
		err := oci.Validate(spec)
		var fe *oci.FieldError
		if !errors.As(err, &fe) || fe.Field != c.field {
			t.Errorf("%v, want an error of field %s", err, c.field)
		}
	}
}

func TestVMSize(t *testing.T) {
	i64 := func(n int64) *int64 { return &n }
	u64 := func(n uint64) *uint64 { return &n }
	u32 := func(n uint32) *uint32 { return &n }
	resources := func(quota int64, period *uint64, limit int64) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{
				CPU: &specs.LinuxCPU{Quota: i64(quota), Period: period}, Memory: &specs.LinuxMemory{Limit: i64(limit)},
			}
		}
	}
	annotate := func(kv ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Annotations = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				s.Annotations[kv[i]] = kv[i+1]
			}
		}
	}
	hw := func(v *uint32, m *uint64) func(*specs.Spec) {
		return func(s *specs.Spec) { s.VM = &specs.VM{HwConfig: &specs.HWConfig{VCPUs: v, Memory: m}} }
	}
	both := func(fs ...func(*specs.Spec)) func(*specs.Spec) {
		return func(s *specs.Spec) {
			for _, f := range fs {
				f(s)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
		vcpus  int
		memory uint64
		fails  string // field
	}{
		{"quota 1.5 CPUs", resources(150000, nil, -1), 2, 128 << 20, ""},
		{"quota with period", resources(50000, u64(10000), 0), 5, 128 << 20, ""},
		{"quota of many CPUs is cut", resources(100*100000, nil, 0), 8, 128 << 20, ""},
		{"no quota", resources(-1, nil, 0), 1, 128 << 20, ""},
		{"small limit", resources(-1, nil, 16<<20), 1, 128 << 20, ""},
		{"limit and overhead", resources(-1, nil, 100<<20), 1, 256 << 20, ""},
		{"limit at a step", resources(-1, nil, 192<<20), 1, 256 << 20, ""},
		{"no limit as docker writes it", resources(-1, nil, 1<<63-4096), 1, 128 << 20, ""},
		{"hwConfig", hw(u32(4), u64(300<<20)), 4, 300 << 20, ""},
		{"hwConfig over resources", both(resources(300000, nil, 1<<30), hw(u32(2), nil)), 2, 1<<30 + 128<<20, ""},
		{"hwConfig aligned", hw(nil, u64(100<<20+1)), 1, 102 << 20, ""},
		{"hwConfig 0", hw(u32(0), nil), 0, 0, "vm.hwConfig.vcpus"},
		{"hwConfig 9", hw(u32(9), nil), 0, 0, "vm.hwConfig.vcpus"},
		{"hwConfig tiny", hw(nil, u64(1<<20)), 0, 0, "vm.hwConfig.memory"},
		{"hwConfig huge", hw(nil, u64(1<<60)), 0, 0, "vm.hwConfig.memory"},
		{"annotations", both(hw(u32(4), u64(1<<30)), annotate("lucid.vcpus", "8", "lucid.memory", "512MiB")), 8, 512 << 20, ""},
		{"annotation in bytes", annotate("lucid.memory", "268435456"), 1, 256 << 20, ""},
		{"foreign annotations", annotate("io.kubernetes.x", "1"), 1, 128 << 20, ""},
		{"annotation 0", annotate("lucid.vcpus", "0"), 0, 0, "annotations[lucid.vcpus]"},
		{"annotation 9", annotate("lucid.vcpus", "9"), 0, 0, "annotations[lucid.vcpus]"},
		{"annotation no number", annotate("lucid.vcpus", "two"), 0, 0, "annotations[lucid.vcpus]"},
		{"annotation no size", annotate("lucid.memory", "lots"), 0, 0, "annotations[lucid.memory]"},
		{"annotation overflow", annotate("lucid.memory", "18446744073709551615k"), 0, 0, "annotations[lucid.memory]"},
		{"annotation transport", annotate("lucid.transport", "pigeon"), 0, 0, "annotations[lucid.transport]"},
		{"annotation not allowed", annotate("lucid.kernel", "/tmp/evil"), 0, 0, "annotations[lucid.kernel]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := oci.Example()
			c.change(spec)
			plan, err := oci.Split(spec, bundle(t, ""))
			if c.fails != "" {
				var fe *oci.FieldError
				if !errors.As(err, &fe) || fe.Field != c.fails {
					t.Errorf("%v, want an error of field %s", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if plan.VM.VCPUs != c.vcpus || plan.VM.Memory != c.memory {
				t.Errorf("%d vCPUs, %d MiB, want %d, %d MiB", plan.VM.VCPUs, plan.VM.Memory>>20, c.vcpus, c.memory>>20)
			}
		})
	}
}

func TestSplitMounts(t *testing.T) {
	dir := bundle(t, "")
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	spec := oci.Example()
	spec.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/data", Type: "bind", Source: dir, Options: []string{"rbind", "ro"}},
		{Destination: "/etc/resolv.conf", Type: "bind", Source: "resolv.conf", Options: []string{"bind", "ro", "rw"}},
		{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "ro"}},
		{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"bind"}},
		{Destination: "/two", Type: "bind", Source: "resolv.conf", Options: []string{"bind", "ro"}},
		{Destination: "/three", Type: "bind", Source: "rootfs", Options: []string{"bind"}},
		{Destination: "/four", Type: "bind", Source: file, Options: []string{"bind"}},
		{Destination: "/five", Type: "bind", Source: "/", Options: []string{"bind", "ro"}},
	}
	plan, err := oci.Split(spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []oci.Bind{
		{Export: oci.Export{Name: filepath.Base(dir), Path: dir, ReadOnly: true}, Mount: 1},
		{Export: oci.Export{Name: "resolv.conf", Path: file}, Mount: 2, File: true},
		{Export: oci.Export{Name: "resolv.conf.2", Path: file, ReadOnly: true}, Mount: 5, File: true},
		{Export: oci.Export{Name: "rootfs.2", Path: filepath.Join(dir, "rootfs")}, Mount: 6},
		{Export: oci.Export{Name: "resolv.conf", Path: file}, Mount: 7, File: true},
		{Export: oci.Export{Name: "host", Path: "/", ReadOnly: true}, Mount: 8},
	}
	if diff := cmp.Diff(want, plan.Host.Binds); diff != "" {
		t.Error(diff)
	}
	if m := plan.Guest.Mounts[3]; m.Type != "sysfs" || m.Source != "sysfs" || !cmp.Equal(m.Options, []string{"nosuid", "ro"}) {
		t.Errorf("bind of /sys became %+v", m)
	}
	if m := plan.Guest.Mounts[4]; m.Type != "tmpfs" {
		t.Errorf("bind of /dev/shm became %+v", m)
	}
	data, err := json.Marshal(plan.Guest)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), dir) {
		t.Errorf("the guest learns a path of the host: %s", data)
	}
	for _, c := range []struct{ source, want string }{
		{"/no/such/dir", "mounts[0].source"},
		{"sock", "neither a directory nor a regular file"},
	} {
		if err := os.Remove(filepath.Join(dir, "sock")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := mkfifo(filepath.Join(dir, "sock")); err != nil {
			t.Fatal(err)
		}
		spec.Mounts = []specs.Mount{{Destination: "/x", Type: "bind", Source: c.source}}
		if _, err := oci.Split(spec, dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("source %s: %v, want %q", c.source, err, c.want)
		}
	}
	spec.Mounts = nil
	spec.Root.Path = "nowhere"
	if _, err := oci.Split(spec, dir); err == nil || !strings.Contains(err.Error(), "root.path") {
		t.Errorf("missing rootfs: %v", err)
	}
}

// TestGuestSpec: only named fields reach the guest.
func TestGuestSpec(t *testing.T) {
	spec, weight := oci.Example(), uint16(10)
	spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/host/hook"}}}
	spec.Annotations = map[string]string{"secret": "host"}
	spec.Process.ApparmorProfile = "p"
	spec.Linux.CgroupsPath = "/lucid/x"
	spec.Linux.Resources.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0-3", Mems: "0"}
	spec.Linux.Namespaces[1].Path = "/run/netns/x"
	plan, err := oci.Split(spec, bundle(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	g := plan.Guest
	if g.Hooks != nil || g.Annotations != nil || g.Process.ApparmorProfile != "" || g.Linux.Resources.BlockIO != nil ||
		g.Linux.Resources.CPU.Cpus != "" || g.Root.Path != "rootfs" {
		t.Errorf("guest spec %+v", g)
	}
	if plan.Host.NetNS != "/run/netns/x" || plan.Host.CgroupsPath != "/lucid/x" || !cmp.Equal(plan.Host.Hooks, spec.Hooks) || plan.Host.Resources.BlockIO == nil ||
		plan.Host.Resources.CPU.Cpus == "" || plan.Host.Resources.CPU.Mems == "" {
		t.Errorf("host part %+v", plan.Host)
	}
	want := []string{"process.apparmorProfile"}
	if diff := cmp.Diff(want, plan.Ignored); diff != "" {
		t.Error(diff)
	}
	if spec.Linux.Resources.CPU.Cpus != "0-3" {
		t.Error("the caller's spec was changed")
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "1": 1, "1k": 1 << 10, "1KiB": 1 << 10, "2M": 2 << 20, "2MB": 2 << 20, "3GiB": 3 << 30, " 4g ": 4 << 30,
	} {
		if got, err := oci.ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "k", "-1", "1.5G", "1T", "1kk", "0x10"} {
		if got, err := oci.ParseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := json.Marshal(oci.Example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := oci.Parse(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			return
		}
		if oci.Validate(spec) == nil {
			spec.Mounts = nil
			_, _ = oci.Split(spec, t.TempDir())
		}
	})
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

// TestSplitHooks: startContainer is the guest's, with what its state says; the rest is the host's.
func TestSplitHooks(t *testing.T) {
	spec, dir := oci.Example(), bundle(t, "")
	h := func(name string) []specs.Hook { return []specs.Hook{{Path: "/" + name}} }
	spec.Hooks = &specs.Hooks{CreateContainer: h("cc"), StartContainer: h("sc"), Poststop: h("ps")}
	spec.Annotations = map[string]string{"k": "v"}
	plan, err := oci.Split(spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&specs.Hooks{StartContainer: h("sc")}, plan.Guest.Hooks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&specs.Hooks{CreateContainer: h("cc"), Poststop: h("ps")}, plan.Host.Hooks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&specs.State{Version: specs.Version, Bundle: dir, Annotations: map[string]string{"k": "v"}}, plan.State); d != "" {
		t.Error(d)
	}
	spec.Hooks.StartContainer = nil
	if plan, err = oci.Split(spec, dir); err != nil || plan.State != nil || plan.Guest.Hooks != nil {
		t.Errorf("without hooks of the guest: %+v, %v", plan.State, err)
	}
}
