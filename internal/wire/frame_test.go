package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/internal/wire"
)

// channel is a byte channel of which one side is in memory.
type channel struct {
	io.Reader
	bytes.Buffer
	writes int
}

func (c *channel) Read(p []byte) (int, error) { return c.Reader.Read(p) }
func (c *channel) Close() error               { return nil }
func (c *channel) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

func frameBytes(payload string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func TestFrameRoundTrip(t *testing.T) {
	want := []*wire.Frame{
		{ID: 1, Method: "Exec", Params: []byte("\x01<&>")},
		{ID: 1<<64 - 1, Result: []byte{1, 2}},
		{ID: 3, Error: &wire.Error{Kind: wire.KindFailed, Message: "no\nluck"}},
		{Method: "ContainerExited", Params: []byte{0}},
		{ID: 4, Params: []byte(strings.Repeat("x", 300_000))},
	}
	var c channel
	conn := wire.NewConn(&c)
	for _, f := range want {
		if err := conn.WriteFrame(f); err != nil {
			t.Fatal(err)
		}
	}
	if c.writes != len(want) {
		t.Errorf("%d writes for %d frames", c.writes, len(want))
	}
	r := wire.NewConn(&channel{Reader: &c.Buffer})
	for _, f := range want {
		got, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Error(d)
		}
	}
	if _, err := r.ReadFrame(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFrameErrors(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"empty frame":   {frameBytes(""), wire.ErrProtocol},
		"too long":      {binary.LittleEndian.AppendUint32(nil, wire.MaxFrame+1), wire.ErrProtocol},
		"longest":       {[]byte{0xff, 0xff, 0xff, 0xff}, wire.ErrProtocol},
		"no frame":      {frameBytes("hello"), wire.ErrProtocol},
		"id too long":   {frameBytes(strings.Repeat("\xff", 11)), wire.ErrProtocol},
		"method cut":    {frameBytes("\x01\x05Exec"), wire.ErrProtocol},
		"no error":      {frameBytes("\x01\x00\x00\x00"), wire.ErrProtocol},
		"odd pointer":   {frameBytes("\x01\x00\x00\x00\x02"), wire.ErrProtocol},
		"two frames":    {frameBytes("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00"), wire.ErrProtocol},
		"cut in header": {[]byte{1, 0}, io.ErrUnexpectedEOF},
		"cut in body":   {frameBytes("{}")[:5], io.ErrUnexpectedEOF},
		"no body":       {frameBytes("{}")[:4], io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := wire.NewConn(&channel{Reader: bytes.NewReader(c.in)}).ReadFrame(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestWriteFrameTooLong(t *testing.T) {
	var c channel
	f := &wire.Frame{ID: 1, Params: make([]byte, wire.MaxFrame)}
	if err := wire.NewConn(&c).WriteFrame(f); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("WriteFrame: %v", err)
	}
	if c.Len() != 0 {
		t.Errorf("%d bytes were written", c.Len())
	}
}

// A peer that claims 8 MiB and sends little costs little.
func TestFrameMemoryFollowsBytes(t *testing.T) {
	in := append(binary.LittleEndian.AppendUint32(nil, wire.MaxFrame), make([]byte, 1000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const conns = 100
	for range conns {
		if _, err := wire.NewConn(&channel{Reader: bytes.NewReader(in)}).ReadFrame(); err == nil {
			t.Fatal("ReadFrame succeeded")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / conns; each > 256<<10 {
		t.Errorf("%d bytes for a frame of 1000", each)
	}
}

func TestAppendHello(t *testing.T) {
	for _, want := range []*wire.Hello{
		{Version: wire.Version},
		{Version: 7, Kernel: "6.12.0-lucid", UptimeNS: 12345},
	} {
		b := wire.AppendHello([]byte("x"), want)
		f, err := wire.NewConn(&channel{Reader: bytes.NewReader(b[1:])}).ReadFrame()
		if err != nil || f.Method != wire.EventHello || f.ID != 0 {
			t.Fatalf("%+v, %v", f, err)
		}
		got := new(wire.Hello)
		if err := wire.Unmarshal(f.Params, got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	b := wire.AppendHello(nil, &wire.Hello{Version: 1, Kernel: "a\"\\\x00\u00e4b"})
	if _, err := wire.NewConn(&channel{Reader: bytes.NewReader(b)}).ReadFrame(); err != nil {
		t.Errorf("odd release: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frameBytes("\x01\x04Exec\x02ab\x00\x00"))
	f.Add(wire.AppendHello(nil, &wire.Hello{Version: 1, Kernel: "6"}))
	f.Add([]byte{0xff, 0xff, 0x7f, 0, '{'})
	f.Add(append(frameBytes("\x00\x00\x00\x00\x00"), frameBytes("\x02\x00\x00\x00\x01\x01x\x00")...))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := wire.NewConn(&channel{Reader: bytes.NewReader(in)})
		for {
			got, err := c.ReadFrame()
			if err != nil {
				return
			}
			// What was read can be written, and reads the same again.
			var out channel
			if err := wire.NewConn(&out).WriteFrame(got); err != nil {
				t.Fatalf("write %+v: %v", got, err)
			}
			again, err := wire.NewConn(&channel{Reader: &out.Buffer}).ReadFrame()
			if err != nil || again.ID != got.ID || again.Method != got.Method {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}
