// Package vsock is the virtio socket device of virtio 1.2 section 5.10, with its
// host end inside this process: what a guest program connects to by AF_VSOCK
// arrives at a net.Listener here, and Dial gives a net.Conn to a guest program.
// No vhost, no AF_VSOCK of the host and no CID that must be unique on it.
//
// The files, from the wire up:
//
//	packet.go    the 44-byte header, and copies between it and guest pages
//	fifo.go      received bytes that nobody has read yet
//	conn.go      one connection: primer, states, credit
//	recv.go      what a packet of the guest does to a connection
//	send.go      which packet a connection wants to send next
//	io.go        the net.Conn side: Read, Write, Close, deadlines
//	mux.go       who a packet belongs to; limits; timers
//	listener.go  net.Listener
//	rxq.go       turns of the connections on the one RX queue
//	device.go    virtio.Device
//	front.go     the same connections for other programs, by a Unix socket
//
// The guest is not trusted. Whatever packets it sends, memory stays below
// Config.MaxConns and Config.Buffer, and the worst that it gets is a reset
// connection; a chain that breaks the virtio rules fails the device.
//
// Device, Conn and listeners are safe for concurrent use. Lock order: rxq.mu,
// then Conn.mu; mux.mu is a leaf, taken last and held for map work only. Guest
// memory is touched by RoutineTX and under rxq.mu, so Reset has two things to
// wait for.
//
//	dev, err := vsock.New(vsock.Config{GuestCID: 3})
//	if err != nil { ... }
//	l, err := dev.Listen(1024)    // before the guest boots
//	conn, err := l.Accept()       // the guest's agent is up
package vsock
