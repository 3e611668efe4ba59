package kubectl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/jsonpath"

	"github.com/middleway-net/middleway/lab/control"
)

// printCustom prints a table of fields: HEADER:PATH,…
func printCustom(spec string, noHeaders bool) (func(io.Writer, map[string]any) error, error) {
	if spec == "" {
		return nil, errors.New("columns are missing, for example NAME:.metadata.name,IP:.status.podIP")
	}
	var headers []string
	var paths []*jsonpath.JSONPath
	for part := range strings.SplitSeq(spec, ",") {
		header, field, found := strings.Cut(part, ":")
		if !found {
			return nil, fmt.Errorf("column %q: want HEADER:PATH, for example NAME:.metadata.name", part)
		}
		path, err := parsePath(relaxed(field))
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", part, err)
		}
		headers, paths = append(headers, header), append(paths, path)
	}
	var grid grid
	if !noHeaders {
		grid.rows = append(grid.rows, headers)
	}
	add := eachItem(func(_ io.Writer, tree map[string]any) error {
		var row []string
		for _, path := range paths {
			values, err := valuesAt(path, tree)
			if err != nil {
				return err
			}
			row = append(row, orNone(strings.Join(values, ",")))
		}
		grid.rows = append(grid.rows, row)
		return nil
	})
	return func(w io.Writer, tree map[string]any) error {
		if err := add(w, tree); err != nil {
			return err
		}
		return grid.flush(w)
	}, nil
}

// valuesAt returns what is at a path, as text.
func valuesAt(path *jsonpath.JSONPath, tree map[string]any) (values []string, err error) {
	results, err := resultsAt(path, tree)
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		for _, v := range result {
			values = append(values, fmt.Sprint(v.Interface()))
		}
	}
	return values, nil
}

// sortBy sorts objects by a field, if one is given; those without it come first.
func sortBy(field string, objects []control.Object) error {
	if field == "" {
		return nil
	}
	path, err := parsePath(relaxed(field))
	if err != nil {
		return fmt.Errorf("--sort-by %q: %w", field, err)
	}
	type keyed struct {
		key    any
		object control.Object
	}
	var all []keyed
	has := false
	for _, o := range objects {
		results, err := resultsAt(path, treeOf(o))
		if err != nil {
			return fmt.Errorf("--sort-by %q: %w", field, err)
		}
		var key any
		if len(results) > 0 && len(results[0]) > 0 {
			key, has = results[0][0].Interface(), true
		}
		all = append(all, keyed{key, o})
	}
	if !has && len(objects) > 0 {
		return fmt.Errorf("--sort-by %q: no object has this field", field)
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return compare(a.key, b.key) })
	for i := range all {
		objects[i] = all[i].object
	}
	return nil
}

// compare orders numbers as such, all else, times of UTC too, as text; what is not there comes first.
func compare(a, b any) int {
	if a == nil || b == nil {
		return cmp.Compare(presence(a), presence(b))
	}
	x, numbers := a.(float64)
	if y, ok := b.(float64); ok && numbers {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func presence(v any) int {
	if v == nil {
		return 0
	}
	return 1
}

// matches reports whether an object is one that --field-selector wants.
func (g *Get) matches(o control.Object) bool {
	if g.fields.Empty() {
		return true
	}
	have, tree := fields.Set{}, treeOf(o)
	for _, r := range g.fields.Requirements() {
		have[r.Field] = fieldOf(tree, r.Field)
	}
	return g.fields.Matches(have)
}

// fieldOf returns a field's text, "" if there is none.
func fieldOf(tree any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := tree.(map[string]any)
		tree = m[name]
	}
	if tree == nil {
		return ""
	}
	return fmt.Sprint(tree)
}
