// Package uart is a 16550A serial port for --debug-uart: early kernel messages
// before virtio is up. It is not part of a normal sandbox.
//
// Sent bytes go through a spool to an io.Writer, so a slow host delays the guest
// for a bounded time only. Registers may be accessed by any vCPU thread.
//
//	u := uart.New(uart.Config{Out: os.Stderr})
//	err := pio.Insert(0x3f8, uart.WindowSize, u)
package uart

import (
	"io"
	"sync"

	"github.com/lucid-containers/lucid/devices/spool"
)

// WindowSize is the number of I/O ports.
const WindowSize = 8

// Registers of the 16550 (PC16550D data sheet, table II).
const (
	regData = 0 // RBR and THR; divisor low with DLAB
	regIER  = 1 // interrupt enable; divisor high with DLAB
	regIIR  = 2 // read: interrupt identification; write: FIFO control
	regLCR  = 3
	regMCR  = 4
	regLSR  = 5
	regMSR  = 6
	regSCR  = 7

	ierRX, ierTX = 1, 2
	iirNone      = 1
	iirTX, iirRX = 2, 4
	iirFIFO      = 0xc0
	fcrEnable    = 1
	fcrClearRX   = 2
	lcrDLAB      = 0x80
	mcrLoop      = 0x10
	lsrData      = 1
	lsrTXEmpty   = 0x60 // holding register and shifter empty: always
	msrIdle      = 0xb0 // carrier, data set ready, clear to send
)

// Implementation constants.
const (
	rxSize    = 1024
	spoolSize = 64 << 10
)

// Config is what New needs.
type Config struct {
	Out       io.Writer // nil discards
	Interrupt func()    // level goes up; nil for a polled port
}

// UART is one serial port.
type UART struct {
	out       *spool.Spool
	interrupt func()

	mu                 sync.Mutex // protects all below
	ier, lcr, mcr, scr byte
	fifo               bool
	divisor            [2]byte
	rx                 []byte
	txPending          bool // the transmitter-empty interrupt is due
}

// New makes a port at reset.
func New(cfg Config) *UART {
	u := &UART{out: spool.New(cfg.Out, spoolSize), interrupt: cfg.Interrupt}
	if u.interrupt == nil {
		u.interrupt = func() {}
	}
	return u
}

// Close flushes what was sent; see spool.Close.
func (u *UART) Close() error { return u.out.Close() }

// Receive queues bytes for the guest and returns how many there was room for.
func (u *UART) Receive(p []byte) int {
	u.mu.Lock()
	n := min(len(p), rxSize-len(u.rx))
	u.rx = append(u.rx, p[:n]...)
	raise := n > 0 && u.ier&ierRX != 0
	u.mu.Unlock()
	if raise {
		u.interrupt()
	}
	return n
}

// Read implements bus.Handler. The port is 8 bits wide: of a wider access the
// first byte counts, the others read as all ones.
func (u *UART) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
	if len(p) > 0 && off < WindowSize {
		p[0] = u.read(byte(off))
	}
}

func (u *UART) read(reg byte) byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	dlab := u.lcr&lcrDLAB != 0
	switch reg {
	case regData, regIER:
		switch {
		case dlab:
			return u.divisor[reg]
		case reg == regIER:
			return u.ier
		}
		return u.receive()
	case regIIR:
		return u.identify()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		if len(u.rx) > 0 {
			return lsrTXEmpty | lsrData
		}
		return lsrTXEmpty
	case regMSR:
		return u.modemStatus()
	default:
		return u.scr
	}
}

func (u *UART) receive() byte {
	if len(u.rx) == 0 {
		return 0
	}
	b := u.rx[0]
	u.rx = u.rx[:copy(u.rx, u.rx[1:])]
	return b
}

// identify returns the interrupt of the highest priority. Reading it takes the
// transmitter-empty one back.
func (u *UART) identify() byte {
	var id byte = iirNone
	switch {
	case u.ier&ierRX != 0 && len(u.rx) > 0:
		id = iirRX
	case u.ier&ierTX != 0 && u.txPending:
		id = iirTX
		u.txPending = false
	}
	if u.fifo {
		id |= iirFIFO
	}
	return id
}

// modemStatus shows an idle line, or in loopback mode what MCR says: the Linux
// driver probes for a UART that way.
func (u *UART) modemStatus() byte {
	if u.mcr&mcrLoop == 0 {
		return msrIdle
	}
	// DTR, RTS, OUT1, OUT2 appear as DSR, CTS, RI, DCD.
	return u.mcr&1<<5 | u.mcr&2<<3 | u.mcr&4<<4 | u.mcr&8<<4
}

// Write implements bus.Handler, like Read.
func (u *UART) Write(off uint64, p []byte) {
	if len(p) == 0 || off >= WindowSize {
		return
	}
	send, raise := u.write(byte(off), p[0])
	if send {
		_, _ = u.out.Write(p[:1]) // never fails; without the lock, as it may wait
	}
	if raise {
		u.interrupt()
	}
}

func (u *UART) write(reg, v byte) (send, raise bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	dlab := u.lcr&lcrDLAB != 0
	switch reg {
	case regData, regIER:
		switch {
		case dlab:
			u.divisor[reg] = v
			return false, false
		case reg == regIER:
			u.txPending = u.txPending || v&^u.ier&ierTX != 0
			u.ier = v & 0x0f
			return false, u.ier&ierTX != 0 && u.txPending || u.ier&ierRX != 0 && len(u.rx) > 0
		case u.mcr&mcrLoop != 0:
			if len(u.rx) < rxSize {
				u.rx = append(u.rx, v)
			}
			return false, u.ier&ierRX != 0
		}
		u.txPending = true
		return true, u.ier&ierTX != 0
	case regIIR:
		u.fifo = v&fcrEnable != 0
		if v&fcrClearRX != 0 {
			u.rx = u.rx[:0]
		}
	case regLCR:
		u.lcr = v
	case regMCR:
		u.mcr = v & 0x1f
	case regSCR:
		u.scr = v
	}
	return false, false
}
