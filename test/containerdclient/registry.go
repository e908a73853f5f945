package main

import (
	"fmt"
	"net/http"
	"path"
	"strings"
)

// ServeHTTP is the pulling half of the OCI distribution specification 1.1.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.NotFound(w, req)
		return
	}
	if rest == "" {
		return
	}
	var ref string
	if name, last, isManifest := strings.Cut(rest, "/manifests/"); isManifest {
		if ref = last; !strings.HasPrefix(ref, "sha256:") {
			ref = r.names[path.Base(name)]
		}
	} else if _, last, isBlob := strings.Cut(rest, "/blobs/"); isBlob {
		ref = last
	}
	data, ok := r.blobs[ref]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", r.types[ref])
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Header().Set("Docker-Content-Digest", ref)
	if req.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
}
