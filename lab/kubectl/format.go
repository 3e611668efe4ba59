package kubectl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/lab/control"
)

// format is what -o asks for.
type format struct {
	wide bool
	// print prints an object, or a List of them, as JSON's maps and slices; nil for tables.
	print func(w io.Writer, tree map[string]any) error
}

const formats = "want wide, json, yaml, name, jsonpath=EXPRESSION, go-template=TEMPLATE or custom-columns=HEADER:PATH,…"

// parseFormat reads the argument of -o.
func parseFormat(output string, noHeaders bool) (format, error) {
	name, argument, _ := strings.Cut(output, "=")
	var print func(io.Writer, map[string]any) error
	var err error
	switch name {
	case "":
		return format{}, nil
	case "wide":
		return format{wide: true}, nil
	case "json":
		print = printJSON
	case "yaml":
		print = printYAML()
	case "name":
		print = eachItem(printName)
	case "jsonpath":
		print, err = printPath(argument)
	case "go-template":
		print, err = printTemplate(argument)
	case "custom-columns":
		print, err = printCustom(argument, noHeaders)
	default:
		err = errors.New(formats)
	}
	if err != nil {
		err = fmt.Errorf("-o %q: %w", output, err)
	}
	return format{print: print}, err
}

// treeOf returns an object as JSON's maps and slices.
func treeOf(o control.Object) (tree map[string]any) {
	b, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(b, &tree)
	}
	if err != nil {
		panic(err) // a type of k8s.io/api
	}
	return tree
}

// listOf returns a single object, or else a List.
func listOf(objects []control.Object, single bool) map[string]any {
	if single && len(objects) == 1 {
		return treeOf(objects[0])
	}
	items := []any{}
	for _, o := range objects {
		items = append(items, treeOf(o))
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}, "items": items}
}

// eachItem prints the items of a List, or the one object.
func eachItem(print func(io.Writer, map[string]any) error) func(io.Writer, map[string]any) error {
	return func(w io.Writer, tree map[string]any) error {
		items, isList := tree["items"].([]any)
		if !isList {
			return print(w, tree)
		}
		for _, item := range items {
			if err := print(w, item.(map[string]any)); err != nil {
				return err
			}
		}
		return nil
	}
}

func printJSON(w io.Writer, tree map[string]any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	return e.Encode(tree)
}

// printYAML prints documents, with a line between two.
func printYAML() func(io.Writer, map[string]any) error {
	begun := false
	return func(w io.Writer, tree map[string]any) error {
		b, err := yaml.Marshal(tree)
		if err != nil {
			return err
		}
		if begun {
			b = append([]byte("---\n"), b...)
		}
		begun = true
		_, err = w.Write(b)
		return err
	}
}

func printName(w io.Writer, tree map[string]any) error {
	version, _ := tree["apiVersion"].(string)
	kind, _ := tree["kind"].(string)
	metadata, _ := tree["metadata"].(map[string]any)
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, ref(kind, gv.Group, fmt.Sprint(metadata["name"])))
	return err
}

func printTemplate(text string) (func(io.Writer, map[string]any) error, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, tree map[string]any) error { return t.Execute(w, tree) }, nil
}

func printPath(expression string) (func(io.Writer, map[string]any) error, error) {
	path, err := parsePath(expression)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, tree map[string]any) error {
		return guarded(func() error { return path.Execute(w, tree) })
	}, nil
}

// guarded makes an error of a panic, by which the library answers some expressions that lead nowhere.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the JSONPath expression leads nowhere: %v", r)
		}
	}()
	return f()
}

// resultsAt returns what is at a path.
func resultsAt(path *jsonpath.JSONPath, tree map[string]any) (results [][]reflect.Value, err error) {
	err = guarded(func() error {
		results, err = path.FindResults(tree)
		return err
	})
	return results, err
}

// parsePath reads an expression such as {.items[*].metadata.name}.
func parsePath(expression string) (*jsonpath.JSONPath, error) {
	if expression == "" {
		return nil, errors.New("an expression is missing, for example {.metadata.name}")
	}
	path := jsonpath.New("").AllowMissingKeys(true)
	if err := path.Parse(expression); err != nil {
		return nil, fmt.Errorf("%w; https://kubernetes.io/docs/reference/kubectl/jsonpath has the language", err)
	}
	return path, nil
}

// relaxed returns the expression of a field for which braces and the first dot may be left out.
func relaxed(field string) string {
	field = strings.TrimSuffix(strings.TrimPrefix(field, "{"), "}")
	return "{." + strings.TrimPrefix(field, ".") + "}"
}
