package shim

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci"
)

const devShm = "/dev/shm"

// workLink is containerd's link in a bundle to the directory on disk that goes with it.
const workLink = "work"

// podFilesDir is where the files of a pod go, and what else its mounts are asked for. containerd's bundles are in a tmpfs of the
// host: what a container may write into, and fill, is not to be there.
func podFilesDir(bundle string) (dir string, options []string, err error) {
	dir, err = filepath.EvalSymlinks(filepath.Join(bundle, workLink))
	if errors.Is(err, fs.ErrNotExist) {
		return bundle, []string{"ro"}, nil
	}
	return dir, nil, err
}

// writePodFiles writes for a sandbox's bundle what each container of a pod finds in /etc, and returns the mounts. With a pause
// container containerd's CRI plugin does it; without one it leaves it to the sandbox. Of a PodSandboxConfig (k8s.io/cri-api)
// hostname = 2 and dns_config = 4 count: servers = 1, searches = 2, options = 3. Without them it is as on the host.
func writePodFiles(bundle string, config message) ([]specs.Mount, error) {
	dns, err := config.sub(4)
	if err != nil {
		return nil, err
	}
	hostname := config.text(2)
	if hostname == "" {
		if hostname, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	var resolver strings.Builder
	for _, l := range []struct {
		word  string
		items []string
	}{{"search", dns.texts(2)}, {"nameserver", dns.texts(1)}, {"options", dns.texts(3)}} {
		switch {
		case l.word == "nameserver":
			for _, s := range l.items {
				resolver.WriteString(l.word + " " + s + "\n")
			}
		case len(l.items) > 0:
			resolver.WriteString(l.word + " " + strings.Join(l.items, " ") + "\n")
		}
	}
	dir, options, err := podFilesDir(bundle)
	if err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, f := range []struct{ name, data string }{{"hostname", hostname + "\n"}, {"hosts", ""}, {"resolv.conf", resolver.String()}} {
		data, in := []byte(f.data), filepath.Join("/etc", f.name)
		if len(data) == 0 && !config.has(4) || f.name == "hosts" {
			if data, err = os.ReadFile(in); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		file := filepath.Join(dir, f.name)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return nil, err
		}
		mounts = append(mounts, specs.Mount{
			Destination: in, Type: "bind", Source: file, Options: append([]string{"rbind", "rprivate"}, options...),
		})
	}
	return mounts, nil
}

// addPodFiles gives a container those that it has not from elsewhere: kubelet mounts some itself. A container that cannot write
// its root cannot write them either.
func addPodFiles(spec *specs.Spec, files []specs.Mount) {
	for _, f := range files {
		if slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == f.Destination }) {
			continue
		}
		if spec.Root != nil && spec.Root.Readonly {
			f.Options = append(slices.Clone(f.Options), "ro")
		}
		spec.Mounts = append(spec.Mounts, f)
	}
}

// shareMemory gives a container that is in the pod's IPC namespace the pod's /dev/shm. Without a pause container nothing on the
// host stands for it, so its specification asks for one of its own.
func shareMemory(spec *specs.Spec, known *oci.Pod) {
	if spec.Linux == nil {
		return
	}
	joins := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.IPCNamespace && n.Path != ""
	})
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; joins && filepath.Clean(m.Destination) == devShm && m.Type == "tmpfs" {
			m.Type, m.Source, m.Options = "bind", known.SharedMemory, []string{"rbind", "nosuid", "noexec", "nodev"}
		}
	}
}
