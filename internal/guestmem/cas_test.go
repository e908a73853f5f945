package guestmem

import (
	"errors"
	"testing"
)

func TestCompareAndSwap(t *testing.T) {
	m, err := Alloc(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if ok, err := m.CompareAndSwap64(8, 0, 5); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := m.CompareAndSwap64(8, 0, 6); ok || err != nil {
		t.Fatal(ok, err)
	}
	held, ok, err := m.CompareAndSwap128(0, Uint128{0, 5}, Uint128{1, 2})
	if err != nil || !ok || held != (Uint128{0, 5}) {
		t.Fatal(held, ok, err)
	}
	held, ok, err = m.CompareAndSwap128(0, Uint128{0, 5}, Uint128{3, 4})
	if err != nil || ok || held != (Uint128{1, 2}) {
		t.Fatal(held, ok, err)
	}
	if v, _ := m.Load64(8); v != 2 {
		t.Fatal(v)
	}
	if _, _, err := m.CompareAndSwap128(8, Uint128{}, Uint128{}); !errors.Is(err, ErrAlign) {
		t.Fatal(err)
	}
	if _, _, err := m.CompareAndSwap128(PageSize, Uint128{}, Uint128{}); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
}
