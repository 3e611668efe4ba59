package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Names by which containerd knows an image in a layout: its own annotation has the whole name, the one of the image-spec the tag.
// (containerd core/images/annotations.go; image-spec annotations.md)
const (
	annotationName = "io.containerd.image.name"
	annotationTag  = "org.opencontainers.image.ref.name"
)

// saved is an entry of manifest.json, as `docker save` writes it.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the archive.
func (m Image) Write(w io.Writer) error {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	nested, err := m.Index.RawManifest()
	if err != nil {
		return err
	}
	digest, _, err := v1.SHA256(strings.NewReader(string(nested)))
	if err != nil {
		return err
	}
	files[blobName(digest)] = nested
	top := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, tag := range m.tags {
		top.Manifests = append(top.Manifests, v1.Descriptor{
			MediaType: types.OCIImageIndex, Size: int64(len(nested)), Digest: digest,
			Annotations: map[string]string{annotationName: fullName(tag), annotationTag: tag[strings.LastIndex(tag, ":")+1:]},
		})
	}
	if files["index.json"], err = json.Marshal(top); err != nil {
		return err
	}
	for i, one := range m.Images {
		entry, err := one.addBlobs(files)
		if err != nil {
			return fmt.Errorf("image for %s: %w", one.Architecture, err)
		}
		if i > 0 {
			continue
		}
		entry.RepoTags = m.tags
		if files["manifest.json"], err = json.Marshal([]saved{entry}); err != nil {
			return err
		}
	}
	return writeTar(w, files)
}

// addBlobs adds manifest, configuration and layers to files.
func (b Built) addBlobs(files map[string][]byte) (entry saved, err error) {
	manifest, err := b.RawManifest()
	if err != nil {
		return saved{}, err
	}
	digest, err := b.Digest()
	if err != nil {
		return saved{}, err
	}
	files[blobName(digest)] = manifest
	if digest, err = b.ConfigName(); err != nil {
		return saved{}, err
	}
	entry.Config = blobName(digest)
	if files[entry.Config], err = b.RawConfigFile(); err != nil {
		return saved{}, err
	}
	layers, err := b.Layers()
	if err != nil {
		return saved{}, err
	}
	for _, layer := range layers {
		if digest, err = layer.Digest(); err != nil {
			return saved{}, err
		}
		entry.Layers = append(entry.Layers, blobName(digest))
		if files[blobName(digest)], err = readLayer(layer); err != nil {
			return saved{}, err
		}
	}
	return entry, nil
}

// LayerSize returns the bytes that a node fetches beside the manifest.
func (b Built) LayerSize() (sum int64, err error) {
	layers, err := b.Layers()
	if err != nil {
		return 0, err
	}
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, err
		}
		sum += size
	}
	return sum, nil
}

func readLayer(layer v1.Layer) ([]byte, error) {
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// blobName is where a layout has a blob (image-spec image-layout.md).
func blobName(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// fullName is the name with its registry. A first part without dot, colon and the like is a user of Docker's (distribution, reference).
func fullName(tag string) string {
	registry, _, many := strings.Cut(tag, "/")
	switch {
	case !many:
		return "docker.io/library/" + tag
	case !strings.ContainsAny(registry, ".:") && registry != "localhost":
		return "docker.io/" + tag
	}
	return tag
}

// writeTar writes files and the folders they are in by name, with nothing of this machine's.
func writeTar(w io.Writer, files map[string][]byte) error {
	dirs := map[string]bool{}
	var names []string
	for name := range files {
		names = append(names, name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if !dirs[dir] {
				dirs[dir] = true
				names = append(names, dir)
			}
		}
	}
	slices.Sort(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatUSTAR}
		if dirs[name] {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(files[name]); err != nil {
			return err
		}
	}
	return t.Close()
}
