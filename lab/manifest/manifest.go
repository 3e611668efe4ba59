// Package manifest reads the pods that the playground runs from ordinary Kubernetes manifests: YAML or JSON, several
// documents in a file, lists. It is strict: what Kubernetes would refuse, and what cannot be run here, is an error with the
// file, the line and the field. What Kubernetes would honour and the playground does not is a warning.
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
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// maxFile bounds a file, in bytes: etcd takes objects of 1.5 MiB, and a file holds a few.
const maxFile = 8 << 20

// Set is what some files hold.
type Set struct {
	Pods     []*Pod   // in the order in which they were read
	Warnings []string // one sentence each: what is left out or not honoured

	others []string // kinds that are left out, in the order in which they were met
	warned map[string]bool
	named  map[string]*Pod // by namespace/name
}

// Pod is a pod as its manifest has it, checked, with Kubernetes' defaults filled in for what the playground honours.
type Pod struct {
	corev1.Pod
	File string

	mu    sync.RWMutex // over labels and annotations, which may change while the pod runs
	line  int
	lines map[string]int // of each field, by its path
}

// Key returns the pod's namespace/name.
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// Errorf returns an error about a field of the pod, for example spec.nodeName.
func (p *Pod) Errorf(field, format string, args ...any) error {
	e := &Error{File: p.File, Line: p.line, Field: field, Problem: fmt.Sprintf(format, args...)}
	// A field that is missing has the line of what it is missing in.
	for at := field; at != ""; at = parent(at) {
		if line, ok := p.lines[at]; ok {
			e.Line = line
			break
		}
	}
	return e
}

// parent returns the path of what a field stands in: of spec.containers[0].name it is spec.containers[0].
func parent(field string) string {
	return field[:max(0, strings.LastIndexAny(field, ".["))]
}

// Error is a mistake in a manifest.
type Error struct {
	File    string
	Line    int    // 0 if it is about the whole file
	Field   string // path of the field; "" if it is about none
	Problem string // what is wrong, and what to do
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ", line %d", e.Line)
	}
	if e.Field != "" {
		fmt.Fprintf(&b, ", %s", e.Field)
	}
	return b.String() + ": " + e.Problem
}

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
	if len(s.Pods) == 0 {
		return nil, s.noPods(paths)
	}
	return s, nil
}

// noPods names what was found in place of pods.
func (s *Set) noPods(paths []string) error {
	name := strings.Join(paths, ", ")
	if name == "-" {
		name = stdinName
	}
	if len(s.others) == 0 {
		return &Error{File: name, Problem: "no object is in it; write a Pod there, or leave -f out for some pods to try"}
	}
	return &Error{File: name, Problem: "no Pod is in it, only " + strings.Join(s.others, ", ") + ", and only pods are run; write down the pods themselves"}
}

// stdinName is what messages call standard input.
const stdinName = "standard input"

// Parse reads manifests from b; file is for messages.
func Parse(file string, b []byte) (*Set, error) {
	s := &Set{}
	return s, s.parse(file, b)
}

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
