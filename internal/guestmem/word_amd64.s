//go:build !race

#include "textflag.h"

// func load16(p unsafe.Pointer) uint16
TEXT ·load16(SB), NOSPLIT, $0-10
	MOVQ p+0(FP), AX
	MOVWLZX (AX), AX
	MOVW AX, ret+8(FP)
	RET

// func store16(p unsafe.Pointer, v uint16)
// XCHG with memory is a full barrier, like the stores of sync/atomic.
TEXT ·store16(SB), NOSPLIT, $0-10
	MOVQ p+0(FP), AX
	MOVW v+8(FP), CX
	XCHGW CX, (AX)
	RET
