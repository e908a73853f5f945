package vsock

import (
	"io"
	"net"
	"strconv"
	"syscall"
)

// Addr is one end of a connection.
type Addr struct {
	CID  uint32
	Port uint32
}

var _ net.Addr = Addr{}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns "CID:Port" in decimal.
func (a Addr) String() string {
	return strconv.FormatUint(uint64(a.CID), 10) + ":" + strconv.FormatUint(uint64(a.Port), 10)
}

// Values of net.OpError.Op.
const (
	opDial   = "dial"
	opListen = "listen"
	opAccept = "accept"
	opRead   = "read"
	opWrite  = "write"
	opClose  = "close"
	opSet    = "set"
)

// opError makes err one that callers of package net know.
func opError(op string, local, remote net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "vsock", Source: local, Addr: remote, Err: err}
}

// errReset is what connections end with when their guest is gone.
const errReset = syscall.ECONNRESET
