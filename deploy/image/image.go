// Package image makes middleway's container image out of its programs: for several architectures at once, from nothing, without a container
// engine, and the same bytes from the same programs wherever it is made.
//
// What it writes is one tar file in two forms at once. It is an OCI image layout (image-spec 1.1, image-layout.md): containerd, and what
// builds on it, reads that, with all architectures. The file manifest.json beside it is the form of `docker save`, which Docker's own image
// store wants to see (moby, daemon/internal/image/tarexport/load.go); it knows one architecture, the first, and names the same blobs.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Config says what goes into an image.
type Config struct {
	// Name is the repository's, without a tag, for example middleway or registry.example/net/middleway. Required.
	Name string
	// Version is the image's first tag; the second is latest. Required.
	Version string
	// Created is the time of everything in it, whole seconds. Default 1970.
	Created time.Time
	// Architectures as Go calls them, for example amd64. The first is the one that Docker's own image store gets. Required.
	Architectures []string
	// Programs is a folder with a folder linux_ARCHITECTURE of each, which holds the static programs middleway and middleway-cni. Required.
	Programs string
}

// What the image says about itself (image-spec, annotations.md).
const (
	title       = "middleway"
	description = "A userspace network for Kubernetes: pods, Services and DNS by one daemon a node"
	source      = "https://github.com/middleway-net/middleway"
	licenses    = "Apache-2.0"
)

// programs in the image, in the folder bin.
var programs = []string{"middleway", "middleway-cni"}

const bin = "usr/local/bin"

// tagForm is what a tag looks like (distribution-spec 1.1, "Pulling manifests").
var tagForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// Image is an image of all architectures.
type Image struct {
	Index  v1.ImageIndex
	Images []Built // in the order of Config.Architectures
	tags   []string
}

// Built is the image of one architecture.
type Built struct {
	Architecture string
	v1.Image
}

// Build makes the image.
func Build(c Config) (Image, error) {
	if !tagForm.MatchString(c.Version) {
		return Image{}, fmt.Errorf("version %q cannot be an image's tag; use letters, digits, and . _ - after the first", c.Version)
	}
	about := map[string]string{
		"org.opencontainers.image.title":       title,
		"org.opencontainers.image.description": description,
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.licenses":    licenses,
		"org.opencontainers.image.version":     c.Version,
	}
	m := Image{Index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex), tags: []string{c.Name + ":" + c.Version, c.Name + ":latest"}}
	for _, arch := range c.Architectures {
		one, err := c.build(arch, about)
		if err != nil {
			return Image{}, fmt.Errorf("image for %s: %w", arch, err)
		}
		m.Images = append(m.Images, Built{arch, one})
		m.Index = mutate.AppendManifests(m.Index, mutate.IndexAddendum{
			Add:        one,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	m.Index = mutate.Annotations(m.Index, about).(v1.ImageIndex)
	return m, nil
}

func (c Config) build(arch string, about map[string]string) (v1.Image, error) {
	content, err := c.files(arch)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	m := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	m, err = mutate.Append(m, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: c.Created.UTC()}, CreatedBy: "make image"}})
	if err != nil {
		return nil, err
	}
	m, err = mutate.ConfigFile(m, c.configFile(m, arch, about))
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(m, about).(v1.Image), nil
}

// configFile returns the configuration with which the image runs, with the layers of m.
func (c Config) configFile(m v1.Image, arch string, about map[string]string) *v1.ConfigFile {
	f, err := m.ConfigFile()
	if err != nil {
		panic(err) // m is made of what is in memory
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Created = "linux", arch, v1.Time{Time: c.Created.UTC()}
	f.Config = v1.Config{
		Entrypoint: []string{"/" + path.Join(bin, programs[0])},
		Env:        []string{"PATH=/" + bin},
		WorkingDir: "/",
		Labels:     about,
	}
	return f
}

// The users whose names something may ask for.
const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
	group  = "root:x:0:\nnobody:x:65534:\n"
)

// files returns the image's only layer: the programs, the names of two users, and /tmp. Nothing else is needed: the service account's mount has
// the API server's certificate authority, and nothing else speaks TLS.
func (c Config) files(arch string) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	dir := func(name string, mode int64) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: c.Created, Format: tar.FormatPAX})
	}
	file := func(name string, mode int64, content []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: c.Created, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	steps := []func() error{
		func() error { return dir("etc", 0o755) },
		func() error { return file("etc/group", 0o644, []byte(group)) },
		func() error { return file("etc/passwd", 0o644, []byte(passwd)) },
		func() error { return dir("tmp", 0o1777) },
		func() error { return dir("usr", 0o755) },
		func() error { return dir("usr/local", 0o755) },
		func() error { return dir(bin, 0o755) },
	}
	for _, name := range programs {
		steps = append(steps, func() error {
			content, err := os.ReadFile(filepath.Join(c.Programs, "linux_"+arch, name))
			if err != nil {
				return fmt.Errorf("%w; `make image` builds the programs first", err)
			}
			return file(path.Join(bin, name), 0o755, content)
		})
	}
	for _, step := range append(steps, w.Close) {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return layer.Bytes(), nil
}
