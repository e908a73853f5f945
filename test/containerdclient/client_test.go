package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/test/expected"
)

func TestProgress(t *testing.T) {
	lines := 0
	p := &progress{got: map[string]string{}, spoke: func() { lines++ }}
	for _, part := range []string{
		"=== RUN   TestA\n=== RUN   TestA/sub\n    --- FAIL: TestA/sub (0.00s)\n--- FAIL: TestA (0.1", "0s)\n=== RUN   TestB\n--- PASS: TestB (0.00s)\n",
		"=== RUN   TestC\n=== PAUSE TestC\n=== RUN   TestD\n--- SKIP: TestD (0.00s)\n=== CONT  TestC\nmore",
	} {
		if _, err := p.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"TestA": fail, "TestB": pass, "TestD": skipped}
	if !maps.Equal(p.got, want) || p.current != "TestC" || p.over || lines == 0 {
		t.Errorf("%v, %q runs, over: %t", p.got, p.current, p.over)
	}
	if _, err := p.Write([]byte("\nFAIL\n")); err != nil || !p.over {
		t.Errorf("%v, over: %t", err, p.over)
	}
}

func TestExpectations(t *testing.T) {
	list, err := expectations("| test |\n| `TestA` | pass | fail | |\n| `TestB_C` | skip | pass | no `x` here |\n")
	if err != nil || list["TestA"] != (expected.Row{Lucid: pass, Runc: fail}) || list["TestB_C"] != (expected.Row{Lucid: skipped, Runc: pass, Why: "no `x` here"}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, page := range []string{"", "| `TestA` | pass |\n", "| `TestA` | good | pass | |\n", "| `TestA` | fail | pass | |\n", "| `TestA` | pass | pass | |\n| `TestA` | pass | pass | |\n"} {
		if _, err := expectations(page); err == nil {
			t.Errorf("%q is taken for a table", page)
		}
	}
}

// TestPage: what the command compares with can be read.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expectations(string(text)); err != nil {
		t.Error(err)
	}
}

// TestPull fetches an image as a client does, through the proxy from whatever host, and compares all digests.
func TestPull(t *testing.T) {
	busybox := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(busybox, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := images(busybox, []string{"sh", "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	address, err := serve(p, r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.authority())
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: roots}}}
	get := func(path string) (data []byte, mediaType string) {
		t.Helper()
		resp, err := client.Get("https://registry.example/v2/some/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err = io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != digest(data) {
			t.Fatalf("%s: %s, %v, %v", path, resp.Status, resp.Header, err)
		}
		return data, resp.Header.Get("Content-Type")
	}
	var index struct{ Manifests []descriptor }
	data, kind := get("volume-copy-up/manifests/2.2")
	if err := json.Unmarshal(data, &index); err != nil || kind != typeIndex || len(index.Manifests) != 1 {
		t.Fatalf("%s, %v: %s", kind, err, data)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	data, kind = get("volume-copy-up/manifests/" + index.Manifests[0].Digest)
	if err := json.Unmarshal(data, &manifest); err != nil || kind != typeManifest || len(manifest.Layers) != 2 {
		t.Fatalf("%s, %v: %s", kind, err, data)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if data, _ := get("volume-copy-up/blobs/" + d.Digest); digest(data) != d.Digest || len(data) != d.Size {
			t.Errorf("%v is not what it says", d)
		}
	}
	resp, err := client.Get("https://registry.example/v2/some/other/manifests/1")
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("an image that there is not: %v, %v", resp, err)
	}
}
