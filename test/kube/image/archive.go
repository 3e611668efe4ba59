package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Image is what an archive holds under some names.
type Image struct {
	Names      []string // each with registry and tag: "docker.io/library/busybox:1.37"
	Layers     []v1.Layer
	Entrypoint []string
	Command    []string
}

// searchPath is where an image's programs are found.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Write writes an archive of images as an OCI image layout in a tar file. Layers that images share are there once.
//
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md.
func Write(w io.Writer, images ...Image) error {
	a := &archive{tw: tar.NewWriter(w), has: map[v1.Hash]bool{}, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
	if err := a.text("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, image := range images {
		if err := a.add(image); err != nil {
			return fmt.Errorf("pack %v: %w", image.Names, err)
		}
	}
	index, err := json.Marshal(a.index)
	if err != nil {
		return err
	}
	if err := a.text("index.json", index); err != nil {
		return err
	}
	return a.tw.Close()
}

type archive struct {
	tw    *tar.Writer
	has   map[v1.Hash]bool // blobs that are written
	index v1.IndexManifest
}

// add writes an image's blobs, and adds it to the index under each name.
func (a *archive) add(image Image) error {
	img, err := image.build()
	if err != nil {
		return err
	}
	for _, l := range image.Layers {
		if err := a.layer(l); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	for _, blob := range [][]byte{config, manifest} {
		if err := a.blob(blob); err != nil {
			return err
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	for _, name := range image.Names {
		a.index.Manifests = append(a.index.Manifests, v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Digest: digest, Size: int64(len(manifest)),
			Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			// containerd takes the image's name from the first, other tools from the second.
			Annotations: map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
		})
	}
	return nil
}

// build joins layers and configuration.
func (image Image) build() (v1.Image, error) {
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		Config: v1.Config{Entrypoint: image.Entrypoint, Cmd: image.Command, Env: []string{searchPath}},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	return mutate.AppendLayers(img, image.Layers...)
}

func (a *archive) layer(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	return a.put(digest, size, r)
}

func (a *archive) blob(b []byte) error {
	digest, size, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return a.put(digest, size, bytes.NewReader(b))
}

func (a *archive) put(digest v1.Hash, size int64, r io.Reader) error {
	if a.has[digest] {
		return nil
	}
	a.has[digest] = true
	return a.file("blobs/"+digest.Algorithm+"/"+digest.Hex, size, r)
}

func (a *archive) text(name string, b []byte) error {
	return a.file(name, int64(len(b)), bytes.NewReader(b))
}

func (a *archive) file(name string, size int64, r io.Reader) error {
	if err := a.tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := io.Copy(a.tw, r)
	return err
}
