package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder turns the nodes of a YAML document into what encoding/json would have made of it, and checks each node against the
// Go type that it is for: encoding/json alone knows no lines, and takes unknown fields and fields in the wrong case.
type decoder struct {
	set   *Set
	kind  *kind
	place *Place
	nodes int
	depth int
}

// Bounds on an object: aliases let a small file stand for a large one.
const (
	maxNodes = 100_000
	maxDepth = 64
)

// value returns the node's value. path is where it stands (spec.containers[0].name), pattern the same without numbers; pattern
// "-" stands for what is below a field that is not honoured, of which nothing more needs to be said.
func (d *decoder) value(n *yaml.Node, t reflect.Type, path, pattern string) (any, error) {
	n = target(n)
	d.nodes++
	d.depth++
	defer func() { d.depth-- }()
	if d.nodes > maxNodes || d.depth > maxDepth {
		return nil, d.errorf(n, path, "the object is too large or nested too deeply")
	}
	if path != "" {
		d.place.lines[path] = n.Line
	}
	if isNull(n) {
		return nil, nil
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return d.special(n, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.object(n, t, path, pattern)
	case reflect.Map:
		return d.mapping(n, t.Elem(), path)
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return d.list(n, t.Elem(), path, pattern)
		}
	}
	return d.scalar(n, t, path)
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// object checks that a mapping holds only fields of a struct.
func (d *decoder) object(n *yaml.Node, t reflect.Type, path, pattern string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, d.errorf(n, path, "want fields, as in name: value, not %s", describe(n))
	}
	if isToken(d.kind.podPattern(pattern), n) {
		pattern = "-"
	}
	known := fieldsOf(t)
	m := map[string]any{}
	err := d.pairs(n, path, func(key string, v *yaml.Node, line int) error {
		ft, ok := known[key]
		at := join(path, key)
		if !ok {
			return &Error{File: d.place.File, Line: line, Field: at, Problem: "Kubernetes has no such field here" + suggest(key, d.kind.name, known)}
		}
		below := "-"
		if pattern != "-" {
			below = d.treat(join(pattern, key), v)
		}
		value, err := d.value(v, ft, at, below)
		m[key] = value
		return err
	})
	return m, err
}

// treat returns the pattern to go on with below a field, "-" if it is not honoured, of which it warns.
func (d *decoder) treat(pattern string, v *yaml.Node) string {
	t, ok := d.kind.treatmentOf(pattern)
	switch {
	case ok && t.honoured:
		return pattern
	case ok && t.warning != "" && !wishless(v):
		d.set.warn(d.kind.subject(pattern), "%s, line %d: %s is not honoured here: %s", d.place.File, v.Line, pattern, t.warning)
	case !ok && !wishless(v):
		d.set.warn(d.kind.subject(pattern), "%s, line %d: %s is not honoured here", d.place.File, v.Line, pattern)
	}
	return "-"
}

func (d *decoder) mapping(n *yaml.Node, elem reflect.Type, path string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, d.errorf(n, path, "want fields, as in name: value, not %s", describe(n))
	}
	m := map[string]any{}
	err := d.pairs(n, path, func(key string, v *yaml.Node, _ int) error {
		value, err := d.value(v, elem, join(path, key), "-")
		m[key] = value
		return err
	})
	return m, err
}

// pairs calls f for the pairs of a mapping, those of merged mappings (<<) first, so that others take their place.
func (d *decoder) pairs(n *yaml.Node, path string, f func(key string, v *yaml.Node, line int) error) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := target(n.Content[i]), target(n.Content[i+1])
		switch {
		case k.Tag == "!!merge":
			if err := d.merge(v, path, f); err != nil {
				return err
			}
		case k.Kind != yaml.ScalarNode || k.Tag != "!!str":
			return d.errorf(k, path, "a field's name is a string; write it in quotes")
		case seen[k.Value]:
			return d.errorf(k, join(path, k.Value), "the field is there twice; keep one")
		}
		seen[k.Value] = true
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Tag != "!!merge" {
			if err := f(k.Value, n.Content[i+1], k.Line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) merge(n *yaml.Node, path string, f func(string, *yaml.Node, int) error) error {
	d.nodes++
	d.depth++
	defer func() { d.depth-- }()
	if d.nodes > maxNodes || d.depth > maxDepth {
		return d.errorf(n, path, "the object is too large or nested too deeply")
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.pairs(n, path, f)
	case yaml.SequenceNode: // earlier ones take precedence
		for i := len(n.Content) - 1; i >= 0; i-- {
			if err := d.merge(target(n.Content[i]), path, f); err != nil {
				return err
			}
		}
		return nil
	}
	return d.errorf(n, path, "<< wants a mapping, or a list of them")
}

func (d *decoder) list(n *yaml.Node, elem reflect.Type, path, pattern string) (any, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, d.errorf(n, path, "want a list, as in [a, b] or lines with a dash, not %s", describe(n))
	}
	list := []any{}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if isNull(target(item)) {
			return nil, d.errorf(target(item), at, "an entry of the list is empty; fill it in or remove it")
		}
		value, err := d.value(item, elem, at, pattern)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// scalar returns a string, number or boolean of the kind that t wants.
func (d *decoder) scalar(n *yaml.Node, t reflect.Type, path string) (any, error) {
	want := "a string"
	switch t.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		want = "a whole number"
	}
	if n.Kind != yaml.ScalarNode {
		return nil, d.errorf(n, path, "want %s, not %s", want, describe(n))
	}
	switch {
	case want == "a string" && (n.Tag == "!!str" || n.Tag == "!!timestamp" || n.Tag == "!!binary"):
		return n.Value, nil
	case want == "a string":
		return nil, d.errorf(n, path, "want a string, not %s; write it in quotes: %q", describe(n), n.Value)
	case want == "true or false" && n.Tag == "!!bool":
		return strconv.ParseBool(strings.ToLower(n.Value))
	case want == "a whole number" && n.Tag == "!!int":
		if v, err := strconv.ParseInt(n.Value, 0, t.Bits()); err == nil {
			return v, nil
		}
		return nil, d.errorf(n, path, "%s is too large", n.Value)
	}
	return nil, d.errorf(n, path, "want %s, not %s", want, describe(n))
}

// special returns the value of a type that decodes itself, such as a quantity or a time.
func (d *decoder) special(n *yaml.Node, t reflect.Type, path string) (any, error) {
	v, err := d.plain(n, path)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, reflect.New(t).Interface())
	}
	if err != nil {
		return nil, d.errorf(n, path, "%s is no %s: %v", describe(n), strings.ToLower(t.Name()), err)
	}
	return v, nil
}

// plain returns a node's value where no Go type says what it should be.
func (d *decoder) plain(n *yaml.Node, path string) (any, error) {
	d.nodes++
	d.depth++
	defer func() { d.depth-- }()
	if d.nodes > maxNodes || d.depth > maxDepth {
		return nil, d.errorf(n, path, "the object is too large or nested too deeply")
	}
	switch n = target(n); {
	case n.Kind == yaml.MappingNode:
		m := map[string]any{}
		return m, d.pairs(n, path, func(key string, v *yaml.Node, _ int) (err error) {
			m[key], err = d.plain(v, join(path, key))
			return err
		})
	case n.Kind == yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			v, err := d.plain(item, path)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case isNull(n):
		return nil, nil
	case n.Tag == "!!bool" || n.Tag == "!!int" || n.Tag == "!!float":
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, d.errorf(n, path, "%v", err)
		}
		return v, nil
	}
	return n.Value, nil
}

func (d *decoder) errorf(n *yaml.Node, path, format string, args ...any) error {
	return &Error{File: d.place.File, Line: n.Line, Field: path, Problem: fmt.Sprintf(format, args...)}
}
