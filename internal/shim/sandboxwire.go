package shim

// The messages of containerd.runtime.sandbox.v1, and the one of Kubernetes' that comes in them. They are few and small: the
// generated code of the first would bring gRPC along (6 MB), that of the second as much again. ttrpc hands over anything
// that protobuf can decode, and an Empty keeps what it does not know.

import (
	"context"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// message is a protobuf message that has been taken apart.
type message []wireField

type wireField struct {
	number protowire.Number
	value  uint64 // of a varint
	data   []byte // of anything with a length
}

// parseMessage takes a message apart. Fields of other kinds are left out: there are none here.
func parseMessage(b []byte) (message, error) {
	var m message
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		f := wireField{number: number}
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
			f.number = 0 // which no field has
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		m = append(m, f)
	}
	return m, nil
}

// last is a field that is there at most once; of several the last counts.
func (m message) last(number protowire.Number) wireField {
	var last wireField
	for _, f := range m {
		if f.number == number {
			last = f
		}
	}
	return last
}

func (m message) text(number protowire.Number) string  { return string(m.last(number).data) }
func (m message) count(number protowire.Number) uint64 { return m.last(number).value }
func (m message) number(number protowire.Number) int64 { return int64(m.last(number).value) }
func (m message) sub(number protowire.Number) (message, error) {
	return parseMessage(m.last(number).data)
}

func (m message) has(number protowire.Number) bool { return m.last(number).number == number }

// texts is a repeated string.
func (m message) texts(number protowire.Number) []string {
	var all []string
	for _, f := range m {
		if f.number == number {
			all = append(all, string(f.data))
		}
	}
	return all
}

// table is a map<string, string>.
func (m message) table(number protowire.Number) (map[string]string, error) {
	table := map[string]string{}
	for _, f := range m {
		if f.number != number {
			continue
		}
		entry, err := parseMessage(f.data)
		if err != nil {
			return nil, err
		}
		table[entry.text(1)] = entry.text(2)
	}
	return table, nil
}

func appendText(b []byte, number protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), text)
}

func appendCount(b []byte, number protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), n)
}

func appendMessage(b []byte, number protowire.Number, m proto.Message) ([]byte, error) {
	data, err := proto.Marshal(m)
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data), err
}

// appendTime appends a google.protobuf.Timestamp; no time is no field.
func appendTime(b []byte, number protowire.Number, t time.Time) ([]byte, error) {
	if t.IsZero() {
		return b, nil
	}
	return appendMessage(b, number, timestamppb.New(t))
}

// rawMethod is method for messages that are taken apart here.
func rawMethod(call func(context.Context, message) ([]byte, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var req emptypb.Empty
		if err := unmarshal(&req); err != nil {
			return nil, err
		}
		m, err := parseMessage(req.ProtoReflect().GetUnknown())
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		data, err := call(ctx, m)
		if err != nil {
			return nil, coded(err)
		}
		resp := new(emptypb.Empty)
		resp.ProtoReflect().SetUnknown(data)
		return resp, nil
	}
}
