package kubectl

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/middleway-net/middleway/lab/control"
)

// store is a control plane of some objects, and of changes to come.
type store struct {
	objects []control.Object
	changes []control.Event
}

func (s store) List(_ context.Context, q control.Query) (found []control.Object, err error) {
	k := control.KindNamed(q.Kind)
	selector, err := labels.Parse(q.Selector)
	if err != nil {
		return nil, err
	}
	for _, o := range s.objects {
		if control.KindOf(o) == k && (q.Namespace == "" || !k.Namespaced || o.GetNamespace() == q.Namespace) &&
			selector.Matches(labels.Set(o.GetLabels())) && (q.Names == nil || slices.Contains(q.Names, o.GetName())) {
			found = append(found, o)
		}
	}
	if len(q.Names) > 0 && len(found) == 0 {
		return nil, apierrors.NewNotFound(k.Resource(), q.Names[0])
	}
	return found, nil
}

func (s store) Watch(ctx context.Context, q control.Query, see func(control.Event) error) error {
	found, err := s.List(ctx, q)
	if err != nil {
		return err
	}
	var events []control.Event
	for _, o := range found {
		events = append(events, control.Event{Type: control.Added, Object: o})
	}
	for _, e := range append(events, s.changes...) {
		if err := see(e); err != nil {
			return err
		}
	}
	return nil
}

// read reads the objects of a file of testdata, in which {{ago "5s"}} is a time.
func read(t *testing.T, name string, now time.Time) (objects []control.Object) {
	t.Helper()
	ago := func(s string) (string, error) {
		d, err := time.ParseDuration(s)
		return now.Add(-d).UTC().Format(time.RFC3339Nano), err
	}
	tmpl, err := template.New(name).Funcs(template.FuncMap{"ago": ago}).ParseFiles(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, nil); err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(b.String(), "\n---\n") {
		j, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		o, err := control.Decode(j)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return objects
}

// kubectlTables are what kubectl prints with flags.
var kubectlTables = []struct {
	flags   string
	columns columns
}{
	{"", columns{}},
	{" -o wide", columns{wide: true}},
	{" --all-namespaces", columns{namespace: true}},
	{" --show-labels --label-columns app,example.com/tier", columns{labels: true, label: []string{"app", "example.com/tier"}}},
	{" --no-headers", columns{noHeaders: true}},
	{",… # beside another kind", columns{kind: true}},
}

// The tables are those of kubectl v1.37 for the same objects, byte for byte. test/kubectl writes them anew.
func TestTables(t *testing.T) {
	for _, f := range forms {
		t.Run(f.kind.Plural, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", f.kind.Plural+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			events := eventsOf(f.kind, read(t, f.kind.Plural+".yaml", now))
			var got bytes.Buffer
			for _, c := range kubectlTables {
				got.WriteString("$ kubectl get " + f.kind.Plural + c.flags + "\n")
				table := table{w: &got, form: f, columns: c.columns}
				if err := table.print(now, events); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
				t.Errorf("kubectl's (-), ours (+):\n%s", diff)
			}
		})
	}
}

// Every kind of the control plane can be shown.
func TestForms(t *testing.T) {
	for _, k := range control.Kinds {
		if got := formOf(k); got.kind != k {
			t.Errorf("%s: got the form of %v", k.Plural, got.kind)
		}
	}
	if len(forms) != len(control.Kinds) {
		t.Errorf("%d forms for %d kinds", len(forms), len(control.Kinds))
	}
}
