package report

import (
	"io"

	"github.com/lucid-containers/lucid/bench"
)

func Write(w io.Writer, runs bench.Runs) error { return nil }
