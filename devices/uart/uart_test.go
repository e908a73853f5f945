package uart

import (
	"bytes"
	"sync"
	"testing"
)

func get(u *UART, reg uint64) byte {
	var p [1]byte
	u.Read(reg, p[:])
	return p[0]
}

func set(u *UART, reg uint64, v byte) { u.Write(reg, []byte{v}) }

func TestTransmit(t *testing.T) {
	var out bytes.Buffer
	u := New(Config{Out: &out})
	for _, b := range []byte("hello\x00\xff") {
		if get(u, regLSR)&lsrTXEmpty != lsrTXEmpty {
			t.Fatal("transmitter not ready")
		}
		set(u, regData, b)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "hello\x00\xff" {
		t.Fatalf("sent %q", out.String())
	}
}

func TestReceive(t *testing.T) {
	raised := 0
	u := New(Config{Interrupt: func() { raised++ }})
	defer u.Close()
	if n := u.Receive(make([]byte, rxSize+5)); n != rxSize || raised != 0 {
		t.Fatalf("took %d, %d interrupts", n, raised)
	}
	set(u, regIIR, fcrEnable|fcrClearRX)
	set(u, regIER, ierRX)
	if n := u.Receive([]byte("ab")); n != 2 || raised != 1 {
		t.Fatalf("took %d, %d interrupts", n, raised)
	}
	if id := get(u, regIIR); id != iirFIFO|iirRX {
		t.Fatalf("IIR = %#x", id)
	}
	for _, want := range []byte("ab") {
		if get(u, regLSR)&lsrData == 0 {
			t.Fatal("no data ready")
		}
		if b := get(u, regData); b != want {
			t.Fatalf("read %q, want %q", b, want)
		}
	}
	if get(u, regLSR)&lsrData != 0 || get(u, regIIR) != iirFIFO|iirNone || get(u, regData) != 0 {
		t.Fatal("data left")
	}
}

func TestTransmitInterrupt(t *testing.T) {
	raised := 0
	u := New(Config{Interrupt: func() { raised++ }})
	defer u.Close()
	set(u, regIER, ierTX)
	if raised != 1 || get(u, regIIR) != iirTX || get(u, regIIR) != iirNone {
		t.Fatal("enabling the empty interrupt did not raise it once")
	}
	set(u, regData, 'x')
	if raised != 2 || get(u, regIIR) != iirTX {
		t.Fatal("no interrupt after a byte")
	}
}

// TestProbe does what the Linux 8250 driver does to find out what is there.
func TestProbe(t *testing.T) {
	var out bytes.Buffer
	u := New(Config{Out: &out})
	set(u, regIER, 0)
	if get(u, regIER) != 0 {
		t.Fatal("IER not zero")
	}
	set(u, regIER, 0x0f)
	if get(u, regIER) != 0x0f {
		t.Fatal("IER does not hold")
	}
	set(u, regMCR, mcrLoop|0x0a)
	if s := get(u, regMSR) & 0xf0; s != 0x90 {
		t.Fatalf("loopback status %#x, want 0x90", s)
	}
	set(u, regData, 'L')
	if get(u, regData) != 'L' {
		t.Fatal("loopback lost a byte")
	}
	set(u, regMCR, 0)
	set(u, regLCR, lcrDLAB|3)
	set(u, regData, 1)
	set(u, regIER, 2)
	if get(u, regData) != 1 || get(u, regIER) != 2 || get(u, regLCR) != lcrDLAB|3 {
		t.Fatal("divisor latch does not hold")
	}
	set(u, regLCR, 3)
	set(u, regSCR, 0xa5)
	if get(u, regSCR) != 0xa5 || get(u, regMCR) != 0 {
		t.Fatal("scratch register does not hold")
	}
	if err := u.Close(); err != nil || out.Len() != 0 {
		t.Fatalf("probing sent %q, %v", out.String(), err)
	}
}

func TestOddAccesses(t *testing.T) {
	u := New(Config{})
	defer u.Close()
	for _, off := range []uint64{0, 3, 5, 7, 8, 100, 1 << 63} {
		for _, n := range []int{0, 1, 2, 3, 4, 8, 16} {
			p := make([]byte, n)
			u.Read(off, p)
			for i := 1; i < n; i++ {
				if p[i] != 0xff {
					t.Fatalf("byte %d of a read of %d at %d is %#x", i, n, off, p[i])
				}
			}
			u.Write(off, p)
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 1000 {
				set(u, uint64(i%8), byte(i))
				get(u, uint64(i%8))
				u.Receive([]byte{1})
			}
		})
	}
	wg.Wait()
}
