// Package p9server serves host directories to a guest over 9P2000.L.
//
// A Server has exports; a Session is one client's connection to all of them.
// The transport hands a Session each request as the readable and the writable
// memory of one virtqueue chain and sends what was written back:
//
//	s, err := p9server.New(p9server.Config{
//		Exports: []p9server.Export{{Name: "rootfs", Root: "/srv/rootfs"}},
//	})
//	session := s.NewSession()
//	n := session.Handle(readable, writable) // bytes of reply; 0: nothing to send
//
// The guest is hostile. It may change a request's memory while the request is
// served, so headers and fixed parts are copied once and only the copy is
// checked; payload of Tread and Twrite goes between the file and guest memory
// by preadv and pwritev without being looked at. Every number is bounded by
// Limits. What a fid is, and why no name is ever followed, is told in package
// hostfs.
//
// Access control inside an export is the guest kernel's: it mounts with
// access=client and checks mode bits and ACLs itself. The server runs with the
// privileges that owning files of any uid needs; what it enforces is the
// boundary of the export, its read-only flag, and the policies of Export.
//
// Threading: all methods may be called by any number of goroutines at once.
// Handle is synchronous. Replies may leave in the order in which requests
// complete, but a transport that works on several requests at a time should
// use Accept in the order of arrival and Done after the reply was sent, so that
// Tflush can keep its promise; see Request.
package p9server
