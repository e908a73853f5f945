// Package eventfd wraps eventfd(2) for the two uses a VMM has: the kernel
// signals it and a goroutine waits (KVM_IOEVENTFD), or we signal it and the
// kernel reacts (KVM_IRQFD).
//
// Wait parks the goroutine in the runtime's poller and holds no thread. All
// methods are safe for concurrent use; Close wakes every Wait.
//
//	kick, err := eventfd.New()
//	if err != nil { ... }
//	go func() {
//		for kick.Wait() == nil {
//			drain()
//		}
//	}()
package eventfd
