package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// logger writes the lines that containerd, podman and cri-o read: the keys
// level, msg and time of logrus, in text or JSON.
type logger struct {
	*slog.Logger
	file  *os.File // nil: standard error
	json  bool
	debug bool
}

func stderrLogger() *logger {
	return &logger{Logger: newSlog(os.Stderr, false, slog.LevelWarn)}
}

// openLogger appends to path, or writes to standard error if that is empty.
func openLogger(path string, json, debug bool) (*logger, error) {
	level := slog.LevelInfo
	if path == "" {
		// A foreground container's own output goes there.
		level = slog.LevelWarn
	}
	if debug {
		level = slog.LevelDebug
	}
	l := &logger{json: json, debug: debug}
	w := os.Stderr
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return nil, err
		}
		l.file, w = f, f
	}
	l.Logger = newSlog(w, json, level)
	return l, nil
}

// fatal reports the error that ends the program: in the log, and to the user
// in one plain line.
func (l *logger) fatal(err error) {
	if l.file != nil || l.json {
		l.Error(err.Error())
	}
	if l.file != nil || !l.json {
		fmt.Fprintln(os.Stderr, "lucid: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func newSlog(w io.Writer, json bool, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.LevelKey:
				return slog.String(a.Key, levelName(a.Value.Any()))
			case slog.TimeKey:
				return slog.String(a.Key, a.Value.Time().Format(time.RFC3339))
			}
			return a
		},
	}
	if json {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// levelName is logrus's name of a level.
func levelName(v any) string {
	level, ok := v.(slog.Level)
	switch {
	case !ok:
		return fmt.Sprint(v)
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	default:
		return "debug"
	}
}

// sandboxLevel is the level of a sandbox process.
func sandboxLevel(debug bool) slog.Level {
	if debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
