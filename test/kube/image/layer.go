package image

import (
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer is a tree as a layer that is not compressed: it stays on this machine, where packing and unpacking would cost more than they save.
type layer struct {
	tree   *Tree
	digest v1.Hash
	size   int64
}

var _ v1.Layer = (*layer)(nil)

// Layer makes the tree a layer, which reads the files of this machine now and whenever it is read. The tree must not change any more.
func (t *Tree) Layer() (v1.Layer, error) {
	l := &layer{tree: t}
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	l.digest, l.size, err = v1.SHA256(r)
	return l, err
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(l.tree.writeTar(w)) }() // ends with the reader's Close
	return r, nil
}
