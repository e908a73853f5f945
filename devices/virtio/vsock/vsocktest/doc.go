// Package vsocktest is a guest for tests of the socket device: the driver side
// of its three queues over package virtqtest, and a small vsock stack on them.
//
// Guest sends and receives single packets, valid or not:
//
//	g := vsocktest.NewGuest(t, dev)
//	g.Send(vsocktest.Header{Op: vsocktest.OpRequest, ...}, nil)
//	h, payload := g.Recv()
//
// Stack has sockets:
//
//	s := vsocktest.NewStack(g)
//	conn, err := s.Dial(1024) // to the host
//
// It shares no code with the device, so that both would have to misread the
// specification in the same way. Guest.Recv and Stack are exclusive.
package vsocktest
