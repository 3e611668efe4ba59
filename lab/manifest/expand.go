package manifest

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Command returns a container's command and arguments, those of a stand-in where its image has one, and its variables as KEY=VALUE, with $(VAR) replaced as Kubernetes
// does it: in a variable's value by those before it, in command and arguments by all. A variable from a source that the
// playground does not have is left out.
func (p *Pod) Command(c *corev1.Container, f Facts) (argv, env []string) {
	known := maps.Clone(f.Services)
	if known == nil {
		known = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Services)) {
		if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
			env = append(env, name+"="+f.Services[name])
		}
	}
	for _, e := range c.Env {
		value := expand(e.Value, known)
		if e.ValueFrom != nil {
			if e.ValueFrom.FieldRef == nil {
				continue
			}
			value, _ = p.FieldValue(e.ValueFrom.FieldRef.FieldPath, f) // checked
		}
		known[e.Name] = value
		env = append(env, e.Name+"="+value)
	}
	for _, w := range command(c) {
		argv = append(argv, expand(w, known))
	}
	return argv, env
}

// expand replaces $(VAR) by its value and $$ by $; a variable that is not known stays as it is written
// (https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container).
func expand(s string, known map[string]string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		switch value, ok := known[name]; {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			s = after[1:]
		case !strings.HasPrefix(after, "(") || !closed:
			b.WriteByte('$')
			s = after
		case ok:
			b.WriteString(value)
			s = rest
		default:
			b.WriteString("$(" + name + ")")
			s = rest
		}
	}
}
