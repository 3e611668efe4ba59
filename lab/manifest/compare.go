package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Differs returns the path of the first field of spec in which another version of the pod differs, for example
// spec.containers[0].args; "" if there is none.
func (p *Pod) Differs(next *Pod) string {
	return differs("spec", tree(p.Spec), tree(next.Spec))
}

// tree returns a value as JSON has it.
func tree(v any) (t any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		panic(err) // it was made from JSON
	}
	return t
}

func differs(path string, a, b any) string {
	if reflect.DeepEqual(a, b) {
		return ""
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return path
		}
		all := maps.Clone(a)
		maps.Copy(all, b)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if at := differs(join(path, key), a[key], b[key]); at != "" {
				return at
			}
		}
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return path
		}
		for i := range a {
			if at := differs(fmt.Sprintf("%s[%d]", path, i), a[i], b[i]); at != "" {
				return at
			}
		}
	}
	return path
}

// Relabel takes over labels and annotations of another version of the pod, and reports whether they were others. It may be
// called while the pod runs.
func (p *Pod) Relabel(next *Pod) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if maps.Equal(p.Labels, next.Labels) && maps.Equal(p.Annotations, next.Annotations) {
		return false
	}
	p.Labels, p.Annotations = next.Labels, next.Annotations
	return true
}
