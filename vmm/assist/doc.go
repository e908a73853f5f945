// Package assist finishes what a KVM back-end cannot do for its guest. On
// hardware KVM nothing is missing and nothing of this runs. A back-end that
// interprets guest kernel code in software (kvm_pvm) lacks two things:
//
//   - some instructions: KVM_RUN returns KVM_EXIT_INTERNAL_ERROR with suberror
//     KVM_INTERNAL_ERROR_EMULATION, and this package does the instruction;
//   - SYSCALL from user mode: it loads RCX, R11 and RIP but leaves CS, SS and
//     the privilege level alone, so that the guest faults when it fetches from
//     the kernel's entry. A hardware breakpoint on the guest's page-fault entry
//     tells these faults from others, and this package finishes the SYSCALL.
//
// Detect looks at behaviour in a throw-away VM, never at a module's name.
//
// # Trust
//
// Everything here is chosen by the guest: code bytes, registers, page tables,
// exception frames. User code of the guest must gain nothing either: an
// instruction is finished only at CPL 0; from user mode it gives the #UD that
// KVM would have given. Page tables are walked here with their permissions,
// because KVM_TRANSLATE ignores them: a write of XSAVE to a page that fork
// shares must fault.
//
// # Threads
//
// A VCPU belongs to the goroutine that runs the kvm.VCPU. A VM is shared.
package assist
