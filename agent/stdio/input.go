package stdio

import (
	"io"
	"os"
	"sync"

	"github.com/lucid-containers/lucid/internal/wire"
)

// input copies a stream to the process's stdin.
type input struct {
	stream   wire.Stream
	sink     *os.File
	keepSink bool // a terminal, which carries output as well
	once     sync.Once
}

// newInput opens stream id, and a pipe that it feeds. id 0 is /dev/null.
func newInput(o wire.Opener, id uint64) (*input, int, error) {
	stream, w, fd, err := open(o, id, 1)
	if err != nil || stream == nil {
		return nil, fd, err
	}
	return &input{stream: stream, sink: w}, fd, nil
}

// RoutineInput copies until the stream ends or nobody reads the pipe.
func (in *input) RoutineInput() {
	buf := make([]byte, bufferSize)
	for {
		n, err := in.stream.Read(buf)
		if n > 0 {
			if _, werr := in.sink.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err == io.EOF && in.keepSink {
			return // the terminal lives on
		}
		if err != nil {
			break
		}
	}
	in.close()
}

// close gives the process EOF, and the host an error if it writes on.
func (in *input) close() {
	in.once.Do(func() {
		if !in.keepSink {
			_ = in.sink.Close()
		}
		_ = in.stream.Close()
	})
}
