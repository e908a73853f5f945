package shim

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// field is one string field of a protobuf message.
func field(n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
}

// runtimeOptions is what ctr and CRI send for a runtime they do not know, as the Any that containerd 1.6 to 2.2 put on
// stdin: runtimeoptions.v1.Options with config_path = "/etc/x".
const runtimeOptions = "0a1972756e74696d656f7074696f6e732e76312e4f7074696f6e7312081206" + "2f6574632f78"

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDialects(t *testing.T) {
	args := func(more ...string) []string {
		return append([]string{
			"-namespace", "default", "-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd", "-id", "c1",
		}, append(more, "start")...)
	}
	old := map[string]string{"TTRPC_ADDRESS": "/run/containerd/containerd.sock.ttrpc"}
	v2 := map[string]string{"TTRPC_ADDRESS": "/run/containerd/containerd.sock.ttrpc", "MAX_SHIM_VERSION": "2", "NAMESPACE": "default", "GRPC_ADDRESS": "/run/containerd/containerd.sock"}
	params := append(field(1, "c1"), field(2, "default")...)
	params = append(params, 3<<3, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1) // log_level: -4
	params = append(params, field(4, "v2.4.2")...)
	params = append(params, field(5, "/other.ttrpc")...)
	params = append(params, field(6, "/other.sock")...)
	params = append(params, field(9, "/run/s")...)
	for _, c := range []struct {
		name  string
		env   map[string]string
		stdin []byte
		want  dialect
	}{
		{"containerd 1.6", old, nil, plain},
		{"containerd 1.6 with options", old, unhex(t, runtimeOptions), plain},
		{"cri-o", map[string]string{"MAX_SHIM_VERSION": "2"}, nil, jsonV2},
		{"containerd 1.7 to 2.2", v2, unhex(t, runtimeOptions), jsonV2},
		{"containerd 2.3", v2, params, protobuf},
		{"containerd 2.3 without the old environment", nil, params, protobuf},
		{"parameters of another container", v2, append(field(1, "c2"), field(2, "default")...), jsonV2},
		{"parameters of another namespace", v2, append(field(1, "c1"), field(2, "moby")...), jsonV2},
		{"an Any whose type is called like the container", v2, field(1, "c1"), jsonV2},
		{"rubbish", old, []byte{0xff, 0xff, 0xff}, plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := parseCall(args(), func(k string) string { return c.env[k] })
			if err != nil {
				t.Fatal(err)
			}
			got := call.recognise(c.stdin)
			if got != c.want {
				t.Fatalf("dialect %d, want %d", got, c.want)
			}
			if got == protobuf && (call.socketDir != "/run/s" || !call.debug) {
				t.Errorf("socket directory %q, debug %t", call.socketDir, call.debug)
			}
			if want := or(c.env["TTRPC_ADDRESS"], map[bool]string{true: "/other.ttrpc"}[got == protobuf]); call.ttrpc != want {
				t.Errorf("events go to %q, want %q", call.ttrpc, want)
			}
			checkAnswer(t, got)
		})
	}
}

// runc's options reach a shim of any name, each way that there is; one that is not runc's is no matter.
func TestShimCgroup(t *testing.T) {
	a := append(field(1, "containerd.runc.v1.Options"), field(2, string(field(3, "/a/b")))...)
	params := append(append(field(1, "c1"), field(2, "default")...), field(8, string(field(1, string(a))))...)
	for want, stdin := range map[string][][]byte{"/a/b": {a, params}, "": {nil, unhex(t, runtimeOptions), params[:len(params)-1]}} {
		for _, data := range stdin {
			c, err := parseCall([]string{"-namespace", "default", "-id", "c1", "start"}, func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			if c.recognise(data); c.shimCgroup != want {
				t.Errorf("%x: %q, want %q", data, c.shimCgroup, want)
			}
		}
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// checkAnswer reads an answer as the containerd of that dialect does.
func checkAnswer(t *testing.T, d dialect) {
	t.Helper()
	const address = "unix:///run/containerd/s/0123"
	answer, err := d.answer(address)
	if err != nil {
		t.Fatal(err)
	}
	switch d {
	case plain:
		if string(answer) != address {
			t.Errorf("%q", answer)
		}
	case jsonV2:
		var a struct {
			Version           int
			Address, Protocol string
		}
		if err := json.Unmarshal(answer, &a); err != nil || a.Version != 2 || a.Address != address || a.Protocol != "ttrpc" {
			t.Errorf("%q, %v", answer, err)
		}
	case protobuf:
		var r bootstrap.BootstrapResult
		if err := proto.Unmarshal(answer, &r); err != nil || r.Version != 3 || r.Address != address || r.Protocol != "ttrpc" {
			t.Errorf("%q, %v", answer, err)
		}
	}
}

// The fixture is what it says.
func TestRuntimeOptionsFixture(t *testing.T) {
	var a anypb.Any
	if err := proto.Unmarshal(unhex(t, runtimeOptions), &a); err != nil || a.TypeUrl != "runtimeoptions.v1.Options" || !strings.Contains(string(a.Value), "/etc/x") {
		t.Errorf("%v, %v", &a, err)
	}
}

func TestBadCalls(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no action", []string{"-id", "c", "-namespace", "n"}, "actions"},
		{"unknown action", []string{"-id", "c", "-namespace", "n", "stop"}, "stop"},
		{"no id", []string{"-namespace", "n", "start"}, "-id"},
		{"no namespace", []string{"-id", "c", "start"}, "-namespace"},
		{"a path for an id", []string{"-id", "../x", "-namespace", "n", "delete"}, "../x"},
		{"a path for a namespace", []string{"-id", "x", "-namespace", "..", "delete"}, ".."},
		{"relative bundle", []string{"-id", "x", "-namespace", "n", "-bundle", "b", "delete"}, "-bundle"},
		{"unknown flag", []string{"-x", "start"}, "-x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseCall(c.args, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want it to name %q", err, c.want)
			}
		})
	}
	if _, err := parseCall([]string{"-v"}, func(string) string { return "" }); err != nil {
		t.Errorf("-v: %v", err)
	}
}
