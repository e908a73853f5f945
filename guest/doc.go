// Package guest says how to start the guest kernel that this directory builds.
//
// The kernel's configuration is in kernel/, the archive with the agent is
// written by initramfs/, and `make count-boot` counts what a boot costs with
// exactly the command line given here. docs/guest-kernel.md explains all three.
//
// The package keeps no state and is safe for concurrent use.
package guest
