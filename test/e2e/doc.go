// Package e2e runs real Debian containers through bin/lucid, as a user would, on the /dev/kvm of the machine it runs on.
//
// `make e2e` (test/e2e/run) builds it and runs it twice: the whole in the lab (docs/lab.md), and the tests whose names
// begin with TestReal on this machine where it has a /dev/kvm. The environment says where things are:
//
//	LUCID_BIN     directory of lucid and of the programs that run inside containers
//	LUCID_ROOTFS  tar file of a Debian root file system (test/rootfs)
//
// A test here never skips: what is missing is a failure.
package e2e
