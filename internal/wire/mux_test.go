package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

// muxFrame is a frame of the mux, made by hand.
func muxFrame(id uint64, kind, n uint32, data string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, n)
	return append(b, data...)
}

const (
	kindOpen, kindData, kindCredit, kindEOF, kindReset = 1, 2, 3, 4, 5
	window                                             = 64 << 10
)

// Frames that no agent sends end the channel.
func TestMuxGarbage(t *testing.T) {
	open := muxFrame(5, kindOpen, 0, "")
	full := bytes.Repeat(muxFrame(5, kindData, 16<<10, string(make([]byte, 16<<10))), 4)
	for name, in := range map[string][]byte{
		"unknown kind":       muxFrame(5, 9, 0, ""),
		"kind 0":             muxFrame(5, 0, 0, ""),
		"long data":          muxFrame(5, kindData, 1<<20, ""),
		"open twice":         append(open, open...),
		"open with length":   muxFrame(5, kindOpen, 3, ""),
		"data before open":   muxFrame(5, kindData, 1, "x"),
		"data after EOF":     bytes.Join([][]byte{open, muxFrame(5, kindEOF, 0, ""), muxFrame(5, kindData, 1, "x")}, nil),
		"data beyond credit": bytes.Join([][]byte{open, full, muxFrame(5, kindData, 1, "x")}, nil),
		"credit not due":     append(open, muxFrame(5, kindCredit, 1, "")...),
		"huge credit":        append(open, muxFrame(5, kindCredit, 1<<32-1, "")...),
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := socketPair(t)
			defer func() { _ = guest.Close() }()
			m := wire.NewMux(host)
			exp, err := m.Expect(5)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = guest.Write(in) }()
			select {
			case <-m.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the channel lives")
			}
			if s, err := exp.Wait(testContext(t)); err == nil {
				if _, err := io.Copy(io.Discard, s); !errors.Is(err, wire.ErrProtocol) && name != "data after EOF" {
					t.Errorf("stream: %v", err)
				}
			} else if !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("Wait: %v", err)
			}
			_ = m.Close()
		})
	}
}

// Frames for streams that nobody expects change nothing.
func TestMuxUnknownStreams(t *testing.T) {
	host, guest := socketPair(t)
	m := wire.NewMux(host)
	defer func() { _ = m.Close(); _ = guest.Close() }()
	exp, err := m.Expect(5)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{
		muxFrame(6, kindOpen, 0, ""), muxFrame(6, kindData, 3, "abc"), muxFrame(7, kindCredit, 1<<31, ""),
		muxFrame(8, kindEOF, 0, ""), muxFrame(9, kindReset, 0, ""),
		muxFrame(5, kindOpen, 0, ""), muxFrame(5, kindData, 2, "ok"), muxFrame(5, kindEOF, 0, ""),
	} {
		if _, err := guest.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	s, err := exp.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "ok" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// The credit is a window: a writer sends that much to a peer that says nothing,
// and no more.
func TestMuxWriterStopsAtWindow(t *testing.T) {
	host, guest := socketPair(t)
	m := wire.NewMux(host)
	defer func() { _ = m.Close(); _ = guest.Close() }()
	exp, err := m.Expect(5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Write(muxFrame(5, kindOpen, 0, "")); err != nil {
		t.Fatal(err)
	}
	s, err := exp.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan int, 1)
	go func() {
		n, _ := s.Write(make([]byte, 2*window))
		wrote <- n
	}()
	if n := readMuxData(t, guest, window); n != window {
		t.Errorf("%d bytes", n)
	}
	select {
	case n := <-wrote:
		t.Errorf("Write ended after %d bytes", n)
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := guest.Write(muxFrame(5, kindCredit, window, "")); err != nil {
		t.Fatal(err)
	}
	readMuxData(t, guest, window)
	if n := <-wrote; n != 2*window {
		t.Errorf("Write: %d", n)
	}
}

// readMuxData reads data frames of stream 5 until they carry want bytes.
func readMuxData(t *testing.T, c net.Conn, want int) int {
	t.Helper()
	total := 0
	for total < want {
		h := make([]byte, 16)
		if _, err := io.ReadFull(c, h); err != nil {
			t.Fatal(err)
		}
		n := int(binary.LittleEndian.Uint32(h[12:]))
		if id, kind := binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint32(h[8:]); id != 5 || kind != kindData {
			t.Fatalf("frame of stream %d, kind %d", id, kind)
		}
		if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// FuzzMux plays a hostile agent: whatever it sends, the streams end and
// nothing hangs.
func FuzzMux(f *testing.F) {
	f.Add(bytes.Join([][]byte{muxFrame(1, kindOpen, 0, ""), muxFrame(1, kindData, 3, "abc"), muxFrame(1, kindEOF, 0, "")}, nil))
	f.Add(bytes.Join([][]byte{muxFrame(2, kindOpen, 0, ""), muxFrame(2, kindCredit, 5, ""), muxFrame(2, kindReset, 0, "")}, nil))
	f.Add(bytes.Join([][]byte{muxFrame(1, kindReset, 0, ""), muxFrame(1, kindOpen, 0, ""), muxFrame(3, kindData, 1, "x")}, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		m := wire.NewMux(&channel{Reader: bytes.NewReader(in)})
		var waits []*wire.Expected
		for id := uint64(1); id <= 3; id++ {
			// The channel may have ended already.
			if e, err := m.Expect(id); err == nil {
				waits = append(waits, e)
			}
		}
		<-m.Done()
		for _, e := range waits {
			s, err := e.Wait(testContext(t))
			if err != nil {
				continue
			}
			if n, _ := io.Copy(io.Discard, s); n > window {
				t.Errorf("%d bytes were buffered", n)
			}
			_, _ = s.Write([]byte("x"))
			_ = s.CloseWrite()
			_ = s.Close()
		}
		_ = m.Close()
	})
}
