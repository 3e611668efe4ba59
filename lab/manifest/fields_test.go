package manifest

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

// What becomes of a field is decided for each that Kubernetes' types have, and for no other: a newer k8s.io/api that brings a field
// wants a row in the table.
func TestFieldsExhaustive(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			undecided := maps.Clone(k.fields)
			var walk func(t reflect.Type, pattern string, visit func(pattern string, known bool))
			walk = func(t reflect.Type, pattern string, visit func(string, bool)) {
				for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
					t = t.Elem()
				}
				if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(unmarshaler) {
					return
				}
				for name, below := range fieldsOf(t) {
					at := join(pattern, name)
					decided, known := k.treatmentOf(at)
					visit(at, known)
					if decided.honoured {
						walk(below, at, visit)
					}
				}
			}
			walk(k.typ(), "", func(at string, known bool) {
				if !known {
					t.Errorf("nothing is said about %s", at)
				}
				delete(undecided, at)
			})
			for at := range undecided {
				t.Errorf("Kubernetes has no field %s, or it lies below one that is not honoured", at)
			}
		})
	}
}

// Each field that is not honoured is told of, with what is so in its place.
func TestWarnings(t *testing.T) {
	for _, k := range kinds {
		for at, decided := range k.fields {
			if decided.honoured && decided.warning != "" {
				t.Errorf("%s %s is honoured, and warned of", k.name, at)
			}
		}
	}
	s, err := Parse("x.yaml", []byte(edited("spec:", "spec:\n  hostPID: true")+"    tty: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"x.yaml, line 6: spec.hostPID is not honoured here: every container has a PID namespace of its own",
		"x.yaml, line 11: spec.containers.tty is not honoured here: a container writes to a pipe; middleway exec at a terminal has one",
	}
	if got := strings.Join(s.Warnings, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
