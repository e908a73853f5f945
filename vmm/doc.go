// Package vmm assembles, runs and stops one virtual machine. It knows memory,
// vCPUs, interrupts and windows on a bus, and no concrete device: the caller
// hands it a list (design.md, "Who may import whom").
//
// # Order of a VM's life
//
//	New ──► Run ──────────────► Run returns ──► Close
//	         │ ▲                     ▲
//	   Pause ▼ │ Resume              │ guest shuts down, resets or crashes,
//	        parked                   │ or Stop, or ctx is done
//
// # Threads
//
// Each vCPU is one goroutine, locked to its thread, whose whole life is
// routineVCPU; Run starts them and waits for them. Handlers on the bus are
// called on these threads, several at a time. Stop, Pause, Resume and Stats may
// be called from any goroutine.
//
// # Smallest use
//
//	vm, err := vmm.New(vmm.Config{Memory: mem, VCPUs: 1, Kernel: kernel, Cmdline: "quiet"})
//	if err != nil { ... }
//	defer vm.Close()
//	exit, err := vm.Run(ctx)
package vmm
