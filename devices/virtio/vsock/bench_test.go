package vsock_test

import (
	"io"
	"testing"
)

// The fake guest is part of what these measure: it copies each packet twice and
// wakes a goroutine for each interrupt, like a guest kernel would.

func BenchmarkHostToGuest(b *testing.B) {
	host, guest := pair(b)
	buf := make([]byte, 64<<10)
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{guest}, make([]byte, 64<<10))
	}()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := host.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuestToHost(b *testing.B) {
	host, guest := pair(b)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := guest.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := io.ReadFull(host, buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = host.Close()
}

// BenchmarkPingPong is one byte to the guest and back.
func BenchmarkPingPong(b *testing.B) {
	host, guest := pair(b)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{guest}, struct{ io.Reader }{guest}, make([]byte, 64)) }()
	buf := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := host.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := host.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
