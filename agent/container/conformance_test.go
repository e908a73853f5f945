package container_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/agent/container"
)

// specFields calls f with the path of each field of t that holds no others.
func specFields(t reflect.Type, path string, f func(string)) {
	switch t.Kind() {
	case reflect.Pointer:
		specFields(t.Elem(), path, f)
	case reflect.Slice:
		specFields(t.Elem(), path+"[]", f)
	case reflect.Map:
		if t.Elem().Kind() == reflect.Struct {
			specFields(t.Elem(), path+"{}", f)
			return
		}
		f(path)
	case reflect.Struct:
		for field := range t.Fields() {
			name := field.Tag.Get("json")
			if path != "" {
				name = path + "." + name
			}
			specFields(field.Type, name, f)
		}
	default:
		f(path)
	}
}

// TestSpecIsTheDocument: what docs/conformance.md says the guest does is what
// the agent reads of config.json, no less and no more.
func TestSpecIsTheDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (guest|both) \\|").FindAllStringSubmatch(string(data), -1) {
		if !strings.HasPrefix(m[1], "linux.seccomp.") { // it gets that compiled
			want[m[1]] = true
		}
	}
	// The name of an export, or the guest's own file system: from mounts[].source.
	want["mounts[].source"] = true
	// It refuses a path, which the host does before it.
	want["linux.namespaces[].path"] = true
	specFields(reflect.TypeFor[container.Spec](), "", func(path string) {
		if !want[path] {
			t.Errorf("the agent reads %s, which is not said to be the guest's", path)
		}
		delete(want, path)
	})
	for path := range want {
		t.Errorf("%s is said to be the guest's, and the agent does not read it", path)
	}
}
