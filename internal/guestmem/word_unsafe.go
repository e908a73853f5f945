//go:build !race

package guestmem

import "unsafe"

// load16 and store16 are in word_amd64.s: sync/atomic has no 16-bit operation,
// and a plain Go load may be moved or repeated by the compiler.
//
// SAFETY: callers pass a pointer from Memory.at, which is to 2 live, aligned
// bytes; neither function keeps it.

//go:noescape
func load16(p unsafe.Pointer) uint16

//go:noescape
func store16(p unsafe.Pointer, v uint16)
