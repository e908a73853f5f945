package oci_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/internal/oci"
)

// TestCache: the word reaches the plan as it is; without one the plan has none, and the agent its default.
func TestCache(t *testing.T) {
	for _, word := range []string{"", oci.CacheMmap, oci.CacheNone, oci.CacheLoose} {
		spec := oci.Example()
		if word != "" {
			spec.Annotations = map[string]string{oci.AnnotationCache: word}
		}
		plan, err := oci.Split(spec, bundle(t, ""))
		if err != nil || plan.VM.Cache != word {
			t.Errorf("%q: %v, plan %+v", word, err, plan)
		}
	}
	for _, word := range []string{"", "fscache", "None", "none,posixacl", "none "} {
		spec := oci.Example()
		spec.Annotations = map[string]string{oci.AnnotationCache: word}
		_, err := oci.Split(spec, bundle(t, ""))
		var fe *oci.FieldError
		if !errors.As(err, &fe) || fe.Field != "annotations[lucid.9p-cache]" || !strings.Contains(err.Error(), "none of mmap, none and loose") {
			t.Errorf("%q: %v", word, err)
		}
	}
}
