package playground

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// maxOutput bounds the file of a container's output, in bytes. A file that reaches it keeps its second half.
const maxOutput = 1 << 20

// output is the file in which a container's standard output and error end up, those of all its runs.
type output struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

// newOutput makes the file.
func newOutput(path string) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep a container's output: %w", err)
	}
	file, err := createOutput(path)
	if err != nil {
		return nil, fmt.Errorf("keep a container's output: %w", err)
	}
	return &output{path: path, file: file}, nil
}

func createOutput(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
}

// Write adds to the file. What cannot be written, to a full disk for example, is lost: the container goes on.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for rest := b; len(rest) > 0; {
		piece := rest[:min(len(rest), maxOutput/2)]
		rest = rest[len(piece):]
		if o.size+int64(len(piece)) > maxOutput && o.halve() != nil {
			break
		}
		n, err := o.file.WriteAt(piece, o.size)
		o.size += int64(n)
		if err != nil {
			break
		}
	}
	return len(b), nil
}

// halve puts a file with the last lines in the place of the present one, so that readers see whole ones.
func (o *output) halve() error {
	kept := make([]byte, min(o.size, maxOutput/2))
	if _, err := o.file.ReadAt(kept, o.size-int64(len(kept))); err != nil {
		return err
	}
	if i := bytes.IndexByte(kept, '\n'); i >= 0 {
		kept = kept[i+1:]
	}
	next, err := createOutput(o.path + ".next")
	if err != nil {
		return err
	}
	_, err = next.Write(kept)
	if err == nil {
		err = os.Rename(next.Name(), o.path)
	}
	if err != nil {
		next.Close()
		return err
	}
	o.file.Close()
	o.file, o.size = next, int64(len(kept))
	return nil
}

func (o *output) close() error { return o.file.Close() }
