package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci"
)

// podConfig is the type of the options that containerd's CRI plugin gives with a sandbox: what kubelet has asked for.
const podConfig = "runtime.v1.PodSandboxConfig"

// sharedMemory is where the memory that the containers of a pod share would lie in its bundle: a name for it, by which the
// guest's own is meant. Nothing is there.
const sharedMemory = "shm"

// sandboxSpec is the specification that a pause container would have for what CreateSandbox asks. Who creates sandboxes without
// Kubernetes may give one in the bundle. Of the pod's own annotations none is taken: they are the word of whoever writes the pod,
// and annotations choose the VM's size and template.
func sandboxSpec(id, bundle string, r, config message) (*specs.Spec, error) {
	spec := new(specs.Spec)
	data, err := os.ReadFile(filepath.Join(bundle, oci.ConfigFile))
	if err == nil {
		err = json.Unmarshal(data, spec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Of these nothing is run.
	spec.Process, spec.Root = &specs.Process{Cwd: "/", Args: []string{"/pause"}}, &specs.Root{Path: rootfsDir}
	if spec.Version == "" {
		spec.Version = specs.Version
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	annotations, err := r.table(6)
	if err != nil {
		return nil, err
	}
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	for k, v := range annotations {
		spec.Annotations[k] = v
	}
	if netns := r.text(5); netns != "" {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: netns})
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: devShm, Type: "bind", Source: filepath.Join(bundle, sharedMemory), Options: []string{"rbind"},
	})
	if err := applyPodConfig(spec, id, config); err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	return spec, oci.Validate(spec)
}

// podConfigOf is the PodSandboxConfig in a CreateSandboxRequest; nil if there is none.
func podConfigOf(r message) (message, error) {
	options, err := r.sub(4) // a google.protobuf.Any: type_url, value
	if err != nil || path.Base(options.text(1)) != podConfig {
		return nil, err
	}
	return options.sub(2)
}

// applyPodConfig takes over what counts of a PodSandboxConfig (k8s.io/cri-api, runtime/v1/api.proto):
// hostname = 2; linux = 8, of that cgroup_parent = 1, sysctls = 3, resources = 5, of those cpu_period = 1, cpu_quota = 2,
// memory_limit_in_bytes = 4.
func applyPodConfig(spec *specs.Spec, id string, config message) error {
	if config == nil {
		return nil
	}
	spec.Hostname = config.text(2)
	linux, err := config.sub(8)
	if err != nil {
		return err
	}
	if parent := linux.text(1); parent != "" {
		// As containerd's CRI plugin names it.
		spec.Linux.CgroupsPath = filepath.Join(parent, id)
		if slice := path.Base(parent); strings.HasSuffix(slice, ".slice") {
			spec.Linux.CgroupsPath = slice + ":cri-containerd:" + id
		}
	}
	sysctls, err := linux.table(3)
	if err != nil {
		return err
	}
	if len(sysctls) > 0 {
		spec.Linux.Sysctl = sysctls
	}
	limits, err := linux.sub(5)
	if err != nil {
		return err
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	if period := limits.count(1); period > 0 {
		r.CPU.Period = &period
	}
	if quota := limits.number(2); quota > 0 {
		r.CPU.Quota = &quota
	}
	if memory := limits.number(4); memory > 0 {
		r.Memory.Limit = &memory
	}
	spec.Linux.Resources = r
	return nil
}
