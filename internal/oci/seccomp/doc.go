// Package seccomp compiles linux.seccomp of the OCI runtime specification
// (config-linux.md, "Seccomp") into a filter for the guest's kernel.
//
// That kernel is known: x86-64, without 32-bit and x32 programs. So the host
// compiles, at its own speed and with a readable error before anything is
// made, and the agent installs bytes.
//
// No library did it: libseccomp needs cgo, and elastic/go-seccomp-bpf v1.6.0
// has neither errnoRet nor SCMP_CMP_MASKED_EQ, both of which docker's profile
// uses. The meaning of a profile follows libseccomp and runc:
//
//   - a name that the kernel does not have is skipped
//   - a rule whose result is the default's is skipped
//   - a rule without args beats all others of its system call
//   - the args of a rule must all match, unless one index occurs twice: then
//     each of them is a rule of its own
//   - a system call above all that the profile names fails with ENOSYS unless
//     the default allows it: programs take another error for a refusal and do
//     not fall back to an older call
//
// The form of a filter: architecture, x32 bit, then a binary search over the
// ranges of numbers with one result, and for a number with conditions its
// rules one after another. The kernel finds out by itself which numbers are
// always allowed and does not run the filter for them (seccomp_cache_prepare).
//
// The package keeps no state and is safe for concurrent use. The smallest use:
//
//	f, err := seccomp.Compile(spec.Linux.Seccomp)
package seccomp
