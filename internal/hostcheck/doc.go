// Package hostcheck finds out whether this host can run VMs, on which KVM
// back-end, with which assists and how fast: what `lucid check` says.
//
// Gather asks the host and makes two small VMs that live for milliseconds;
// Report.Write turns what it found into plain words. The smallest use:
//
//	r := hostcheck.Gather()
//	r.Write(os.Stdout)
//	ok := r.Err == nil
package hostcheck
