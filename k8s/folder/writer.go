package folder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/middleway-net/middleway/k8s/object"
)

// Writer writes a state folder. There is one of it at a time. Its methods may be called by any goroutine.
type Writer struct {
	dir string

	mu  sync.Mutex
	put map[string]bool // relative paths; nil once the folder is complete
}

// NewWriter makes the folder where there is none, and goes on with what a former writer left.
func NewWriter(dir string) (*Writer, error) {
	for _, kind := range object.Kinds {
		if err := os.MkdirAll(filepath.Join(dir, kind.String()), 0o755); err != nil {
			return nil, fmt.Errorf("make state folder: %w", err)
		}
	}
	return &Writer{dir: dir, put: map[string]bool{}}, nil
}

// Put writes an object, a *corev1.Node, Namespace, Pod or Service or a *discoveryv1.EndpointSlice; apiVersion and kind need not
// be set. A file that holds the same already is left alone.
func (w *Writer) Put(api any) error {
	kind, o, err := typed(api)
	if err != nil {
		return err
	}
	rel, err := path(kind, object.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", rel, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.writeLocked(rel, append(text, '\n')); err != nil {
		return fmt.Errorf("write state folder: %w", err)
	}
	if w.put != nil {
		w.put[rel] = true
	}
	return nil
}

func (w *Writer) writeLocked(rel string, text []byte) error {
	file := filepath.Join(w.dir, rel)
	if was, err := os.ReadFile(file); err == nil && bytes.Equal(was, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(file), "."+strings.TrimSuffix(filepath.Base(file), suffix)+".tmp")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

// Delete removes an object, if it is there. namespace is "" for kinds without.
func (w *Writer) Delete(kind object.Kind, namespace, name string) error {
	rel, err := path(kind, object.Key{Namespace: namespace, Name: name})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.Remove(filepath.Join(w.dir, rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write state folder: %w", err)
	}
	delete(w.put, rel)
	return nil
}

// Complete says that the first whole set is there: what a former writer left and this one did not Put is removed, and readers
// begin. Further calls do nothing.
func (w *Writer) Complete() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.put == nil {
		return nil
	}
	files, _, err := list(w.dir)
	if err != nil {
		return fmt.Errorf("write state folder: %w", err)
	}
	for rel := range files {
		if !w.put[rel] {
			err = errors.Join(err, os.Remove(filepath.Join(w.dir, rel)))
		}
	}
	if err = errors.Join(err, os.WriteFile(filepath.Join(w.dir, marker), nil, 0o644)); err != nil {
		return fmt.Errorf("write state folder: %w", err)
	}
	w.put = nil
	return nil
}

// Remove removes the folder, the marker first, so that what readers hold stays in force with them.
func (w *Writer) Remove() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.Remove(filepath.Join(w.dir, marker)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state folder: %w", err)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		return fmt.Errorf("remove state folder: %w", err)
	}
	return nil
}
