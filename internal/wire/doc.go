// Package wire is the language that the host and the guest agent speak.
//
// Control is one byte channel (vsock port ControlPort, or the virtio-serial
// port ControlPortName). The agent dials; its first frame is Hello. After it
// the host sends requests, the agent answers each by its id, in any order, and
// sends events, which have id 0. A frame is a u32 little-endian length and
// that many bytes, a Frame as Marshal writes it (codec.go).
//
// Streams carry stdin, stdout and stderr. The host chooses a random 64-bit id
// per stream (NewStreamID) and names it in CreateContainer or Exec; the agent
// opens it. Over vsock a stream is a connection of its own to StreamPort that
// begins with the id (8 bytes, little-endian); over virtio-serial all streams
// share the port StreamPortName through a Mux. The ids are secrets of the host
// and the agent: a process of the container can dial the host's ports too,
// and what it sends under an id that nobody expects is dropped.
//
// Everything here takes the peer for hostile: lengths are capped, memory grows
// with the bytes received and not with the length claimed, queues are bounded,
// and garbage ends the connection with an error.
//
// The smallest use, on the host:
//
//	c := wire.NewClient(conn, onEvent)
//	defer c.Close()
//	hello, err := c.Hello(ctx)
//	...
//	var created wire.Created
//	err = c.Call(ctx, wire.MethodCreateContainer, &wire.CreateContainer{...}, &created)
//
// A Client may be used from many goroutines. A Stream may be read by one
// goroutine while another one writes to it; Close may come from anywhere.
package wire
