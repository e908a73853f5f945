// Package l1 is PID 1 of the lab's virtual machine (L1). The lab program runs
// it when it finds itself as the init of an initramfs, so host side and L1
// side are always the same build.
//
// Flow, in Main:
//
//	proc sys dev → request → modules → ports → root (9p or image, overlay)
//	→ mounts → chroot → command → its output ends → "exited" → power off
//
// One goroutine per stream direction (pump), one that reaps children, one
// that takes orders; Main waits for the pumps of stdout and stderr. Errors
// before the control port is there go to the console, later ones are an Event.
package l1
