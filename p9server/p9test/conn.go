package p9test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
)

// connWorkers is how many requests of one connection are served at a time.
const connWorkers = 4

// maxFrame bounds a frame on a stream: msize, which is not known here.
const maxFrame = 1 << 20

var replies = sync.Pool{New: func() any { return new([maxFrame]byte) }}

// ServeConn serves a session on a byte stream until it ends, and closes the
// session. It is for tests: a virtqueue hands over whole messages, a stream has
// to be cut into them, and each is copied.
func ServeConn(s *p9server.Session, conn io.ReadWriter) error {
	defer s.Close()
	var writing sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, connWorkers)
	for {
		frame, err := readFrame(conn)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		req := s.Accept([][]byte{frame})
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			reply := replies.Get().(*[maxFrame]byte)
			n := req.Serve([][]byte{reply[:]})
			writing.Lock()
			_, _ = conn.Write(reply[:n]) // a dead peer ends the reads, too
			writing.Unlock()
			replies.Put(reply)
			req.Done()
			<-slots
		}()
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n < p9.HeaderSize || n > maxFrame {
		return nil, fmt.Errorf("p9test: frame of %d bytes", n)
	}
	frame := make([]byte, n)
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}
