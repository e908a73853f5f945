// Package systemd has systemd put a process into a scope of its own: the
// cgroup driver behind --systemd-cgroup. It speaks D-Bus with the manager, the
// system's for root and the user's for others.
//
// Scope names the unit, by runc's rules; Start makes it with a process and the
// limits of linux.resources, Set changes these, Stop ends it. A scope whose
// last process has ended goes away by itself. systemd.scope(5),
// org.freedesktop.systemd1(5), systemd.resource-control(5).
//
// Nothing here is safe for concurrent use of one Scope.
package systemd
