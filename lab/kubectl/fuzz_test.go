package kubectl

import (
	"io"
	"strings"
	"testing"
)

// What a person types is an error or leads to objects that have a kind.
func FuzzParseResources(f *testing.F) {
	for _, s := range []string{"pods", "po,svc web", "pod/a svc/b", "all", "all/a", "deploy.apps", "deployments.v1.apps/a", ",", "/", "a/b/c", "pods,", "ep"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := parseResources(strings.Split(s, " "))
		if err == nil && len(all) == 0 {
			t.Errorf("%q: neither an error nor a kind", s)
		}
		for _, r := range all {
			if r.kind == nil || strings.Contains(r.name, "/") {
				t.Errorf("%q: got %+v", s, r)
			}
		}
	})
}

// Whatever is given for -o is refused, or prints objects.
func FuzzParseFormat(f *testing.F) {
	for _, s := range []string{
		"wide", "json", "yaml", "name", "jsonpath={.items[*].metadata.name}", "jsonpath={range .items[*]}{.kind}{end}", "go-template={{.kind}}",
		"custom-columns=A:.metadata.name,B:spec.nodeName", "custom-columns=A:", "jsonpath={.items[?(@.kind==\"Pod\")]}", "jsonpath={.items[0:2:-1]}", "jsonpath={range .ite}ms{[*]}{.k9ind}@{end}", "=", "",
	} {
		f.Add(s)
	}
	tree := listOf(shop().objects, false)
	f.Fuzz(func(t *testing.T, s string) {
		if strings.HasPrefix(s, "go-template") && strings.Contains(s, "{{") {
			t.Skip("text/template, which may be told not to end")
		}
		format, err := parseFormat(s, false)
		if err == nil && format.print != nil {
			_ = format.print(io.Discard, tree) // an error is a sentence, too
		}
	})
}
