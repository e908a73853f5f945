package labproto

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestCopyRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, MaxChunk - 5, MaxChunk - 4, MaxChunk, 3*MaxChunk + 17} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * 7)
		}
		var wire, got bytes.Buffer
		if err := CopyIn(&wire, bytes.NewReader(want)); err != nil {
			t.Fatal(err)
		}
		wire.WriteString("after the end")
		if err := CopyOut(&got, iotest.OneByteReader(&wire)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("size %d: %d bytes came back different", size, got.Len())
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		wire string
		want error
	}{
		"cut before the end": {"\x01\x00\x00\x00x", io.ErrUnexpectedEOF},
		"cut in the length":  {"\x01\x00", io.ErrUnexpectedEOF},
		"cut in the chunk":   {"\x05\x00\x00\x00abc", io.ErrUnexpectedEOF},
		"too long":           {"\xff\xff\xff\xff", ErrChunk},
	} {
		if err := CopyOut(io.Discard, bytes.NewReader([]byte(c.wire))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A reader that has gone away must not block the sender.
func TestCopyOutDrains(t *testing.T) {
	var wire bytes.Buffer
	if err := CopyIn(&wire, bytes.NewReader(make([]byte, 4*MaxChunk))); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	_ = r.Close()
	if err := CopyOut(w, &wire); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v, want io.ErrClosedPipe", err)
	}
	if wire.Len() != 0 {
		t.Errorf("%d bytes left", wire.Len())
	}
}

func TestCopyInSendsEndOnError(t *testing.T) {
	var wire bytes.Buffer
	boom := errors.New("boom")
	if err := CopyIn(&wire, iotest.ErrReader(boom)); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	if err := CopyOut(io.Discard, &wire); err != nil {
		t.Errorf("no end chunk: %v", err)
	}
}
