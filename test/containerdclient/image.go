package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
)

// The media types of the OCI image specification 1.0.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// entry is a file of a layer.
type entry struct {
	name string // a directory's ends with a slash
	mode int64
	link string // of a symbolic link
	data []byte
}

// layer makes a tar file of the entries.
func layer(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.name[len(e.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// descriptor points to a blob.
type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int       `json:"size"`
	Platform  *platform `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// registry is what a registry serves: blobs by digest, and which one each name is, whatever the tag.
type registry struct {
	blobs map[string][]byte
	types map[string]string // of the blobs that are asked for as manifests
	names map[string]string
}

func newRegistry() *registry {
	return &registry{map[string][]byte{}, map[string]string{}, map[string]string{}}
}

func (r *registry) blob(mediaType string, data []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
	r.blobs[d.Digest], r.types[d.Digest] = data, mediaType
	return d
}

func (r *registry) json(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	return r.blob(mediaType, data), err
}

// add makes an image of the layers.
func (r *registry) add(name string, layers ...[]entry) error {
	var ids []string
	var descriptors []descriptor
	for _, entries := range layers {
		data, err := layer(entries)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		ids = append(ids, digest(data))
		descriptors = append(descriptors, r.blob(typeLayer, b.Bytes()))
	}
	amd64 := platform{"amd64", "linux"}
	config, err := r.json(typeConfig, map[string]any{
		"architecture": amd64.Architecture, "os": amd64.OS,
		"config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		return err
	}
	manifest, err := r.json(typeManifest, map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": descriptors})
	if err != nil {
		return err
	}
	manifest.Platform = &amd64
	index, err := r.json(typeIndex, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})
	r.names[name] = index.Digest
	return err
}

// The users that the tests know from the busybox image that they would pull.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n" +
		"sys:x:3:3:sys:/dev:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nbackup:x:34:34:backup:/:/bin/sh\n" +
		"nobody:x:65534:65534:nobody:/home:/bin/false\n"
	groups = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\nwww-data:x:33:\nbackup:x:34:\nnogroup:x:65534:\n"
)

// base is a root file system of busybox alone.
func base(busybox string, applets []string) ([]entry, error) {
	data, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	entries := []entry{
		{name: "bin/", mode: 0o755},
		{name: "dev/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "proc/", mode: 0o555},
		{name: "root/", mode: 0o700},
		{name: "run/", mode: 0o755},
		{name: "sys/", mode: 0o555},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, data: []byte(passwd)},
		{name: "etc/group", mode: 0o644, data: []byte(groups)},
		{name: "bin/busybox", mode: 0o755, data: data},
	}
	for _, a := range applets {
		if a != "busybox" {
			entries = append(entries, entry{name: "bin/" + a, mode: 0o777, link: "busybox"})
		}
	}
	return entries, nil
}

// images makes the images that the tests ask for.
func images(busybox string, applets []string) (*registry, error) {
	root, err := base(busybox, applets)
	if err != nil {
		return nil, err
	}
	r := newRegistry()
	for name, more := range map[string][]entry{
		"busybox": nil,
		// Its tests want to be the first that unpack it.
		"pause": {{name: "pause", mode: 0o644, data: []byte("pause\n")}},
		"volume-copy-up": {
			{name: "test_dir/", mode: 0o755},
			{name: "test_dir/test_file", mode: 0o644, data: []byte("test_content\n")},
		},
		// Its test wants a set-user-ID program, and a bash to look for it with.
		"volume-ownership": {
			{name: "usr/bin/passwd", mode: 0o4755, data: []byte("#!/bin/sh\n")},
			{name: "bin/bash", mode: 0o755, data: []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n")},
		},
	} {
		layers := [][]entry{root}
		if more != nil {
			layers = append(layers, more)
		}
		if err := r.add(name, layers...); err != nil {
			return nil, err
		}
	}
	return r, nil
}
