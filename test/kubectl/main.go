// Command kubectl writes what kubectl prints for the objects of a file, FILE.txt for FILE.yaml: the table that an API server makes of
// them (k8s.io/kubernetes/pkg/printers/internalversion), as kubectl's own printer (k8s.io/cli-runtime) lays it out. Tests of
// lab/kubectl compare their tables with these:
//
//	go -C test/kubectl run . $PWD/lab/kubectl/testdata/*.yaml
//
// It is a module of its own, for it needs all of Kubernetes.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	k8sprinters "k8s.io/kubernetes/pkg/printers"
	"k8s.io/kubernetes/pkg/printers/internalversion"
	"k8s.io/kubernetes/pkg/printers/storage"
)

var cases = []struct {
	flags   string
	options printers.PrintOptions
}{
	{"", printers.PrintOptions{}},
	{" -o wide", printers.PrintOptions{Wide: true}},
	{" --all-namespaces", printers.PrintOptions{WithNamespace: true}},
	{" --show-labels --label-columns app,example.com/tier", printers.PrintOptions{ShowLabels: true, ColumnLabels: []string{"app", "example.com/tier"}}},
	{" --no-headers", printers.PrintOptions{NoHeaders: true}},
	{",… # beside another kind", printers.PrintOptions{WithKind: true}},
}

func main() {
	for _, file := range os.Args[1:] {
		if err := run(file); err != nil {
			fmt.Fprintln(os.Stderr, file+":", err)
			os.Exit(1)
		}
	}
}

func run(file string) error {
	objects, kind, err := read(file)
	if err != nil {
		return err
	}
	resource := strings.TrimSuffix(filepath.Base(file), ".yaml")
	var out bytes.Buffer
	for _, c := range cases {
		if kind.Kind == "Node" || kind.Kind == "Namespace" {
			c.options.WithNamespace = false // they have none, and kubectl leaves the column out
		}
		c.options.Kind = kind
		fmt.Fprintf(&out, "$ kubectl get %s%s\n", resource, c.flags)
		if err := print(&out, objects, c.options); err != nil {
			return err
		}
	}
	return os.WriteFile(strings.TrimSuffix(file, ".yaml")+".txt", out.Bytes(), 0o644)
}

// read reads objects of one kind. {{ago "3m12s"}} is a time.
func read(file string) (objects []runtime.Object, kind schema.GroupKind, err error) {
	// Ages are whole seconds: begin just after one.
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + 5*time.Millisecond)))
	now := time.Now()
	ago := func(s string) (string, error) {
		d, err := time.ParseDuration(s)
		return now.Add(-d).UTC().Format(time.RFC3339), err
	}
	t, err := template.New(filepath.Base(file)).Funcs(template.FuncMap{"ago": ago}).ParseFiles(file)
	if err != nil {
		return nil, kind, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return nil, kind, err
	}
	for doc := range strings.SplitSeq(b.String(), "\n---\n") {
		j, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			return nil, kind, err
		}
		obj, gvk, err := legacyscheme.Codecs.UniversalDecoder().Decode(j, nil, nil)
		if err != nil {
			return nil, kind, err
		}
		objects, kind = append(objects, obj), gvk.GroupKind()
	}
	return objects, kind, nil
}

// print makes one table of the objects.
func print(out io.Writer, objects []runtime.Object, options printers.PrintOptions) error {
	server := storage.TableConvertor{TableGenerator: k8sprinters.NewTableGenerator().With(internalversion.AddHandlers)}
	var all *metav1.Table
	for _, obj := range objects {
		table, err := server.ConvertToTable(context.Background(), obj, &metav1.TableOptions{IncludeObject: metav1.IncludeObject})
		if err != nil {
			return err
		}
		if all == nil {
			all = table
		} else {
			all.Rows = append(all.Rows, table.Rows...)
		}
	}
	w := printers.GetNewTabWriter(out)
	defer w.Flush()
	return printers.NewTablePrinter(options).PrintObj(all, w)
}
