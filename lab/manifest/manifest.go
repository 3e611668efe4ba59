// Package manifest reads what the playground runs from ordinary Kubernetes manifests: Pods, Deployments, Services, EndpointSlices
// and Namespaces, in YAML or JSON, several documents in a file, lists. It is strict: what Kubernetes would refuse, and what cannot
// be run here, is an error with the file, the line and the field. What Kubernetes would honour and the playground does not is a
// warning.
package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds a file, in bytes: etcd takes objects of 1.5 MiB, and a file holds a few.
const maxFile = 8 << 20

// Set is what some files hold.
type Set struct {
	Objects  []Object // in the order in which they were read
	Warnings []string // one sentence each: what is left out or not honoured
	// Namespace is that of objects which name none. Default "default".
	Namespace string

	others []string // kinds that are left out, in the order in which they were met
	warned map[string]bool
	named  map[string]Object // by their IDs
}

// Pods returns the pods among the objects.
func (s *Set) Pods() []*Pod { return PodsOf(s.Objects) }

// Read reads manifests from files, from the files *.yaml, *.yml and *.json of directories, and for "-" from stdin.
func Read(stdin io.Reader, paths ...string) (*Set, error) {
	s := &Set{}
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := s.read(stdin, file); err != nil {
				return nil, err
			}
		}
	}
	if len(s.Objects) == 0 {
		return nil, s.nothing(paths)
	}
	return s, nil
}

// nothing names what was found in place of what can be run.
func (s *Set) nothing(paths []string) error {
	name := strings.Join(paths, ", ")
	if name == "-" {
		name = stdinName
	}
	if len(s.others) == 0 {
		return &Error{File: name, Problem: "no object is in it; write a Pod there, or leave -f out for some pods to try"}
	}
	return &Error{File: name, Problem: "only " + strings.Join(s.others, ", ") + " is in it, and the playground runs " + kindsWords}
}

// stdinName is what messages call standard input.
const stdinName = "standard input"

// Parse reads manifests from b; file is for messages.
func Parse(file string, b []byte) (*Set, error) {
	s := &Set{}
	return s, s.parse(file, b)
}

// Add reads further manifests from b into the set; file is for messages.
func (s *Set) Add(file string, b []byte) error { return s.parse(file, b) }

// suffixes are those of the files that are read from a directory, as kubectl does it.
var suffixes = []string{".json", ".yaml", ".yml"}

func filesOf(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{File: path, Problem: "there is no such file or directory; -f wants a manifest, or a directory of them"}
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := manifestsIn(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if len(files) == 0 {
		return nil, &Error{File: path, Problem: "no manifest lies in this directory; their names end in .yaml, .yml or .json"}
	}
	return files, nil
}

// manifestsIn returns the manifests in a directory. Names that begin with a dot are those of editors and other programs.
func manifestsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name, kind := e.Name(), e.Type()
		if (kind.IsRegular() || kind == fs.ModeSymlink) && name[0] != '.' && slices.Contains(suffixes, filepath.Ext(name)) {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files, nil
}

func (s *Set) read(stdin io.Reader, file string) error {
	name, b, err := contents(stdin, file)
	if err != nil {
		return err
	}
	return s.parse(name, b)
}

// contents reads a file, or standard input for "-", and returns its name for messages.
func contents(stdin io.Reader, file string) (name string, b []byte, err error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return file, nil, fmt.Errorf("read manifest: %w", err)
		}
		defer f.Close()
		in = f
	} else {
		file = stdinName
	}
	b, err = io.ReadAll(io.LimitReader(in, maxFile+1))
	switch {
	case err != nil:
		err = fmt.Errorf("read manifest %s: %w", file, err)
	case len(b) > maxFile:
		err = &Error{File: file, Problem: fmt.Sprintf("it is larger than %d MiB; split it", maxFile>>20)}
	}
	return file, b, err
}

// warn adds a warning, once for each subject.
func (s *Set) warn(subject, format string, args ...any) {
	if s.warned == nil {
		s.warned = map[string]bool{}
	}
	if !s.warned[subject] {
		s.warned[subject] = true
		s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
	}
}
