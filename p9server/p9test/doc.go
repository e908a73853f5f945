// Package p9test tests 9P2000.L servers.
//
//   - Raw sends single frames to a session, well-formed or not.
//   - All is the acceptance suite for anything that implements FS: our Session
//     through Raw, or through another client over a connection.
//   - Directory checks POSIX behaviour by ordinary system calls in a mounted
//     directory, for a guest's kernel client.
//   - ServeConn serves a session on a byte stream, for clients that speak 9P over
//     a socket.
package p9test
