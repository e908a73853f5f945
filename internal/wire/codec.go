package wire

import (
	"encoding/binary"
	"errors"
	"reflect"
)

// The form of a message's parameters on the channel: the fields of its type in their
// order, without names, for both ends are built from one tree (Version).
//
//	bool              one byte, 0 or 1
//	int…, uint…       varint, uvarint (encoding/binary)
//	string, []byte    uvarint n, n bytes
//	slice, map        uvarint n, n elements or pairs
//	pointer           0, or 1 and what it points to
//	struct            its fields
//
// JSON, of which each level is scanned twice and each field looked up, took 1.4 of
// the 3.1 million instructions in which a clone of a template creates and starts a
// container (docs/flows/template.md).

var (
	errShort   = protocolError("message is cut short")
	errLong    = protocolError("message is followed by something")
	errBool    = protocolError("byte that is neither 0 nor 1")
	errRange   = protocolError("number out of range")
	errCount   = protocolError("more elements than bytes")
	errNotWire = errors.New("wire: type has no form on the channel")
)

// Marshal returns v, a message or a pointer to one, in the form above; nil is an empty
// message. It fails for types that are in no message only.
func Marshal(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return appendValue(nil, reflect.Indirect(reflect.ValueOf(v)))
}

func appendValue(b []byte, v reflect.Value) (_ []byte, err error) {
	switch v.Kind() {
	case reflect.Bool:
		return append(b, boolByte(v.Bool())), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint()), nil
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...), nil
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...), nil
		}
		for i := range v.Len() {
			if b, err = appendValue(b, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Map:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for i := v.MapRange(); i.Next(); {
			if b, err = appendValue(b, i.Key()); err == nil {
				b, err = appendValue(b, i.Value())
			}
			if err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0), nil
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if b, err = appendValue(b, v.Field(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, errNotWire
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Unmarshal reads what Marshal wrote into v, a pointer to a zero message. An empty
// message leaves it zero. What the peer sends is checked: the error wraps
// ErrProtocol, and no more is allocated than the elements that the bytes can hold.
func Unmarshal(data []byte, v any) error {
	if len(data) == 0 {
		return nil
	}
	d := decoder{rest: data, text: string(data)}
	if err := d.value(reflect.ValueOf(v).Elem()); err != nil {
		return err
	}
	if len(d.rest) > 0 {
		return errLong
	}
	return nil
}

// decoder has what is not read yet.
type decoder struct {
	rest []byte
	text string // the whole message: strings are parts of it, not copies
}

func (d *decoder) value(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		set, err := d.bool()
		v.SetBool(set)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, size := binary.Varint(d.rest)
		if size <= 0 || v.OverflowInt(n) {
			return errRange
		}
		d.rest = d.rest[size:]
		v.SetInt(n)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := d.uint()
		if err != nil || v.OverflowUint(n) {
			return errRange
		}
		v.SetUint(n)
		return nil
	case reflect.String:
		s, err := d.string()
		v.SetString(s)
		return err
	case reflect.Slice:
		return d.slice(v)
	case reflect.Map:
		return d.pairs(v)
	case reflect.Pointer:
		if set, err := d.bool(); err != nil || !set {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if err := d.value(v.Field(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return errNotWire
}

func (d *decoder) bool() (bool, error) {
	if len(d.rest) == 0 {
		return false, errShort
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	if b > 1 {
		return false, errBool
	}
	return b == 1, nil
}

func (d *decoder) uint() (uint64, error) {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		return 0, errRange
	}
	d.rest = d.rest[size:]
	return n, nil
}

// bytes returns a part of the message.
func (d *decoder) bytes() ([]byte, error) {
	n, err := d.uint()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(d.rest)) {
		return nil, errShort
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, nil
}

// string returns a part of the message.
func (d *decoder) string() (string, error) {
	b, err := d.bytes()
	end := len(d.text) - len(d.rest)
	return d.text[end-len(b) : end], err
}

// count is of elements, each of which has a byte at least.
func (d *decoder) count() (int, error) {
	n, err := d.uint()
	if err == nil && n > uint64(len(d.rest)) {
		err = errCount
	}
	return int(n), err
}

func (d *decoder) slice(v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b, err := d.bytes()
		if len(b) > 0 {
			v.SetBytes(b) // the message is nobody else's
		}
		return err
	}
	n, err := d.count()
	if n == 0 || err != nil {
		return err
	}
	if list, ok := v.Addr().Interface().(*[]string); ok { // most are
		*list = make([]string, n)
		for i := range *list {
			if (*list)[i], err = d.string(); err != nil {
				return err
			}
		}
		return nil
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		if err := d.value(v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) pairs(v reflect.Value) error {
	n, err := d.count()
	if n == 0 || err != nil {
		return err
	}
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	for range n {
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.value(key); err != nil {
			return err
		}
		if err := d.value(value); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}
