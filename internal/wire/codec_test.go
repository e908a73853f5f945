package wire_test

import (
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/internal/filltest"
	"github.com/lucid-containers/lucid/internal/wire"
)

// messages are zero values of all that goes through the channel.
var messages = []any{
	wire.Frame{},
	wire.Hello{},
	wire.Prepared{},
	wire.Grow{},
	wire.Configure{},
	wire.CreateContainer{},
	wire.Created{},
	wire.StartContainer{},
	wire.Exec{},
	wire.Signal{},
	wire.ResizeTTY{},
	wire.CloseStdin{},
	wire.Freeze{},
	wire.Stats{},
	wire.StatsResult{},
	wire.Pids{},
	wire.PidsResult{},
	wire.Update{},
	wire.DeleteContainer{},
	wire.ContainerExited{},
	wire.ContainerOOM{},
}

func TestCodecRoundTrip(t *testing.T) {
	for _, m := range messages {
		for _, full := range []bool{false, true} {
			want := reflect.New(reflect.TypeOf(m))
			if n := 0; full {
				filltest.Fill(want.Elem(), &n)
			}
			data, err := wire.Marshal(want.Interface())
			if err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			got := reflect.New(reflect.TypeOf(m))
			if err := wire.Unmarshal(data, got.Interface()); err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			if d := cmp.Diff(want.Interface(), got.Interface()); d != "" {
				t.Errorf("%T: %s", m, d)
			}
			// Cut anywhere, or longer, it is nobody's message.
			for n := 1; n < len(data); n++ {
				if err := wire.Unmarshal(data[:n], reflect.New(reflect.TypeOf(m)).Interface()); !errors.Is(err, wire.ErrProtocol) {
					t.Fatalf("%T: %d of %d bytes: %v", m, n, len(data), err)
				}
			}
			if err := wire.Unmarshal(append(data, 0), reflect.New(reflect.TypeOf(m)).Interface()); len(data) > 0 && !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("%T: a byte too many: %v", m, err)
			}
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	if _, err := wire.Marshal(struct{ F float64 }{1}); err == nil {
		t.Error("a type that no message has")
	}
	for name, c := range map[string]struct {
		data string
		into any
	}{
		"bool of 2":        {"\x02", new(bool)},
		"int8 of 200":      {"\x90\x03", new(int8)},
		"uint8 of 256":     {"\x80\x02", new(uint8)},
		"endless number":   {strings.Repeat("\x80", 20), new(uint64)},
		"long string":      {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", new(string)},
		"many elements":    {"\xff\xff\xff\xff\x0fabc", new([]uint64)},
		"many pairs":       {"\xff\xff\xff\xff\x0fabc", new(map[string]string)},
		"float":            {"\x01", new(float64)},
		"string for a int": {"\x03abc", new(int)},
	} {
		if err := wire.Unmarshal([]byte(c.data), c.into); err == nil {
			t.Errorf("%s: %+v", name, c.into)
		}
	}
}

// What a guest claims costs no memory.
func TestCodecMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		var p wire.PidsResult
		if err := wire.Unmarshal([]byte("\xff\xff\xff\x03abc"), &p); err == nil {
			t.Fatal("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 4<<10 {
		t.Errorf("%d bytes each", each)
	}
}

func FuzzUnmarshal(f *testing.F) {
	n := 0
	v := reflect.New(reflect.TypeFor[wire.CreateContainer]())
	filltest.Fill(v.Elem(), &n)
	seed, err := wire.Marshal(v.Interface())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range messages {
			got := reflect.New(reflect.TypeOf(m))
			if wire.Unmarshal(data, got.Interface()) != nil {
				continue
			}
			again, err := wire.Marshal(got.Interface())
			if err != nil {
				t.Fatal(err)
			}
			if err := wire.Unmarshal(again, reflect.New(reflect.TypeOf(m)).Interface()); err != nil {
				t.Fatalf("%T: %v", m, err)
			}
		}
	})
}
