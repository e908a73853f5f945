// Package control is how lucid's commands and its shim talk to the sandbox
// process of a container. There are two channels, both of JSON frames:
//
//   - the launch socket, one end of a socketpair that the sandbox process
//     inherits. It carries the configuration down, "ready" or an error up, and
//     then the creator's "commit". If the creator dies before it commits, the
//     sandbox sees the end of the stream and ends too: a create that is killed
//     halfway leaves no VM behind.
//   - the control socket, STATEDIR/control.sock, mode 0600. Each connection
//     carries requests one after another; a peer of another user is refused.
//     A request may carry files (unix(7), SCM_RIGHTS).
//
// A frame is a length (u32, little endian, at most MaxFrame) and that many
// bytes of JSON. Socket paths may be longer than the 107 bytes of
// sockaddr_un: bind and connect go through /proc/self/fd/N/control.sock.
//
// Server and Conn are safe for concurrent use; a Conn carries one call at a
// time. The smallest use:
//
//	c, err := control.Dial(ctx, stateDir)
//	err = c.Call(ctx, control.MethodKill, control.KillParams{Signal: 15}, nil)
package control
