package oci_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci"
)

// platforms are not walked: they are refused as a whole.
var platforms = map[string]bool{"windows": true, "solaris": true, "zos": true, "freebsd": true}

// leaves calls f with the path of each field that holds no others.
func leaves(t reflect.Type, path string, f func(string)) {
	for {
		switch t.Kind() {
		case reflect.Pointer:
			t = t.Elem()
			continue
		case reflect.Slice:
			t, path = t.Elem(), path+"[]"
			continue
		case reflect.Map:
			e := t.Elem()
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			if e.Kind() == reflect.Struct {
				t, path = e, path+"{}"
				continue
			}
		}
		break
	}
	if t.Kind() != reflect.Struct || platforms[path] {
		f(path)
		return
	}
	for i := range t.NumField() {
		name := jsonName(t.Field(i))
		switch {
		case name == "":
			leaves(t.Field(i).Type, path, f)
		case path == "":
			leaves(t.Field(i).Type, name, f)
		default:
			leaves(t.Field(i).Type, path+"."+name, f)
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// documented is where each line of the document says that a field goes.
func documented(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	where := map[string]string{}
	fields, _, _ := strings.Cut(string(data), "\n## Validation programs\n")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\w+) \\|").FindAllStringSubmatch(fields, -1) {
		if where[m[1]] != "" {
			t.Errorf("%s has two lines", m[1])
		}
		where[m[1]] = m[2]
	}
	return where
}

// TestConformance: docs/conformance.md has a line for each field of the
// specification's types, and tells the truth.
func TestConformance(t *testing.T) {
	where := documented(t)
	dir := bundle(t, "")
	before, err := outcome(full(t), dir)
	if err != nil {
		t.Fatalf("without any change: %v", err)
	}
	leaves(reflect.TypeFor[specs.Spec](), "", func(path string) {
		line := where[path]
		delete(where, path)
		if line == "" {
			t.Errorf("%s has no line", path)
			return
		}
		spec := full(t)
		change(t, reflect.ValueOf(spec).Elem(), strings.Split(path, "."), path)
		after, err := outcome(spec, dir)
		check(t, path, line, before, after, err)
	})
	for path := range where {
		t.Errorf("%s has a line and is no field", path)
	}
}

// parts of a plan, as JSON.
type parts struct {
	host, guest, vm string
	ignored         []string
}

func outcome(spec *specs.Spec, dir string) (*parts, error) {
	if err := oci.Validate(spec); err != nil {
		return nil, err
	}
	plan, err := oci.Split(spec, dir)
	if err != nil {
		return nil, err
	}
	text := func(v any) string {
		data, _ := json.Marshal(v)
		return string(data)
	}
	// The annotations and the version go from the spec into the record.
	return &parts{
		host:  text(plan.Host) + text(spec.Annotations) + spec.Version,
		guest: text(plan.Guest) + text(plan.Seccomp),
		vm:    text(plan.VM), ignored: plan.Ignored,
	}, nil
}

// inGuestToo are fields of plan.Guest that the sandbox process reads as well.
var inGuestToo = map[string]bool{"process.terminal": true, "process.consoleSize.height": true, "process.consoleSize.width": true}

func check(t *testing.T, path, line string, before, after *parts, err error) {
	t.Helper()
	if line == "refused" {
		if err == nil {
			t.Errorf("%s is not refused", path)
			return
		}
		var field *oci.FieldError
		if errors.As(err, &field) && !strings.HasPrefix(plain(path), plain(field.Field)) || !errors.As(err, &field) && !platforms[path] && !strings.Contains(err.Error(), "linux.seccomp.") {
			t.Errorf("%s: the error is about something else: %v", path, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s is refused: %v", path, err)
		return
	}
	host, guest, vm := before.host != after.host, before.guest != after.guest, before.vm != after.vm
	noted := false
	for _, f := range after.ignored {
		noted = noted || strings.HasPrefix(plain(path), plain(f))
	}
	got := "silent"
	switch {
	case noted:
		got = "ignored"
	case guest && (host || vm || inGuestToo[path]):
		got = "both"
	case guest:
		got = "guest"
	case host:
		got = "host"
	case vm:
		got = "VM"
	}
	if got != line {
		t.Errorf("%s: the line says %s, and it is %s", path, line, got)
	}
}

// plain takes the signs for elements away.
func plain(path string) string {
	// The Go type says vm.hwconfig, the specification's text hwConfig.
	return strings.ToLower(regexp.MustCompile(`\[[^]]*\]|\{\}`).ReplaceAllString(path, ""))
}

// values are what fields are changed to that do not take any.
var values = map[string]any{
	"ociVersion": "1.0.0", "process.cwd": "/tmp", "process.capabilities.bounding[]": "CAP_KILL",
	"process.rlimits[].type": "RLIMIT_CORE", "process.rlimits[].soft": uint64(5),
	"process.scheduler.policy": "SCHED_RR", "process.scheduler.flags[]": "SCHED_FLAG_RESET_ON_FORK",
	"root.path": ".", "mounts[].type": "tmpfs", "mounts[].source": ".", "mounts[].options[]": "ro",
	"linux.namespaces[].type": "ipc", "linux.namespaces[].path": "/run/netns/x", "linux.devices[].type": "b", "linux.devices[].path": "/dev/y",
	"linux.rootfsPropagation": "shared", "linux.maskedPaths[]": "/x", "linux.readonlyPaths[]": "/y", "linux.personality.domain": "LINUX32",
	"linux.resources.memory.limit": int64(1 << 30), "linux.resources.cpu.quota": int64(400000), "linux.resources.cpu.period": uint64(10000),
	"linux.resources.unified":     map[string]string{"memory.high": "5"},
	"linux.seccomp.defaultAction": "SCMP_ACT_ALLOW", "linux.seccomp.architectures[]": "SCMP_ARCH_X32", "linux.seccomp.flags[]": "SECCOMP_FILTER_FLAG_LOG", "linux.seccomp.defaultErrnoRet": uint(38),
	"linux.seccomp.syscalls[].names[]": "write", "linux.seccomp.syscalls[].action": "SCMP_ACT_TRACE", "linux.seccomp.syscalls[].args[].op": "SCMP_CMP_NE",
	"vm.kernel.path": "/k", "vm.kernel.initrd": "/i", "vm.hwconfig.vcpus": uint32(3), "vm.hwconfig.memory": uint64(512 << 20),
}

// change sets one field to another value, and makes what it lies in.
func change(t *testing.T, v reflect.Value, rest []string, path string) {
	t.Helper()
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		change(t, v.Elem(), rest, path)
		return
	}
	if len(rest) == 0 {
		set(t, v, path)
		return
	}
	name := strings.TrimRight(rest[0], "[]{}")
	field := byJSONName(v, name)
	if !field.IsValid() {
		t.Fatalf("%s: no %s", path, name)
	}
	switch {
	case strings.HasSuffix(rest[0], "[]"):
		if field.Len() == 0 || len(rest) == 1 {
			field.Set(reflect.Append(field, reflect.Zero(field.Type().Elem())))
		}
		change(t, field.Index(field.Len()-1), rest[1:], path)
	case strings.HasSuffix(rest[0], "{}"):
		e := reflect.New(field.Type().Elem()).Elem()
		key := reflect.ValueOf("monotonic")
		if field.IsNil() {
			field.Set(reflect.MakeMap(field.Type()))
		} else if old := field.MapIndex(key); old.IsValid() {
			e.Set(old)
		}
		change(t, e, rest[1:], path)
		field.SetMapIndex(key, e)
	default:
		change(t, field, rest[1:], path)
	}
}

// byJSONName finds a field, also in an embedded struct.
func byJSONName(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		switch jsonName(v.Type().Field(i)) {
		case name:
			return v.Field(i)
		case "":
			if f := byJSONName(v.Field(i), name); f.IsValid() {
				return f
			}
		}
	}
	return reflect.Value{}
}

func set(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	if value, ok := values[path]; ok {
		v.Set(reflect.ValueOf(value).Convert(v.Type()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "/x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.Struct: // a platform
	default:
		t.Fatalf("%s: what to set a %s to?", path, v.Kind())
	}
}

// full has what a change of one field needs around it.
func full(t *testing.T) *specs.Spec {
	t.Helper()
	s := oci.Example()
	const more = `{
		"process": {"scheduler": {"policy": "SCHED_OTHER"}, "capabilities": {"bounding": []}},
		"mounts": [{"destination": "/tmp", "type": "bind", "source": "rootfs"}],
		"hooks": {
			"prestart": [{"path": "/h"}], "createRuntime": [{"path": "/h"}], "createContainer": [{"path": "/h"}], "startContainer": [{"path": "/h"}],
			"poststart": [{"path": "/h"}], "poststop": [{"path": "/h"}]
		},
		"linux": {
			"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "user"}, {"type": "time"}, {"type": "network"}],
			"uidMappings": [{"size": 1}], "gidMappings": [{"size": 1}],
			"devices": [{"path": "/dev/x", "type": "c"}],
			"personality": {"domain": "LINUX"},
			"resources": {"memory": {}, "cpu": {"quota": 100000, "period": 100000}},
			"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
				{"names": ["openat2", "read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
				 "args": [{"index": 1, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}
			]}
		}
	}`
	if err := json.Unmarshal([]byte(more), s); err != nil {
		t.Fatal(err)
	}
	return s
}
