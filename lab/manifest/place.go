package manifest

import (
	"fmt"
	"strings"
)

// Place is where an object stands: its file, and the lines of its fields.
type Place struct {
	File string

	line   int
	lines  map[string]int // of each field, by its path
	within string         // the path of what the object stands in: spec.template of a Deployment for its pods; "" for none
}

// Errorf returns an error about a field of the object, for example spec.nodeName.
func (p *Place) Errorf(field, format string, args ...any) error {
	if p.within != "" {
		field = join(p.within, field)
	}
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

// Line is where the object begins; 0 if it stands in no file.
func (p *Place) Line() int { return p.line }

// Written reports whether the manifest has a field, or leaves it to its default.
func (p *Place) Written(field string) bool { return p.lines[field] > 0 }

func (p *Place) place() *Place { return p }

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
