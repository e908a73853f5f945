// Command lucid is an OCI container runtime that runs each container in a
// microVM of its own. Its commands and flags are runc's.
//
// There is one file per command and each only wires: package runtime has the
// lifecycle, package sandbox the VM. The hidden command "sandbox" is the
// process that holds a VM; create and run start it.
package main
