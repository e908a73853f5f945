// Package boot puts a Linux kernel into guest memory so that a vCPU can start
// it without firmware: the PVH entry of an ELF vmlinux (Xen
// docs/misc/pvh.pandoc, include/xen/interface/hvm/start_info.h), and an MP
// table (MultiProcessor Specification 1.4) that says how many vCPUs there are.
//
// A bzImage (Documentation/arch/x86/boot.rst) is accepted too: the vmlinux in
// it is unpacked here, by the host, which is faster than the guest and needs no
// code of the setup part.
//
// Kernel files may be damaged or hostile. Everything in them is checked and
// every size is bounded; each fault is one error that names the file.
//
//	kernel, err := boot.Open("/usr/share/lucid/vmlinux")
//	if err != nil { ... }
//	defer kernel.Close()
//	entry, err := boot.Load(mem, kernel, boot.Params{Cmdline: "quiet", VCPUs: 2})
package boot
