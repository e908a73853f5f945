// Package agent is PID 1 of the guest: it dials the host, says hello, and does
// what the host asks. See boot, server, container and stdio for the parts.
package agent
