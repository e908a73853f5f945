// Package stdio connects the descriptors 0 to 2 of a process in the guest with
// streams of the host. See docs/flows/stdio.md for the whole way of a byte.
//
//	s, err := stdio.Open(stdio.Config{Opener: o, IO: ids})
//	// give s.Child to the process, then:
//	s.Start()
//	...
//	out, errs := s.Drain(time.Second) // when the process has ended
//	s.Close()                         // when the container is deleted
//
// Without a terminal the process gets pipes and not sockets, because programs
// open /dev/stdout again, which a socket refuses. With a terminal it gets the
// slave of a pty. One goroutine copies each direction; it ends with its pipe or
// its stream, and Close waits for all of them.
package stdio
