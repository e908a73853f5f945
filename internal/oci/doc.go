// Package oci reads a bundle's config.json, checks it, and splits it into
// what the host does and what the guest does.
//
// The format is the OCI runtime specification 1.3
// (https://github.com/opencontainers/runtime-spec). Where each part goes:
//
//	field                                   place
//	ociVersion                              checked here
//	process.terminal, consoleSize           host pty and guest pty
//	process.{user,args,env,cwd,...}         guest
//	process.apparmorProfile, selinuxLabel   ignored, listed in Plan.Ignored
//	root.path, root.readonly                host export; read-only on both sides
//	hostname, domainname                    guest
//	mounts, kind bind                       one host export each; bound in the guest
//	mounts, other kinds                     guest
//	hooks                                   host; startContainer in the guest
//	annotations                             host (state); lucid.* say what VM it is
//	linux.namespaces[network].path          host: where the sandbox process sits
//	linux.namespaces, the rest              guest; a path is of another container of the pod, or refused
//	linux.cgroupsPath                       host and guest
//	linux.resources.{cpu,memory}            VM size, and limits in the guest
//	linux.resources.{pids,unified}          guest
//	linux.resources.blockIO                 host cgroup
//	linux.resources.{network,rdma}          ignored, listed
//	linux.seccomp                           compiled here (package seccomp), guest
//	linux.{sysctl,maskedPaths,readonlyPaths,rootfsPropagation,
//	  devices,uidMappings,gidMappings,timeOffsets,personality}  guest
//	linux.{intelRdt,memoryPolicy,mountLabel}  ignored, listed
//	linux.netDevices                        refused
//	vm.hwConfig.{vcpus,memory}, vm.kernel   the VM
//	vm.hypervisor, vm.image                 refused, there is nothing to use them
//
// docs/conformance.md has a line for each field.
//
// The guest's spec is built from named fields (see guestSpec): a field that a
// later version of the specification adds does not reach the guest by accident.
//
// The package only reads the file system, keeps no state and is safe for
// concurrent use. The smallest use:
//
//	spec, err := oci.Load(bundle)
//	plan, err := oci.Split(spec, bundle)
package oci
