// Package server answers the host's requests in the guest.
//
// Serve reads requests from the control channel until it ends. Requests of one
// container may depend on each other, so the host sends the next when it has
// the reply; requests that it sends at once run at once, each on a goroutine of
// its own, up to a limit. docs/howto-agent-call.md shows how to add one.
package server
