package sandbox

import (
	"log/slog"

	"github.com/lucid-containers/lucid/internal/control"
)

// Main is replaced below.
func Main(child *control.Child, log *slog.Logger) int { _ = child; _ = log; return 1 }
