package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

// size prints the size of the terminal.
func size() error {
	var ws struct{ row, col, x, y uint16 }
	// SAFETY: TIOCGWINSZ fills a struct winsize, which has this layout.
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws))); errno != 0 {
		return errno
	}
	fmt.Println(ws.col, ws.row)
	return nil
}
